"""No message text, push token, JWT or key in a log line, a queue or a dead letter. Runs last, so that it sees what all
the other system tests left there."""

import asyncio
import re
from uuid import uuid4

import psycopg
import pytest

from local.cloud import LocalCloud
from local.expo_faults import HttpError, OddAnswer, ReceiptError, TicketError
from tests.system.chat import TEXT, Chat, Log

CONFIDENTIAL = {
    "push token": re.compile(r"Expo(nent)?PushToken"),
    "JWT": re.compile(r"\beyJ[\w-]+\."),
    "Supabase key": re.compile(r"\bsb_(secret|publishable)_"),
}


async def _found(cloud: LocalCloud, text: str) -> list[str]:
    """What of all that is confidential occurs in the text."""
    async with await psycopg.AsyncConnection.connect(cloud.database_url) as connection:
        stored = await connection.execute("select distinct message from chat_messages where message <> ''")
        written = [message for [message] in await stored.fetchall()]
    assert TEXT in written
    assert cloud.webhook_secret not in written
    found = [name for name, pattern in CONFIDENTIAL.items() if pattern.search(text)]
    return found + [secret for secret in (*written, cloud.webhook_secret, cloud.supabase.jwt_secret) if secret in text]


@pytest.fixture
async def troubled(chat: Chat, log: Log) -> Chat:
    """Everything that might quote what it should not: errors that carry tokens, odd answers, refused records."""
    cloud = chat.cloud
    removed = await chat.phone_of(chat.gus)
    cloud.expo.uninstall(removed.token)
    cloud.expo.script(OddAnswer(body="errors"))
    cloud.expo.script(HttpError(status=400))
    cloud.expo.script(TicketError(error="DeveloperError", message=f"{chat.phone.token} got {TEXT}"))
    for _ in range(3):
        await chat.ended(await chat.send(), sweep=True)
    cloud.expo.script(ReceiptError(error="DeveloperError", message=f"{chat.phone.token} got {TEXT}"))
    await chat.ended(await chat.send(), sweep=True)
    await chat.clean_up()
    await asyncio.to_thread(
        cloud.aws.sqs.send_message,
        QueueUrl=cloud.template.queues["PushQueue"].url,
        MessageBody=f"{chat.phone.token} {TEXT} {uuid4()}",
    )
    await log.until("record is no message id")
    await cloud.poller.until_idle()
    return chat


async def test_nothing_confidential_is_in_any_log_line(troubled: Chat) -> None:
    functions = troubled.cloud.functions.values()
    lines = [line for function in functions for line in function.log_lines()]
    assert any('"push tried"' in line for line in lines)
    assert any('"push not handed over"' in line for line in lines)
    assert await _found(troubled.cloud, "\n".join(lines)) == []
