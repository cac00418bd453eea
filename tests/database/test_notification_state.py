"""A notification shows the state of a conversation on a device: what each change of the conversation sends to it."""

from typing import Any
from uuid import UUID

from tests.database.chat import Chat, Row, as_user, claim, explain, person, record, rows, value, worker_report


async def sent(chat: Chat, *answers: str) -> list[Row]:
    """Claims what is due and reports the answers. Returns the push of each device, with the content of its job."""
    claimed = await claim(chat.connection)
    if claimed["jobs"]:
        await record(chat.connection, claimed, *(worker_report(job, *answers) for job in claimed["jobs"]))
    return [{**job, **device} for job in claimed["jobs"] for device in job["devices"]]


def kinds(pushes: list[Row]) -> list[str]:
    return [push["kind"] for push in pushes]


async def edit(chat: Chat, message: UUID, text: str) -> None:
    async with as_user(chat.connection, chat.tourist):
        await chat.connection.execute("update public.chat_messages set message = %s where id = %s", (text, message))


async def delete(chat: Chat, message: UUID) -> None:
    async with as_user(chat.connection, chat.tourist):
        await chat.connection.execute("update public.chat_messages set deleted_at = now() where id = %s", (message,))


async def test_a_backlog_of_a_conversation_is_one_push_with_the_newest_three_texts(chat: Chat) -> None:
    await chat.device()
    messages = [await chat.message(f"text {number}") for number in range(25)]
    [push] = await sent(chat)
    assert (push["kind"], push["sound"], push["unread"], push["badge"]) == ("alert", True, 25, 25)
    assert (push["title"], push["body"]) == ("Tom Tourist", "text 24\ntext 23\ntext 22")
    assert push["message_id"] == str(messages[-1])
    assert {(await chat.job(message))["outcome"] for message in messages} == {"accepted"}
    assert await sent(chat) == []


async def test_a_device_that_shows_the_present_state_gets_no_push(chat: Chat) -> None:
    await chat.device()
    await chat.message()
    assert kinds(await sent(chat)) == ["alert"]
    await chat.pass_time(60)
    assert await sent(chat) == []


async def test_an_edit_of_a_shown_message_replaces_its_text_silently(chat: Chat) -> None:
    await chat.device()
    message = await chat.message("first")
    await sent(chat)
    await edit(chat, message, "second")
    assert await sent(chat) == []
    await chat.pass_time(1)
    [push] = await sent(chat)
    assert (push["kind"], push["sound"], push["body"]) == ("update", False, "second")
    assert await sent(chat) == []


async def test_an_edit_before_the_send_sends_only_the_new_text(chat: Chat) -> None:
    await chat.device()
    message = await chat.message("first")
    await edit(chat, message, "second")
    [push] = await sent(chat)
    assert (push["kind"], push["body"]) == ("alert", "second")


async def test_an_edit_of_a_read_message_sends_nothing(chat: Chat) -> None:
    device = await chat.device()
    message = await chat.message("first")
    await sent(chat)
    await chat.read(device_id=device["device_id"])
    await edit(chat, message, "second")
    await chat.pass_time(60)
    assert await sent(chat) == []


async def test_a_read_on_one_device_dismisses_the_notification_on_the_others(chat: Chat) -> None:
    reader = await chat.device()
    other = await chat.device(platform="android")
    await chat.message()
    assert kinds(await sent(chat)) == ["alert", "alert"]
    await chat.read(device_id=reader["device_id"])
    assert await sent(chat) == [], "reads are debounced"
    await chat.pass_time(3)
    [push] = await sent(chat)
    assert (push["kind"], push["device_id"], push["badge"], push["sound"]) == ("dismiss", str(other["id"]), 0, False)
    await chat.pass_time(3600)
    assert await sent(chat) == []


async def test_an_iphone_gets_the_badge_before_the_dismissal(chat: Chat) -> None:
    reader = await chat.device(platform="android")
    await chat.device(platform="ios")
    await chat.message()
    await sent(chat)
    await chat.read(device_id=reader["device_id"])
    await chat.pass_time(3)
    assert kinds(await sent(chat)) == ["badge"]
    assert kinds(await sent(chat)) == ["dismiss"]
    await chat.pass_time(3600)
    assert await sent(chat) == []


async def test_a_deleted_message_is_replaced_by_a_neutral_text_before_the_dismissal(chat: Chat) -> None:
    await chat.device(platform="android")
    message = await chat.message("secret")
    await sent(chat)
    await delete(chat, message)
    await chat.pass_time(1)
    [push] = await sent(chat)
    assert (push["kind"], push["title"], push["body"], push["sound"]) == (
        "update",
        "Tom Tourist",
        "Message deleted",
        False,
    )
    assert kinds(await sent(chat)) == ["dismiss"]
    assert await sent(chat) == []


async def test_the_messages_that_remain_are_shown_again_after_a_deletion(chat: Chat) -> None:
    await chat.device()
    messages = [await chat.message(text) for text in ("one", "two", "three")]
    await sent(chat)
    await delete(chat, messages[2])
    await chat.pass_time(1)
    [push] = await sent(chat)
    assert (push["kind"], push["body"], push["unread"]) == ("update", "two\none", 2)


async def test_a_hard_delete_of_the_only_message_ends_like_a_soft_one(chat: Chat) -> None:
    await chat.device(platform="android")
    message = await chat.message("secret")
    await sent(chat)
    await chat.connection.execute("delete from public.chat_messages where id = %s", (message,))
    await chat.pass_time(1)
    assert [(push["kind"], push["body"]) for push in await sent(chat)] == [("update", "Message deleted")]
    assert kinds(await sent(chat)) == ["dismiss"]


async def test_a_deleted_conversation_leaves_the_lock_screen(chat: Chat) -> None:
    await chat.device(platform="android")
    await chat.message("secret")
    await sent(chat)
    await chat.connection.execute("delete from public.chat_rooms where id = %s", (chat.room,))
    await chat.pass_time(1)
    assert kinds(await sent(chat)) == ["update"]
    assert kinds(await sent(chat)) == ["dismiss"]


async def test_only_the_first_message_of_a_burst_sounds(chat: Chat) -> None:
    await chat.device()
    sounds = []
    for _ in range(10):
        await chat.message()
        [push] = await sent(chat)
        sounds.append(push["sound"])
        await chat.pass_time(2)
    assert sounds == [True] + [False] * 9
    await chat.pass_time(15)
    await chat.message()
    assert [push["sound"] for push in await sent(chat)] == [True]


async def test_the_first_message_after_a_read_sounds_at_once(chat: Chat) -> None:
    device = await chat.device()
    await chat.message()
    await sent(chat)
    await chat.read(device_id=device["device_id"])
    await chat.message()
    assert [push["sound"] for push in await sent(chat)] == [True]


async def test_a_sender_who_deletes_and_sends_again_does_not_sound_again(chat: Chat) -> None:
    await chat.device()
    message = await chat.message()
    await sent(chat)
    await delete(chat, message)
    await chat.message()
    assert [push["sound"] for push in await sent(chat)] == [False]


async def test_a_message_older_than_an_hour_arrives_silently(chat: Chat) -> None:
    await chat.device()
    await chat.message()
    await chat.pass_time(3601)
    assert [(push["kind"], push["sound"]) for push in await sent(chat)] == [("alert", False)]


async def test_a_phone_sounds_once_for_all_conversations_of_a_backlog(chat: Chat) -> None:
    await chat.device()
    for _ in range(3):
        await (await chat.conversation()).message()
    await chat.pass_time(600)
    pushes = await sent(chat)
    assert kinds(pushes) == ["alert"] * 3
    assert sum(push["sound"] for push in pushes) == 1


async def test_what_a_phone_shows_is_dismissed_when_it_expires(chat: Chat) -> None:
    await chat.device(platform="android")
    await chat.message()
    await sent(chat)
    await chat.pass_time(24 * 3600 - 10)
    assert await sent(chat) == []
    await chat.pass_time(10)
    [push] = await sent(chat)
    assert (push["kind"], push["badge"]) == ("dismiss", 1)
    assert await sent(chat) == []


async def test_a_retry_waits_while_the_recipient_views_the_conversation(chat: Chat) -> None:
    await chat.device()
    await chat.message()
    await sent(chat, "maybe_sent")
    await chat.pass_time(10)
    await chat.look(chat.room)
    assert await sent(chat) == []
    await chat.pass_time(46)
    assert kinds(await sent(chat)) == ["alert"]


async def test_an_edit_of_what_is_shown_is_told_while_the_recipient_views_the_conversation(chat: Chat) -> None:
    """Another phone shows the text on its lock screen."""
    await chat.device()
    message = await chat.message("first")
    await sent(chat)
    await chat.look(chat.room)
    await chat.message("new")
    await edit(chat, message, "second")
    await chat.pass_time(2)
    assert [(push["kind"], push["body"]) for push in await sent(chat)] == [("update", "second")]
    await chat.pass_time(46)
    assert [(push["kind"], push["body"]) for push in await sent(chat)] == [("alert", "new\nsecond")]


async def test_a_message_read_while_it_is_sent_is_dismissed_afterwards(chat: Chat) -> None:
    await chat.device(platform="android")
    await chat.message()
    claimed = await claim(chat.connection)
    await chat.read()
    await record(chat.connection, claimed, *(worker_report(job) for job in claimed["jobs"]))
    await chat.pass_time(3)
    assert kinds(await sent(chat)) == ["dismiss"]


async def test_an_iphone_gets_at_most_three_dismissals_an_hour_and_the_last_state_later(chat: Chat) -> None:
    await chat.connection.execute("update push.settings set sound_interval = '0'")
    reader = await chat.device(platform="android")
    iphone = await chat.device(platform="ios")
    dismissed: list[Any] = []
    for _ in range(4):
        await chat.message()
        await sent(chat)
        await chat.read(device_id=reader["device_id"])
        await chat.pass_time(3)
        await sent(chat)
        dismissed += [push["kind"] for push in await sent(chat) if push["device_id"] == str(iphone["id"])]
    assert dismissed == ["dismiss"] * 3
    await chat.pass_time(3600)
    assert kinds(await sent(chat)) == ["dismiss"]


async def test_explain_push_lists_what_followed_the_alert(chat: Chat) -> None:
    await chat.device(platform="android")
    message = await chat.message()
    await sent(chat)
    await delete(chat, message)
    await chat.pass_time(1)
    await sent(chat)
    await sent(chat)
    explained = await explain(chat.connection, message)
    assert [delivery["kind"] for delivery in explained["deliveries"]] == ["alert", "update", "dismiss"]
    assert explained["outcome"] == "accepted"


async def test_a_job_without_anything_shown_is_idle(chat: Chat) -> None:
    await chat.message()
    await sent(chat)
    assert await value(chat.connection, "select state from push.jobs") == "idle"


async def test_after_a_handover_the_successor_is_notified_and_the_former_person_is_not(chat: Chat) -> None:
    former = await chat.device(platform="android")
    await chat.message("for the former guide")
    await sent(chat)
    successor = await person(chat.connection, "guide")
    device = await chat.device(user_id=successor)
    await chat.connection.execute("update public.chat_rooms set user2_id = %s", (successor,))
    await chat.message("for the successor")
    pushes = {push["device_id"]: push for push in await sent(chat)}
    assert {push["kind"] for push in pushes.values()} == {"dismiss", "alert"}
    assert pushes[str(former["id"])]["kind"] == "dismiss"
    assert pushes[str(device["id"])]["body"].startswith("for the successor")
    await chat.message("more", sender_id=successor)
    await chat.message("and more")
    assert [push["device_id"] for push in await sent(chat)] == [str(device["id"])]
    # A job that has nothing more to dismiss is deleted.
    recipients = await rows(chat.connection, "select recipient_id from push.jobs")
    assert {job["recipient_id"] for job in recipients} == {chat.tourist, successor}


async def test_a_waiting_message_ends_when_its_sender_leaves_the_conversation(chat: Chat) -> None:
    await chat.device()
    await chat.look(chat.room)
    message = await chat.message()
    assert await sent(chat) == []
    successor = await person(chat.connection)
    await chat.connection.execute("update public.chat_rooms set user1_id = %s", (successor,))
    await chat.look(None)
    [finished] = (await claim(chat.connection))["finished"]
    assert (finished["message_id"], finished["reason"]) == (str(message), "left")
    assert "not in the conversation any more" in (await explain(chat.connection, message))["explanation"]


async def test_a_conversation_of_a_person_with_themselves_notifies_nobody(chat: Chat) -> None:
    # No person can create one, but an older database may have some.
    await chat.connection.execute("update public.chat_rooms set user1_id = user2_id")
    await chat.device()
    await chat.message("a note", sender_id=chat.guide)
    assert await sent(chat) == []
    assert await chat.unread_counters() == (0, 0)
    await chat.message("another note", sender_id=chat.guide)
    await chat.connection.execute("update public.chat_messages set message = 'edited'")
    assert await chat.unread_counters() == (0, 0)


async def test_messages_that_a_backend_moves_to_another_conversation_leave_counters_and_phones(chat: Chat) -> None:
    await chat.device(platform="android")
    other = await chat.conversation()
    await chat.message("moved")
    await sent(chat)
    await chat.connection.execute(
        "update public.chat_messages set room_id = %s, sender_id = %s", (other.room, other.tourist)
    )
    assert (await chat.see_room())["last_message"] is None
    assert (await chat.unread_counters(), await other.unread_counters()) == ((0, 0), (0, 1))
    await chat.pass_time(5)
    assert [(push["room_id"], push["kind"]) for push in await sent(chat)] == [(str(chat.room), "dismiss")]
