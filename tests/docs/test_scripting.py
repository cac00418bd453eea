"""The Python code of the guides, saved and run in another folder, as a reader does."""

import asyncio
import os
import sys
from importlib import import_module
from pathlib import Path
from uuid import uuid4

import pytest

import local
from local import LocalCloud, chat_app, expo_faults, new_phone
from tests.docs.guides import PROJECT, Block, blocks


def code_of(guide: str) -> Block:
    [block] = [block for block in blocks("python") if block.file.name == guide]
    return block


async def output_of(*arguments: str, folder: Path) -> str:
    """What this Python prints in a folder outside of the repository. The command must succeed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *arguments),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


def test_the_package_local_exports_each_name_of_the_scripting_api() -> None:
    for name in local.__all__:
        value = getattr(local, name)
        if name.endswith("_faults"):
            assert import_module(f"local.providers.{name.removesuffix('_faults')}.faults") is value
        else:
            assert getattr(import_module(value.__module__), name) is value


async def test_a_script_sees_receipt_errors_and_dead_tokens_after_collect_receipts(cloud: LocalCloud) -> None:
    cloud.expo.reset()
    async with chat_app(cloud.supabase, cloud.api_url) as app:
        tina, gus = await app.sign_up("Tina", "tourist"), await app.sign_up("Gus", "guide")
        phones = [new_phone(cloud.expo, "ios"), new_phone(cloud.expo, "android")]
        for phone in phones:
            await gus.log_in_on(phone, device_id=phone.platform)
        cloud.expo.script(expo_faults.ReceiptError(error="MessageTooBig"), token=phones[0].token)
        cloud.expo.uninstall(phones[1].token)
        message_id = await tina.send(await tina.open_chat(gus), "Hello Gus")
        await cloud.until_push(message_id)
        await cloud.collect_receipts()
        push = await cloud.explain_push(message_id)
        assert {one["device_id"]: (one["status"], one["error"]) for one in push["deliveries"]} == {
            "ios": ("failed", "MessageTooBig"),
            "android": ("failed", "DeviceNotRegistered"),
        }
        assert {name: device["is_active"] for name, device in (await gus.devices()).items()} == {
            "ios": True,
            "android": False,
        }


async def test_until_push_rejects_a_message_without_a_push_job_at_once(cloud: LocalCloud) -> None:
    with pytest.raises(LookupError, match="has no push job"):
        await cloud.until_push(uuid4())


async def test_the_scenario_of_the_guide_prints_what_the_guide_says(tmp_path: Path) -> None:
    block = code_of("scripting.md")
    (tmp_path / "scenario.py").write_text(block.text)
    printed = await output_of("scenario.py", folder=tmp_path)
    [expected] = [text.text for text in blocks("text") if text.file == block.file and "python" not in text.text]
    assert printed.endswith(expected)


async def test_the_pytest_fixtures_work_in_the_tests_of_another_repository(tmp_path: Path) -> None:
    (tmp_path / "test_pushes.py").write_text(code_of("client.md").text)
    command = "-m pytest -p local.pytest_plugin test_pushes.py"
    assert [text for text in blocks("text") if text.file.name == "client.md" and command in text.text]
    assert "1 passed" in await output_of(*command.split(), folder=tmp_path)
