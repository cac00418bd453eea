"""A device gets pushes only while the session of Supabase Auth that registered it lasts."""

from uuid import UUID, uuid4

import pytest

from local.supabase.postgres import SUPERUSER
from tests.database.chat import (
    Chat,
    Database,
    Row,
    as_user,
    claim,
    claim_one,
    decision,
    explain,
    insert,
    is_active,
    record,
    refused,
    row,
    rows,
    session_of,
    start_chat,
    value,
    worker_report,
)

BANNED = "update auth.users set banned_until = now() + interval '1 hour'"
ENDED = {
    "signed out": "delete from auth.sessions",
    "expired": "update auth.sessions set not_after = now()",
    "banned": BANNED,
    "deleted": "update auth.users set deleted_at = now()",
}


async def registered(chat: Chat, session: UUID, device_id: str = "phone") -> Row:
    """A device of the guide that the app registers in this session, as stored."""
    async with as_user(chat.connection, chat.guide, session_id=str(session)):
        await chat.connection.execute(
            "select public.register_device(%s, 'ios', %s)", (device_id, f"ExponentPushToken[{device_id}]")
        )
    return await row(chat.connection, "select * from user_devices where device_id = %s", device_id)


async def device_with_session(chat: Chat, device_id: str = "phone") -> Row:
    """A device of the guide, registered in a new session."""
    return await registered(chat, await session_of(chat.connection, chat.guide), device_id)


async def sent_to(chat: Chat) -> list[str]:
    """The push tokens that a new message to the guide is sent to."""
    claimed = await claim(chat.connection, await chat.message())
    return [device["push_token"] for job in claimed["jobs"] for device in job["devices"]]


@pytest.mark.parametrize("how", ENDED)
async def test_a_device_whose_session_has_ended_gets_no_push_and_is_deactivated(chat: Chat, how: str) -> None:
    device = await device_with_session(chat)
    assert await sent_to(chat) == [device["push_token"]]
    await chat.connection.execute(ENDED[how].encode())
    assert decision(await claim(chat.connection, await chat.separate_message())) == "skipped: no_device"
    assert not await is_active(chat, device)


async def test_a_retry_is_not_sent_to_a_device_whose_session_has_ended_meanwhile(chat: Chat) -> None:
    device = await device_with_session(chat)
    message = await chat.message()
    claimed, job = await claim_one(chat.connection, message)
    await record(chat.connection, claimed, worker_report(job, "retry"))
    await chat.connection.execute("delete from auth.sessions")
    await chat.pass_time(60)
    assert decision(await claim(chat.connection, message)) == "failed: no_device"
    assert not await is_active(chat, device)


async def test_only_the_device_of_the_ended_session_gets_no_push(chat: Chat) -> None:
    lost, kept = await device_with_session(chat, "lost"), await device_with_session(chat, "kept")
    await chat.connection.execute("delete from auth.sessions where id = %s", (lost["session_id"],))
    assert await sent_to(chat) == [kept["push_token"]]
    assert (await is_active(chat, lost), await is_active(chat, kept)) == (False, True)


async def test_a_device_of_another_user_keeps_its_pushes_when_a_session_ends(chat: Chat) -> None:
    session = await session_of(chat.connection, chat.tourist)
    await chat.device(user_id=chat.tourist)
    await chat.connection.execute("update user_devices set session_id = %s", (session,))
    await device_with_session(chat)
    await chat.connection.execute("delete from auth.sessions where user_id = %s", (chat.guide,))
    to_guide = await chat.message()
    to_tourist = await chat.message(sender_id=chat.guide)
    claimed = await claim(chat.connection, to_guide, to_tourist)
    assert [job["message_id"] for job in claimed["jobs"]] == [str(to_tourist)]


async def test_a_device_with_the_session_of_another_account_gets_no_push(chat: Chat) -> None:
    await chat.device()
    session = await session_of(chat.connection, chat.tourist)
    await chat.connection.execute("update user_devices set session_id = %s", (session,))
    assert await sent_to(chat) == []


async def test_a_device_without_a_session_gets_pushes_until_its_account_is_banned(chat: Chat) -> None:
    device = await chat.device()
    await chat.connection.execute("delete from auth.sessions")
    assert await sent_to(chat) == [device["push_token"]]
    await chat.connection.execute(BANNED)
    assert await sent_to(chat) == []


async def test_a_ban_that_is_over_and_a_session_that_ends_later_stop_no_push(chat: Chat) -> None:
    device = await device_with_session(chat)
    await chat.connection.execute("update auth.users set banned_until = now() - interval '1 second'")
    await chat.connection.execute("update auth.sessions set not_after = now() + interval '1 hour'")
    assert await sent_to(chat) == [device["push_token"]]


async def test_a_device_that_registers_with_a_new_session_is_active_again(chat: Chat) -> None:
    device = await device_with_session(chat)
    await chat.connection.execute("delete from auth.sessions")
    assert await sent_to(chat) == []
    again = await device_with_session(chat)
    assert (again["id"], again["is_active"]) == (device["id"], True)
    assert await sent_to(chat) == [device["push_token"]]


@pytest.mark.parametrize("how", ENDED)
async def test_an_access_token_whose_session_has_ended_registers_no_device(chat: Chat, how: str) -> None:
    session = await session_of(chat.connection, chat.guide)
    await chat.connection.execute(ENDED[how].encode())
    async with refused(chat.connection, "PT401", "the session of this access token has ended"):
        await registered(chat, session)
    async with refused(chat.connection, "PT401"), as_user(chat.connection, chat.guide, session_id=str(session)):
        await insert(chat.connection, "public.user_devices", user_id=chat.guide, device_id="phone", platform="web")
    assert await rows(chat.connection, "table user_devices") == []


async def test_an_access_token_whose_session_has_ended_activates_no_device(chat: Chat) -> None:
    device = await device_with_session(chat)
    await chat.connection.execute("delete from auth.sessions")
    assert await sent_to(chat) == []
    mine = as_user(chat.connection, chat.guide, session_id=str(device["session_id"]))
    async with refused(chat.connection, "PT401"), mine:
        await chat.connection.execute("update user_devices set is_active = true")
    assert not await is_active(chat, device)


async def test_explain_push_names_each_device_whose_session_has_ended(chat: Chat) -> None:
    lost = await device_with_session(chat, "lost-phone")
    message = await chat.message()
    await chat.connection.execute("delete from auth.sessions")
    await claim(chat.connection, message)
    sentence = (
        "Device lost-phone gets no push: its session has ended (signed out, password changed or account banned);"
        " it gets pushes again after a new sign-in."
    )
    skipped = "Skipped: the recipient has no active device with a push token."
    assert (await explain(chat.connection, message))["explanation"] == f"{skipped} {sentence}"
    kept = await device_with_session(chat, "kept-phone")
    message = await chat.message()
    claimed, job = await claim_one(chat.connection, message)
    await record(chat.connection, claimed, worker_report(job))
    accepted = "Accepted for at least one device."
    assert (await explain(chat.connection, message))["explanation"] == f"{accepted} {sentence}"
    await chat.connection.execute("delete from user_devices where id = %s", (lost["id"],))
    await chat.connection.execute("delete from auth.sessions where id = %s", (kept["session_id"],))
    assert (await explain(chat.connection, message))["explanation"] == accepted, "a push that was accepted before"


# Between transactions ----------------------------------------------------------------------------


@pytest.fixture
async def alone(database: Database) -> Chat:
    """A conversation in a database of its own, whose guide has a phone with an ended session."""
    chat = await start_chat(await database.connect())
    await device_with_session(chat, "lost")
    await chat.connection.execute("delete from auth.sessions")
    return chat


async def test_a_message_waits_while_another_transaction_locks_the_device_of_an_ended_session(
    alone: Chat, database: Database
) -> None:
    other = await database.connect()
    message = await alone.message()
    async with other.transaction():
        await other.execute("select from user_devices for update")
        claimed = await claim(alone.connection, message)
        assert (claimed["jobs"], claimed["left_due"]) == ([], [str(message)])
    assert decision(await claim(alone.connection, message)) == "skipped: no_device"


async def test_pushes_go_on_if_sessions_cannot_be_read(alone: Chat, database: Database) -> None:
    """For example another Auth without auth.sessions, and a role that row level security applies to."""
    admin = await database.connect(SUPERUSER)
    for prevent in (
        "drop table auth.sessions",
        "alter table auth.sessions rename id to session_id",
        "revoke all on auth.sessions from postgres",
        "alter table auth.users drop column banned_until",
        "alter role postgres nobypassrls",
    ):
        async with admin.transaction(force_rollback=True):
            await admin.execute(prevent.encode())
            chat = Chat(admin, alone.tourist, alone.guide, alone.room)
            assert await sent_to(chat) == ["ExponentPushToken[lost]"], prevent
            assert (await registered(chat, uuid4(), "new"))["is_active"], prevent
    assert await value(alone.connection, "select count(*) from user_devices") == 1


HEARTBEATS = {
    "of a device": "select public.report_presence('phone', %(state)s, %(room)s)",
    "of the person": "insert into public.user_presence (user_id, is_online, current_conversation_id)"
    " values (%(me)s, %(state)s = 'online', %(room)s)",
}


@pytest.mark.parametrize("how", ENDED)
@pytest.mark.parametrize("heartbeat", HEARTBEATS)
async def test_a_lost_phone_that_shows_the_conversation_holds_back_no_push(
    chat: Chat, how: str, heartbeat: str
) -> None:
    session = await session_of(chat.connection, chat.guide)
    await registered(chat, session)
    statement, names = HEARTBEATS[heartbeat].encode(), {"me": chat.guide, "room": chat.room}
    await chat.connection.execute(ENDED[how].encode())
    async with as_user(chat.connection, chat.guide, session_id=str(session)):
        async with refused(chat.connection, "PT401", "session"):
            await chat.connection.execute(statement, {**names, "state": "online"})
        await chat.connection.execute(statement, {**names, "state": "offline"})
