"""The example app of client/expo, in windows of Chromium on the local cloud."""

import asyncio

from local.cloud import LocalCloud
from tests.example_app import EXAMPLE, export, run
from tests.system.chat import execute


async def test_two_windows_of_the_example_app_chat(cloud: LocalCloud) -> None:
    await execute(cloud, (EXAMPLE / "photos.sql").read_text())
    await asyncio.to_thread(export, ["web"], EXAMPLE / "dist")
    tests = sorted((EXAMPLE / "test").glob("*.test.mts"))
    project = {"SUPABASE_URL": cloud.realtime.url, "SUPABASE_PUBLISHABLE_KEY": cloud.supabase.publishable_key}
    await asyncio.to_thread(lambda: run("--test", "--test-isolation=none", "--test-timeout=60000", *tests, **project))
