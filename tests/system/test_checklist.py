"""Boxes of the specification's checklist. docs/checklist.md names the tests of each box, here and elsewhere."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import httpx
import psycopg
import pytest
from postgrest import APIError

from local.app import App, chat_app
from local.cloud import LocalCloud
from local.providers.phones import Condition
from tests.system.app_phones import changes, rpc
from tests.system.chat import TEXT, Chat, arrived_and_visible, execute


@pytest.fixture
async def app(cloud: LocalCloud) -> AsyncIterator[App]:
    async with chat_app(cloud.supabase, cloud.api_url) as app:
        yield app


# 1. App background/killed ----------------------------------------------------------------------


async def test_messages_received_while_backgrounded_show_as_push_notifications(chat: Chat) -> None:
    """Two phones showed the conversation and went to the background. Then one app is killed."""
    killed, pixel = chat.phone, await chat.new_phone_of(chat.gus)
    for state in ("online", "offline"):
        for phone in (killed, pixel):
            conversation = str(chat.id) if state == "online" else None
            await rpc(
                chat.gus,
                "report_presence",
                p_device_id=phone.token,
                p_state=state,
                p_conversation_id=conversation,
            )
    chat.cloud.expo.change_phone(killed.token, Condition(app="killed"))
    message = await chat.send()
    await chat.until_done(message)
    for phone in (killed, pixel):
        assert arrived_and_visible(phone, message) == (1, 1)
        assert [arrival.conversation_id for arrival in phone.shown] == [str(chat.id)]


async def test_on_app_return_missed_messages_edits_and_deletions_are_fetched(chat: Chat) -> None:
    """Two phones went away at different times. What changed before the first sync of a phone may come again."""
    edited, deleted = await chat.send("Shall we meet at noon?"), await chat.send("I forgot my umbrella")
    first_phone = await rpc(chat.gus, "sync_cursor")
    await chat.tina.edit(edited, "Shall we meet at one?")
    second_phone = (await changes(chat.gus, first_phone))[-1]["changed_at"]
    await chat.tina.delete(deleted)
    new = await chat.send("I am at the station")
    for since in (first_phone, second_phone):
        found = {row["id"]: row for row in await changes(chat.gus, since)}
        assert found[str(edited)]["message"] == "Shall we meet at one?"
        assert (found[str(deleted)]["message"], bool(found[str(deleted)]["deleted_at"])) == ("", True)
        assert found[str(new)]["message"] == "I am at the station"


# 2. Intermittent network, 5. Duplicates and idempotency ----------------------------------------


async def test_an_outbox_that_is_sent_again_after_an_outage_adds_only_what_is_missing(chat: Chat) -> None:
    """The phone got no answer for the first two messages, so it sends them again with the same client_msg_id."""
    outbox = [{"text": f"Written in the tunnel, part {part}", "client_msg_id": str(uuid4())} for part in range(4)]
    for message in outbox[:2]:
        await chat.tina.send(chat.id, **message)
    await chat.cloud.supabase.stop()
    try:
        with pytest.raises(httpx.TransportError):
            await chat.tina.send(chat.id, **outbox[2])
    finally:
        await chat.cloud.supabase.start()
    errors = []
    for message in outbox:
        try:
            newest = await chat.tina.send(chat.id, **message)
        except APIError as error:
            errors.append((error.code, "client_msg_id" in str(error)))
    assert errors == [("23505", True)] * 2
    page = await rpc(chat.gus, "get_messages_paginated", p_conversation_id=str(chat.id), p_limit=4)
    assert [row["message"] for row in reversed(page)] == [message["text"] for message in outbox]
    await chat.until_done(newest, sweep=True)
    assert chat.phone.told_badge == 4


async def test_the_same_message_cannot_be_inserted_twice_by_two_phones_at_once(chat: Chat) -> None:
    client_msg_id = str(uuid4())
    sent = await asyncio.gather(
        *(chat.tina.send(chat.id, TEXT, client_msg_id=client_msg_id) for _ in range(6)), return_exceptions=True
    )
    [message] = [answer for answer in sent if not isinstance(answer, BaseException)]
    assert [answer.code for answer in sent if isinstance(answer, APIError)] == ["23505"] * 5
    await chat.until_done(message, sweep=True)
    assert (arrived_and_visible(chat.phone, message), chat.phone.told_badge) == ((1, 1), 1)


# 4. Clock drift --------------------------------------------------------------------------------


async def test_messages_of_phones_whose_clocks_are_hours_off_are_in_the_order_of_the_server(chat: Chat) -> None:
    began = await rpc(chat.gus, "sync_cursor")
    clocks = {chat.tina: timedelta(hours=5), chat.gus: timedelta(hours=-7)}
    sent = []
    for part in range(3):
        for person, error in clocks.items():
            claimed = (datetime.now(UTC) + error).isoformat()
            times = dict.fromkeys(("created_at", "updated_at", "server_timestamp"), claimed)
            sent.append(await person.send(chat.id, f"Part {part} of {person.name}'s story", **times))
    ended = await rpc(chat.gus, "sync_cursor")
    page = await rpc(chat.gus, "get_messages_paginated", p_conversation_id=str(chat.id), p_limit=len(sent))
    assert [row["id"] for row in reversed(page)] == [*map(str, sent)]
    for row in page:
        for column in ("created_at", "updated_at", "server_timestamp"):
            assert began < row[column] < ended
    await chat.until_done(sent[-2], sweep=True)
    assert arrived_and_visible(chat.phone, sent[-2]) == (1, 1)


# 7. Load/performance ---------------------------------------------------------------------------


async def test_pages_by_server_timestamp_hold_each_of_10000_messages_once(chat: Chat, app: App) -> None:
    """Three messages each have the same timestamp."""
    reader, partner = await app.sign_up("Reader", "tourist"), await app.sign_up("Partner", "guide")
    room = await reader.open_chat(partner)
    async with await psycopg.AsyncConnection.connect(chat.cloud.database_url) as connection:
        await connection.execute("alter table public.chat_messages disable trigger user")
        await connection.execute(
            "insert into public.chat_messages (room_id, sender_id, message, is_read, server_timestamp, created_at)"
            " select %s, %s, 'One line of a long story', true, at, at from generate_series(1, 10000) number,"
            " lateral (select now() - make_interval(mins => number / 3)) time (at)",
            (room, partner.id),
        )
        await connection.execute("alter table public.chat_messages enable trigger user")
    seen: list[tuple[str, str]] = []
    cursor: dict[str, str] = {}
    while page := await rpc(reader, "get_messages_paginated", p_conversation_id=str(room), p_limit=200, **cursor):
        seen += [(row["server_timestamp"], row["id"]) for row in page]
        cursor = {"p_cursor_timestamp": seen[-1][0], "p_cursor_id": seen[-1][1]}
    assert len(seen) == len({id for _, id in seen}) == 10000
    assert [at for at, _ in seen] == sorted((at for at, _ in seen), reverse=True)


async def test_a_flood_of_messages_is_answered_429_and_others_can_write(chat: Chat, app: App) -> None:
    flooder, flooded = await app.sign_up("Flooder", "tourist"), await app.sign_up("Flooded", "guide")
    room = await flooder.open_chat(flooded)
    await execute(chat.cloud, "update private.chat_settings set message_limit = 3")
    for part in range(3):
        await flooder.send(room, f"Buy my carpet number {part}")
    with pytest.raises(APIError) as rejected:
        await flooder.send(room, "Buy my last carpet")
    assert rejected.value.code == "PT429"
    assert json.loads(rejected.value.details or "")["retry_after_seconds"] > 0
    await flooded.send(room, "No, thank you")


# 8. Testing scenarios --------------------------------------------------------------------------


async def test_five_messages_that_were_sent_while_a_phone_was_offline_appear_on_it(chat: Chat) -> None:
    chat.cloud.expo.change_phone(chat.phone.token, Condition(is_on=False))
    newest_known = await chat.send("The last one before the tunnel")
    [known] = await rpc(chat.gus, "get_messages_paginated", p_conversation_id=str(chat.id), p_limit=1)
    assert known["id"] == str(newest_known)
    sent = [await chat.send(f"Sent into the tunnel, number {number}") for number in range(5)]
    await chat.until_done(sent[-1], sweep=True)
    chat.cloud.expo.change_phone(chat.phone.token, Condition(is_on=True))
    missed = await rpc(
        chat.gus, "get_missed_messages", p_user_id=str(chat.gus.id), p_since_timestamp=known["server_timestamp"]
    )
    new = [row["id"] for row in missed if row["server_timestamp"] > known["server_timestamp"]]
    assert new == [*map(str, sent)]
    assert (chat.phone.shown[0].message_id, chat.phone.told_badge) == (str(sent[-1]), 6)
