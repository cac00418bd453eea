"""What phones show, and when they sound, in situations that users of chat apps reported. End to end on fake phones.

Their other rules are tested elsewhere: what a revoked session shows in test_devices.py, odd texts in tests/database.
"""

from uuid import UUID

import psycopg
import pytest

from local.app import Person
from local.providers.expo.faults import HttpError
from local.providers.phones import Condition, Phone
from tests.system.chat import Chat, conversations, execute, insert_messages

OFF, ON, KILLED = Condition(is_on=False), Condition(is_on=True), Condition(app="killed")
HOUR = 3600


def texts(phone: Phone) -> list[tuple[object, object]]:
    """Returns title and body of each notification on the screen."""
    return [(arrival.message["title"], arrival.message["body"]) for arrival in phone.shown]


async def until_shown(chat: Chat, phone: Phone, *notifications: tuple[str, str], badge: int) -> None:
    """Waits until a phone shows just these notifications, each as title and body, and was told this badge."""
    try:
        await chat.cloud.expo.until(lambda: (texts(phone), phone.told_badge) == ([*notifications], badge))
    except TimeoutError:
        raise AssertionError(f"shown: {texts(phone)}, badge {phone.told_badge}") from None
    assert phone.platform == "android" or phone.badge == badge


async def pass_hours(chat: Chat, hours: int) -> None:
    """Puts the clock of Expo and of the phones forward, and makes the messages and jobs in the database older."""
    chat.cloud.expo.pass_time(hours * HOUR)
    async with await psycopg.AsyncConnection.connect(chat.cloud.database_url) as connection:
        for statement in (
            "alter table public.chat_messages disable trigger user",
            "update public.chat_messages set server_timestamp = server_timestamp - %(passed)s::interval,"
            " created_at = created_at - %(passed)s::interval where room_id = %(room)s",
            "alter table public.chat_messages enable trigger user",
            "update push.jobs set next_attempt_at = next_attempt_at - %(passed)s::interval,"
            " expires_at = expires_at - %(passed)s::interval, decided_up_to = decided_up_to - %(passed)s::interval"
            " where room_id = %(room)s",
            "update push.deliveries set sent_at = sent_at - %(passed)s::interval,"
            " message_at = message_at - %(passed)s::interval, answered_at = answered_at - %(passed)s::interval"
            " where job_id in (select id from push.jobs where room_id = %(room)s)",
            "update push.device_states set sounded_at = sounded_at - %(passed)s::interval",
        ):
            await connection.execute(
                statement, {"passed": f"{hours} hours", "room": chat.id} if "%" in statement else None
            )


async def report_presence(person: Person, phone: Phone, conversation: UUID | None) -> None:
    """Sends a heartbeat of an app that is open on this phone, with the conversation on its screen."""
    heartbeat = {
        "p_device_id": phone.token,
        "p_state": "online",
        "p_conversation_id": conversation and str(conversation),
    }
    await person.client.rpc("report_presence", heartbeat).execute()


async def test_a_phone_that_was_off_for_26_hours_shows_only_what_has_not_expired(chat: Chat) -> None:
    phones = [chat.phone, await chat.new_phone_of(chat.gus)]
    for phone in phones:
        chat.cloud.expo.change_phone(phone.token, OFF)
    await chat.until_done(await chat.send("Yesterday"))
    await pass_hours(chat, 25)
    await chat.until_done(await chat.send("Today"))
    await pass_hours(chat, 1)
    for phone in phones:
        chat.cloud.expo.change_phone(phone.token, ON)
        await until_shown(chat, phone, ("Tina", "Today"), badge=2)
        assert len(phone.sounds) == 1


async def test_a_phone_that_was_off_until_everything_expired_shows_nothing(chat: Chat) -> None:
    phones = [chat.phone, await chat.new_phone_of(chat.gus)]
    for phone in phones:
        chat.cloud.expo.change_phone(phone.token, OFF)
    await chat.until_done(await chat.send())
    assert all(phone.held for phone in phones)
    await pass_hours(chat, 26)
    await chat.sweep()
    for phone in phones:
        chat.cloud.expo.change_phone(phone.token, ON)
        assert (phone.shown, phone.sounds) == ([], [])


async def test_a_backlog_of_25_messages_after_an_outage_is_one_notification_with_one_sound(chat: Chat) -> None:
    expo, pixel = chat.cloud.expo, await chat.new_phone_of(chat.gus)
    expo.script(HttpError(status=503), times=1_000_000)
    for number in range(1, 26):
        message = await chat.send(f"Message {number}")
        if number in (1, 13, 25):
            await chat.cloud.until_push(message, lambda job: job["attempts"] > 0 and job["state"] == "pending")
    assert chat.phone.arrived == []
    expo.faults.scripts.clear()
    await chat.until_done(message, sweep=True)
    for phone in (chat.phone, pixel):
        await until_shown(chat, phone, ("Tina (25)", "Message 25\nMessage 24\nMessage 23"), badge=25)
        assert (len(phone.arrived), len(phone.sounds)) == (1, 1)


async def test_a_read_on_one_phone_clears_the_others_also_one_that_was_off(chat: Chat) -> None:
    expo, reader = chat.cloud.expo, chat.phone
    second, third = [await chat.new_phone_of(chat.gus) for _ in range(2)]
    expo.change_phone(second.token, OFF)
    await chat.until_done(await chat.send("Hello"))
    await until_shown(chat, third, ("Tina", "Hello"), badge=1)
    expo.open_app(reader.token, [], badge=0)
    await chat.gus.read(chat.id, device_id=reader.token)
    await until_shown(chat, third, badge=0)
    expo.change_phone(second.token, ON)
    await until_shown(chat, second, badge=0)
    assert [len(phone.arrived) for phone in (reader, second, third)] == [1, 2, 2], "the reader gets no further push"


@pytest.mark.parametrize(
    "statement",
    ["update chat_messages set deleted_at = now() where id = %s", "delete from chat_messages where id = %s"],
    ids=["soft", "hard"],
)
async def test_deleted_texts_leave_all_lock_screens_and_the_rest_stays(chat: Chat, statement: str) -> None:
    """Deletes an older message, the newest, and the only one. An iPhone whose app is dead keeps a neutral text."""
    pixel, dead = await chat.new_phone_of(chat.gus), await chat.new_phone_of(chat.gus, "ios")
    chat.cloud.expo.change_phone(dead.token, KILLED)
    phones = [chat.phone, pixel, dead]
    one, two, three = await insert_messages(
        chat.cloud, *[(chat.id, chat.tina.id, text) for text in ("one", "two", "three")]
    )
    for phone in phones:
        await until_shown(chat, phone, ("Tina (3)", "three\ntwo\none"), badge=3)
    await execute(chat.cloud, statement, two)
    for phone in phones:
        await until_shown(chat, phone, ("Tina (2)", "three\none"), badge=2)
    await execute(chat.cloud, statement, three)
    for phone in phones:
        await until_shown(chat, phone, ("Tina", "one"), badge=1)
    await execute(chat.cloud, statement, one)
    await until_shown(chat, dead, ("Tina", "Message deleted"), badge=0)
    for phone in (chat.phone, pixel):
        await until_shown(chat, phone, badge=0)
    assert [len(phone.sounds) for phone in phones] == [1, 1, 1]


async def test_no_phone_shows_what_one_of_them_has_on_its_screen(chat: Chat) -> None:
    """The other phone reports before and after the message that it is online without a conversation."""
    viewer, other = chat.phone, await chat.new_phone_of(chat.gus)
    await report_presence(chat.gus, viewer, chat.id)
    await report_presence(chat.gus, other, None)
    message = await chat.send()
    await chat.cloud.until_push(message, lambda job: job["reason"] == "viewing" or job["state"] == "done")
    await report_presence(chat.gus, other, None)
    await chat.make_due(message)
    await chat.sweep()
    assert (await chat.cloud.explain_push(message))["state"] == "pending"
    await chat.gus.read(chat.id, device_id=viewer.token)
    assert (await chat.until_done(message, sweep=True))["reason"] == "viewing"
    assert (viewer.arrived, other.arrived) == ([], [])


async def test_ten_messages_at_once_are_one_notification_with_one_or_two_sounds(chat: Chat) -> None:
    pixel = await chat.new_phone_of(chat.gus)
    for number in range(1, 11):
        await chat.send(f"Message {number}")
    for phone in (chat.phone, pixel):
        await until_shown(chat, phone, ("Tina (10)", "Message 10\nMessage 9\nMessage 8"), badge=10)
        assert len(phone.sounds) in (1, 2)


async def test_a_photo_without_text_is_shown_as_a_photo_also_in_the_list_of_conversations(chat: Chat) -> None:
    photo = {"type": "image", "url": f"{chat.cloud.supabase.url}/storage/v1/object/public/photos/castle.jpg"}
    await chat.tina.send(chat.id, "", message_type="image", attachments=[photo])
    await until_shown(chat, chat.phone, ("Tina", "📷 Photo"), badge=1)
    assert chat.phone.shown[0].message["richContent"] == {"image": photo["url"]}
    rooms = await chat.gus.client.table("chat_rooms").select("last_message").eq("id", str(chat.id)).execute()
    assert rooms.data == [{"last_message": "📷 Photo"}]


async def test_hostile_texts_are_shown_as_one_line_of_visible_characters(chat: Chat) -> None:
    family = "\u200d".join("👨👩👧👦")
    texts_sent = {
        "\u202eevil\u202c ok": "evil ok",
        "\u200b\u200b\u200b": "New message",
        "x" + "\u0301" * 500: "x" + "\u0301" * 8,
        "\n" * 200: "New message",
        "x" * 198 + family: "x" * 198 + "…",
    }
    phones = await conversations(chat.cloud, chat.tina, len(texts_sent))
    await insert_messages(
        chat.cloud, *[(room, chat.tina.id, text) for room, text in zip(phones, texts_sent, strict=True)]
    )
    for [phone, *_], shown in zip(phones.values(), texts_sent.values(), strict=True):
        await until_shown(chat, phone, ("Tina", shown), badge=1)


async def test_a_message_that_is_read_before_expo_answers_leaves_the_lock_screen(chat: Chat) -> None:
    expo, reader = chat.cloud.expo, await chat.new_phone_of(chat.gus)
    expo.configure({"latency_seconds": 2})
    message = await chat.send()
    await expo.arrival(chat.phone.token, str(message))
    assert expo.requests[-1].status is None, "Expo has not answered yet"
    await chat.gus.read(chat.id, device_id=reader.token)
    await until_shown(chat, chat.phone, badge=0)


async def test_imported_history_of_90_days_ago_reaches_no_phone(chat: Chat) -> None:
    await execute(
        chat.cloud,
        "insert into chat_messages (room_id, sender_id, message, client_msg_id, created_at)"
        " select %s, %s, 'Old', gen_random_uuid(), now() - interval '90 days' from generate_series(1, 8)",
        chat.id,
        chat.tina.id,
    )
    await chat.sweep()
    assert chat.cloud.expo.requests == []
    await chat.send("Today")
    await until_shown(chat, chat.phone, ("Tina", "Today"), badge=9)
