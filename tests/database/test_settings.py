"""The settings that an operator may change."""

import pytest

from tests.database.chat import Chat, refused


@pytest.mark.parametrize(
    "change",
    [
        "push.settings set time_to_live = '0'",
        "push.settings set time_to_live = '29 days'",
        "push.settings set presence_fresh_for = '25 hours'",
        "push.settings set max_attempts = 0",
        "push.settings set retry_cap = '0.5 second'",
        "push.settings set receipt_after = '0'",
        "push.settings set receipt_lost_after = '15 minutes'",
        "push.settings set max_attempts_per_device = 0",
        "push.settings set breaker_share = 1.1",
        "push.settings set breaker_devices = 0",
        "push.settings set job_kept_for = '24 hours'",
        "push.settings set only_row = false",
        "private.chat_settings set message_limit = 0",
        "private.chat_settings set message_bytes_limit = 1023",
        "private.chat_settings set deleted_message_kept_for = '-1 second'",
        "private.chat_settings set only_row = false",
    ],
)
async def test_settings_reject_meaningless_values(chat: Chat, change: str) -> None:
    async with refused(chat.connection, "23514"):
        await chat.connection.execute(f"update {change}".encode())
