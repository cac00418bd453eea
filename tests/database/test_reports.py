"""Reports keep what was reported, moderators read and resolve them, and a suspended person cannot write."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from tests.database.chat import Chat, Row, acting_as, as_user, insert, person, prune, refused, rows, value
from tests.database.test_block import block, unblock, write
from tests.database.test_mute import in_an_hour
from tests.database.test_notification_state import edit


async def report(chat: Chat, message: UUID, reason: str = "harassment", details: str | None = None) -> UUID:
    """The guide reports a message."""
    async with as_user(chat.connection, chat.guide):
        report_id = await value(chat.connection, "select public.report_message(%s, %s, %s)", message, reason, details)
    assert isinstance(report_id, UUID)
    return report_id


async def report_person(chat: Chat, user: UUID, reason: str = "spam") -> UUID:
    """The guide reports a person."""
    async with as_user(chat.connection, chat.guide):
        report_id = await value(chat.connection, "select public.report_user(%s, %s)", user, reason)
    assert isinstance(report_id, UUID)
    return report_id


async def moderator(chat: Chat) -> UUID:
    """A person whom an operator has made a moderator."""
    user = await person(chat.connection)
    await insert(chat.connection, "private.moderators", user_id=user)
    return user


async def reports(chat: Chat, state: str = "open", **more: Any) -> list[Row]:
    arguments = {"state": state, **more}
    named = ", ".join(f"p_{name} => %s" for name in arguments)
    async with acting_as(chat.connection, "service_role"):
        return await rows(chat.connection, f"select * from public.list_reports({named})", *arguments.values())


async def resolve(chat: Chat, report_id: UUID, resolution: str | None, note: str | None = None) -> None:
    async with acting_as(chat.connection, "service_role"):
        await chat.connection.execute("select public.resolve_report(%s, %s, %s)", (report_id, resolution, note))


async def suspend(chat: Chat, until: datetime | None = None) -> None:
    """A moderator suspends the tourist."""
    async with as_user(chat.connection, await moderator(chat)):
        await chat.connection.execute("select public.suspend_user(%s, %s)", (chat.tourist, until))


# Evidence --------------------------------------------------------------------------------------


async def test_a_report_keeps_who_reported_what_of_whom_and_why(chat: Chat) -> None:
    message = await write(chat, "a threat")
    report_id = await report(chat, message, "harassment", "He does not stop.")
    [found] = await reports(chat)
    assert found["id"] == report_id
    assert (found["reporter_id"], found["reported_id"], found["reported_name"]) == (
        chat.guide,
        chat.tourist,
        "Tom Tourist",
    )
    assert (found["reason"], found["details"]) == ("harassment", "He does not stop.")
    assert (found["room_id"], found["message_id"], found["message"]) == (chat.room, message, "a threat")
    assert (found["resolved_at"], found["suspended_until"], found["reports_of_reported"]) == (None, None, 1)


async def test_an_edit_and_a_deletion_do_not_change_the_evidence(chat: Chat) -> None:
    message = await write(chat, "a threat")
    await report(chat, message)
    await edit(chat, message, "harmless")
    await chat.connection.execute("update public.chat_messages set deleted_at = now() where id = %s", (message,))
    assert [found["message"] for found in await reports(chat)] == ["a threat"]


async def test_the_end_of_the_account_of_either_person_does_not_change_the_evidence(chat: Chat) -> None:
    await report(chat, await write(chat, "a threat"))
    for account in (chat.tourist, chat.guide):
        await chat.connection.execute("delete from auth.users where id = %s", (account,))
    [found] = await reports(chat)
    assert (found["message"], found["reported_name"], found["reported_id"]) == ("a threat", "Tom Tourist", chat.tourist)
    assert found["reporter_id"] is None


async def test_two_reporters_of_one_person_may_both_end_their_accounts(chat: Chat) -> None:
    reporters = [chat.guide, await person(chat.connection)]
    for reporter in reporters:
        async with as_user(chat.connection, reporter):
            await value(chat.connection, "select public.report_user(%s, 'spam')", chat.tourist)
    await chat.connection.execute("delete from auth.users where id = any(%s)", (reporters,))
    assert [found["reporter_id"] for found in await reports(chat)] == [None, None]


async def test_a_report_of_a_deleted_message_has_the_copy_if_the_operator_keeps_copies(chat: Chat) -> None:
    for kept, expected in (("0", None), ("1 day", "gone")):
        await chat.connection.execute(
            "update private.chat_settings set deleted_message_kept_for = %s::interval", (kept,)
        )
        message = await write(chat, "gone")
        await chat.connection.execute("update public.chat_messages set deleted_at = now() where id = %s", (message,))
        report_id = await report(chat, message)
        [found] = [one for one in await reports(chat) if one["id"] == report_id]
        assert found["message"] == expected


async def test_a_resolved_report_is_deleted_after_its_time_and_an_open_one_is_kept(chat: Chat) -> None:
    await report(chat, await write(chat))
    resolved = await report(chat, await write(chat))
    await resolve(chat, resolved, "confirmed")
    await chat.connection.execute("update private.reports set created_at = created_at - interval '1 year'")
    await prune(chat.connection)
    assert len(await reports(chat, "resolved")) == 1
    await chat.connection.execute("update private.chat_settings set report_kept_for = '0'")
    await prune(chat.connection)
    assert (len(await reports(chat)), await reports(chat, "resolved")) == (1, [])


# Limits ----------------------------------------------------------------------------------------


async def test_a_person_reports_a_message_once_and_its_next_text_once_more(chat: Chat) -> None:
    message = await write(chat, "first")
    assert await report(chat, message) == await report(chat, message, "spam")
    await edit(chat, message, "second")
    assert await report(chat, message) == await report(chat, message)
    assert [found["message"] for found in await reports(chat)] == ["first", "second"]


async def test_a_person_is_reported_again_only_after_the_first_report_was_resolved(chat: Chat) -> None:
    first = await report_person(chat, chat.tourist)
    assert await report_person(chat, chat.tourist) == first
    await resolve(chat, first, "dismissed")
    assert await report_person(chat, chat.tourist) != first
    assert [found["reports_of_reported"] for found in await reports(chat)] == [2]


async def test_too_many_reports_name_the_seconds_to_wait(chat: Chat) -> None:
    await chat.connection.execute("update private.chat_settings set report_limit = 2")
    messages = [await write(chat) for _ in range(3)]
    for message in messages[:2]:
        await report(chat, message)
    with pytest.raises(psycopg.Error) as error:
        async with chat.connection.transaction():
            await report(chat, messages[2])
    assert (error.value.sqlstate, error.value.diag.message_detail) == ("PT429", '{"retry_after_seconds": 86400}')
    # One that is there is no new one.
    await report(chat, messages[0])
    await chat.connection.execute("update private.reports set created_at = created_at - interval '1 day'")
    await report(chat, messages[2])


@pytest.mark.parametrize("whose", ["their own", "of a third person", "unknown", "hidden by a block", None])
async def test_only_a_message_that_the_person_got_can_be_reported(chat: Chat, whose: str | None) -> None:
    message: UUID | None = None
    if whose == "their own":
        message = await chat.message(sender_id=chat.guide)
    elif whose == "of a third person":
        others = await person(chat.connection), await person(chat.connection)
        room = await insert(chat.connection, "public.chat_rooms", user1_id=others[0], user2_id=others[1])
        message = await chat.message(room_id=room["id"], sender_id=others[0])
    elif whose == "unknown":
        message = uuid4()
    elif whose == "hidden by a block":
        await block(chat)
        message = await write(chat)
        await unblock(chat)
    async with refused(chat.connection, "22023", "p_message_id"), as_user(chat.connection, chat.guide):
        await chat.connection.execute("select public.report_message(%s, 'spam')", (message,))


async def test_a_message_of_before_a_block_can_be_reported_while_it_lasts(chat: Chat) -> None:
    message = await write(chat, "a threat")
    await block(chat)
    await report(chat, message)
    assert [found["message"] for found in await reports(chat)] == ["a threat"]


@pytest.mark.parametrize("whom", ["themselves", "nobody", None])
async def test_a_report_of_themselves_or_of_nobody_is_refused(chat: Chat, whom: str | None) -> None:
    user = {"themselves": chat.guide, "nobody": uuid4(), None: None}[whom]
    async with refused(chat.connection, "22023", "p_user_id"), as_user(chat.connection, chat.guide):
        await chat.connection.execute("select public.report_user(%s, 'spam')", (user,))


async def test_a_wrong_reason_and_long_details_are_refused_by_their_names(chat: Chat) -> None:
    message = await write(chat)
    async with refused(chat.connection, "22023", "p_reason must be one of spam, harassment"):
        await report(chat, message, "boring")
    async with refused(chat.connection, "22001", "p_details"):
        await report(chat, message, "spam", "x" * 2001)
    await chat.connection.execute("update private.chat_settings set report_reasons = '{boring}'")
    await report(chat, message, "boring")


# Moderators ------------------------------------------------------------------------------------

MODERATION = [
    "select * from public.list_reports()",
    "select public.resolve_report(gen_random_uuid(), 'dismissed')",
    "select public.suspend_user(gen_random_uuid())",
    "select public.unsuspend_user(gen_random_uuid())",
]


@pytest.mark.parametrize("call", MODERATION)
async def test_only_moderators_and_backends_read_and_decide_reports(chat: Chat, call: str) -> None:
    async with refused(chat.connection, "42501", "not a moderator"), as_user(chat.connection, chat.guide):
        await chat.connection.execute(call.encode())


async def test_a_moderator_is_one_until_an_operator_ends_it(chat: Chat) -> None:
    await report(chat, await write(chat))
    one = await moderator(chat)
    async with as_user(chat.connection, one):
        assert len(await rows(chat.connection, "select * from public.list_reports()")) == 1
    await chat.connection.execute("delete from private.moderators where user_id = %s", (one,))
    async with refused(chat.connection, "42501", "not a moderator"), as_user(chat.connection, one):
        await chat.connection.execute("select * from public.list_reports()")


async def test_a_resolved_report_says_who_decided_what(chat: Chat) -> None:
    report_id = await report(chat, await write(chat, "a threat"))
    one = await moderator(chat)
    async with as_user(chat.connection, one):
        await chat.connection.execute("select public.resolve_report(%s, 'confirmed', 'warned')", (report_id,))
    [found] = await reports(chat, "resolved")
    assert (found["resolved_by"], found["resolution"], found["note"]) == (one, "confirmed", "warned")
    assert (await reports(chat), found["resolved_at"] is not None) == ([], True)


async def test_a_removed_message_is_deleted_for_both_people_and_stays_in_the_report(chat: Chat) -> None:
    message = await write(chat, "a threat")
    report_id = await report(chat, message)
    async with as_user(chat.connection, await moderator(chat)):
        await chat.connection.execute("select public.resolve_report(%s, 'removed')", (report_id,))
    seen = await chat.see_message(message)
    assert (seen["message"], seen["deleted_at"] is not None) == ("", True)
    assert [found["message"] for found in await reports(chat, "resolved")] == ["a threat"]


async def test_reports_are_read_page_by_page_the_oldest_first(chat: Chat) -> None:
    for text in "abc":
        await report(chat, await write(chat, text))
    first = await reports(chat, limit=2)
    rest = await reports(chat, limit=2, after_id=first[-1]["id"])
    assert ([one["message"] for one in first], [one["message"] for one in rest]) == (["a", "b"], ["c"])


WRONG = {
    "p_state": "select * from public.list_reports('all')",
    "p_report_id": "select public.resolve_report(gen_random_uuid(), 'dismissed')",
    "p_resolution must": "select public.resolve_report(%(report)s, 'ignored')",
    "p_resolution cannot": "select public.resolve_report(%(report)s, 'removed')",
    "p_user_id is nobody": "select public.suspend_user(gen_random_uuid())",
    "p_user_id is the signed-in": "select public.suspend_user(%(moderator)s)",
    "p_until": "select public.suspend_user(%(tourist)s, now() - interval '1 hour')",
}


@pytest.mark.parametrize("reason", WRONG)
async def test_a_wrong_argument_of_a_moderator_is_named(chat: Chat, reason: str) -> None:
    one = await moderator(chat)
    names = {"report": await report_person(chat, chat.tourist), "moderator": one, "tourist": chat.tourist}
    async with refused(chat.connection, "22023", reason), as_user(chat.connection, one):
        await chat.connection.execute(WRONG[reason].encode(), names)


# Suspension ------------------------------------------------------------------------------------

WRITES = {
    "a message": "insert into public.chat_messages (room_id, sender_id, message) values (%(room)s, %(tourist)s, 'Hi')",
    "an edit": "update public.chat_messages set message = 'a threat' where id = %(message)s",
    "a conversation": "insert into public.chat_rooms (user1_id, user2_id) values (%(tourist)s, %(other)s)",
}


@pytest.mark.parametrize("way", WRITES)
async def test_a_suspended_person_cannot_write_until_a_moderator_lifts_it(chat: Chat, way: str) -> None:
    names = {
        "room": chat.room,
        "tourist": chat.tourist,
        "message": await write(chat),
        "other": await person(chat.connection),
    }
    await suspend(chat)
    async with refused(chat.connection, "PT403", "is suspended"), as_user(chat.connection, chat.tourist):
        await chat.connection.execute(WRITES[way].encode(), names)
    async with as_user(chat.connection, await moderator(chat)):
        await chat.connection.execute("select public.unsuspend_user(%s)", (chat.tourist,))
    async with as_user(chat.connection, chat.tourist):
        await chat.connection.execute(WRITES[way].encode(), names)


async def test_a_suspended_person_may_still_delete_and_read(chat: Chat) -> None:
    message = await write(chat)
    await suspend(chat)
    async with as_user(chat.connection, chat.tourist):
        await chat.connection.execute("update public.chat_messages set deleted_at = now() where id = %s", (message,))
        assert len(await rows(chat.connection, "table public.chat_messages")) == 1
    assert (await chat.see_message(message))["deleted_at"]


async def test_a_suspension_ends_at_its_time_by_no_job(chat: Chat) -> None:
    until = await in_an_hour(chat)
    await suspend(chat, until)
    with pytest.raises(psycopg.Error) as error:
        async with chat.connection.transaction():
            await write(chat)
    assert error.value.sqlstate == "PT403"
    detail = await value(
        chat.connection, "select (%s::jsonb ->> 'suspended_until')::timestamptz", error.value.diag.message_detail
    )
    assert detail == until
    await report_person(chat, chat.tourist)
    [found] = await reports(chat)
    assert found["suspended_until"] == until
    await chat.connection.execute("update private.suspensions set suspended_until = now() - interval '1 second'")
    await write(chat)
    assert [one["suspended_until"] for one in await reports(chat)] == [None]


async def test_the_other_person_and_a_backend_may_write_while_one_is_suspended(chat: Chat) -> None:
    await suspend(chat)
    async with as_user(chat.connection, chat.guide):
        await chat.connection.execute(
            "insert into public.chat_messages (room_id, sender_id, message) values (%s, %s, 'Hi')",
            (chat.room, chat.guide),
        )
    await chat.message()
