"""The HTTP API answers as docs/openapi.json says, to requests that it allows and to others."""

import asyncio
import sys
from pathlib import Path

import pytest

from local.openapi import DOCUMENT
from tests.system.chat import Chat


@pytest.mark.usefixtures("direct")  # The document describes a stack that has every provider.
async def test_schemathesis_finds_no_difference_between_the_http_api_and_its_document(
    chat: Chat, tmp_path: Path
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(Path(sys.executable).with_name("schemathesis"), "run", DOCUMENT, "--url", chat.cloud.api_url),
        *("--header", f"Authorization: Bearer {chat.greta.access_token}"),
        *("--seed", "1", "--max-examples", "20", "--no-color"),
        cwd=tmp_path,  # it writes a folder of examples
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert "3 selected / 3 total" in output.decode()
