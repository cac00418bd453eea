"""A function whose settings are incomplete refuses to start, and says what is missing."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from local.aws.build import built
from local.aws.lambda_runtime import FunctionError, lambda_function
from local.cloud import LocalCloud


@pytest.fixture
async def runtime() -> AsyncIterator[Path]:
    async with built() as build:
        yield build.runtime


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("SendChatPush", ["SUPABASE_URL"]),
        ("SendChatPush", ["SUPABASE_URL", "BACKEND_SECRET_ID"]),
        ("AuthorizeWebhook", ["WEBHOOK_SECRET_ID"]),
        ("CleanupReceipts", ["SUPABASE_URL", "BACKEND_SECRET_ID"]),
        ("RegisterDevice", ["SUPABASE_URL", "APP_SECRET_ID"]),
    ],
)
async def test_missing_settings_are_named_and_end_the_start(
    cloud: LocalCloud, runtime: Path, tmp_path: Path, name: str, missing: list[str]
) -> None:
    function = cloud.template.functions[name]
    present = {key: value for key, value in function.environment.items() if key not in missing}
    async with lambda_function(
        replace(function, environment=present),
        runtime=runtime,
        environment=cloud.aws.environment,
        folder=tmp_path,
    ) as unset:
        with pytest.raises(FunctionError, match=r".*".join(missing)) as refused:
            await unset.invoke({"sweep": True})
    assert "SettingsError" in refused.value.error_type
