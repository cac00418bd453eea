"""A function with incomplete settings does not start, and its error names what is missing."""

from dataclasses import replace
from pathlib import Path

import pytest

from local.aws.lambda_runtime import FunctionError
from local.cloud import LocalCloud
from tests.system.chat import running_function


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
async def test_a_function_with_missing_settings_does_not_start_and_names_them(
    cloud: LocalCloud, tmp_path: Path, name: str, missing: list[str]
) -> None:
    function = cloud.template.functions[name]
    present = {key: value for key, value in function.environment.items() if key not in missing}
    async with running_function(cloud, replace(function, environment=present), tmp_path) as incomplete:
        with pytest.raises(FunctionError, match=r".*".join(missing)) as raised:
            await incomplete.invoke({"sweep": True})
    assert "SettingsError" in raised.value.error_type
