"""Triggers of receipts, devices and presence: the clock of the server, and who owns a push token."""

from datetime import datetime
from secrets import token_hex
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.database.chat import LONG_AGO, Chat, acting_as, as_user, refused, row, rows, value

# Receipts --------------------------------------------------------------------------------------


async def receipt(chat: Chat, message: UUID) -> dict[str, Any]:
    return await row(chat.connection, "select * from message_receipts where message_id = %s", message)


async def upsert_receipt(chat: Chat, message: UUID, **columns: Any) -> None:
    """As supabase.from('message_receipts').upsert(…) does."""
    names = ["message_id", "user_id", *columns]
    async with as_user(chat.connection, chat.guide):
        await chat.connection.execute(
            f"insert into message_receipts ({', '.join(names)}) values ({', '.join(['%s'] * len(names))})"
            " on conflict (message_id, user_id) do update set "
            + ", ".join(f"{name} = excluded.{name}" for name in names),
            [message, chat.guide, *columns.values()],
        )


async def test_the_first_receipt_of_a_message_stays_and_has_the_time_of_the_server(chat: Chat) -> None:
    message = await chat.message()
    before = await chat.server_time()
    await upsert_receipt(chat, message, device_id="phone", delivered_at=LONG_AGO)
    first = await receipt(chat, message)
    assert before < first["delivered_at"] < await chat.server_time()
    assert (first["device_id"], first["read_at"]) == ("phone", None)

    await upsert_receipt(chat, message, device_id="tablet", delivered_at=datetime.max)
    assert await receipt(chat, message) == first

    await upsert_receipt(chat, message, read_at=LONG_AGO)
    read = await receipt(chat, message)
    assert read["read_at"] > first["delivered_at"]
    assert read["delivered_at"] == first["delivered_at"]

    await upsert_receipt(chat, message, read_at=None, delivered_at=None)
    assert await receipt(chat, message) == read


async def test_a_receipt_marks_its_message_as_delivered_or_read(chat: Chat) -> None:
    message = await chat.message()
    await upsert_receipt(chat, message, delivered_at=LONG_AGO)
    delivered = await chat.see_message(message)
    assert delivered["delivered_at"] == (await receipt(chat, message))["delivered_at"]
    assert (delivered["is_read"], await chat.unread_counters()) == (False, (0, 1))

    await upsert_receipt(chat, message, read_at=LONG_AGO)
    read = await chat.see_message(message)
    assert (read["is_read"], read["read_at"]) == (True, (await receipt(chat, message))["read_at"])
    assert read["delivered_at"] == delivered["delivered_at"]
    assert await chat.unread_counters() == (0, 0)


async def test_a_receipt_for_reading_also_records_the_delivery(chat: Chat) -> None:
    message = await chat.message()
    await upsert_receipt(chat, message, read_at=LONG_AGO)
    read = await receipt(chat, message)
    assert read["delivered_at"] == read["read_at"]


async def test_a_receipt_with_a_too_long_device_id_is_rejected(chat: Chat) -> None:
    message = await chat.message()
    await upsert_receipt(chat, message, device_id="x" * 800)
    later = await chat.message()
    async with refused(chat.connection, "22001", "device_id is too long: 801 bytes, at most 800"):
        await upsert_receipt(chat, later, device_id="x" * 801)


# Devices and presence --------------------------------------------------------------------------


async def register(chat: Chat, user: UUID, token: str, device_id: str = "phone", **columns: Any) -> None:
    """As supabase.from('user_devices').upsert({…}, {onConflict: 'user_id,device_id'}) does."""
    columns = {
        "user_id": user,
        "device_id": device_id,
        "platform": "ios",
        "push_token": token,
        "is_active": True,
        **columns,
    }
    async with as_user(chat.connection, user):
        await chat.connection.execute(
            f"insert into user_devices ({', '.join(columns)}) values ({', '.join(['%s'] * len(columns))})"
            " on conflict (user_id, device_id) do update set "
            + ", ".join(f"{name} = excluded.{name}" for name in columns),
            list(columns.values()),
        )


async def devices(chat: Chat) -> set[tuple[UUID, str, str | None, bool]]:
    return {
        (device["user_id"], device["device_id"], device["push_token"], device["is_active"])
        for device in await rows(chat.connection, "table user_devices")
    }


ONE, TWO = "ExponentPushToken[one]", "ExponentPushToken[two]"


async def test_registering_a_device_again_keeps_its_row(chat: Chat) -> None:
    await register(chat, chat.guide, ONE)
    first = await row(chat.connection, "table user_devices")
    await register(chat, chat.guide, ONE, app_version="2.0")
    again = await row(chat.connection, "table user_devices")
    assert (again["id"], again["push_token"], again["is_active"]) == (first["id"], ONE, True)
    assert (again["app_version"], again["created_at"]) == ("2.0", first["created_at"])
    assert again["last_seen_at"] > first["last_seen_at"]


async def test_registering_activates_a_deactivated_device(chat: Chat) -> None:
    await register(chat, chat.guide, ONE)
    await chat.connection.execute("update user_devices set is_active = false")
    await register(chat, chat.guide, TWO)
    assert await devices(chat) == {(chat.guide, "phone", TWO, True)}


async def test_a_push_token_moves_to_the_last_login(chat: Chat) -> None:
    await register(chat, chat.guide, ONE)
    former = await row(chat.connection, "table user_devices")
    await register(chat, chat.tourist, ONE)
    assert await devices(chat) == {(chat.guide, "phone", None, False), (chat.tourist, "phone", ONE, True)}
    assert former["last_seen_at"] == await value(
        chat.connection, "select last_seen_at from user_devices where id = %s", former["id"]
    )


async def test_an_update_also_moves_a_push_token_to_the_last_login(chat: Chat) -> None:
    await register(chat, chat.guide, ONE)
    await register(chat, chat.tourist, TWO)
    async with as_user(chat.connection, chat.tourist):
        await chat.connection.execute("update user_devices set push_token = %s", (ONE,))
    assert await devices(chat) == {(chat.guide, "phone", None, False), (chat.tourist, "phone", ONE, True)}


async def test_a_push_token_under_two_device_ids_belongs_to_the_later_one(chat: Chat) -> None:
    await register(chat, chat.guide, ONE, device_id="before reinstall")
    await register(chat, chat.guide, ONE, device_id="after reinstall")
    assert await devices(chat) == {
        (chat.guide, "before reinstall", None, False),
        (chat.guide, "after reinstall", ONE, True),
    }


async def test_a_late_logout_keeps_a_push_token_that_moved_to_another_account(chat: Chat) -> None:
    await register(chat, chat.guide, ONE)
    await register(chat, chat.tourist, ONE)
    async with as_user(chat.connection, chat.guide):
        await chat.connection.execute("delete from user_devices where device_id = 'phone'")
    assert await devices(chat) == {(chat.tourist, "phone", ONE, True)}


async def test_a_token_of_apns_counts_as_one_token_in_upper_and_lower_case(chat: Chat) -> None:
    token = "0a" * 32
    await register(chat, chat.guide, token, push_provider="apns")
    await register(chat, chat.tourist, token.upper(), push_provider="apns")
    assert await devices(chat) == {(chat.guide, "phone", None, False), (chat.tourist, "phone", token.upper(), True)}


@pytest.mark.parametrize(
    ("token", "valid"),
    [
        ("ExponentPushToken[xxxxxxxxxxxxxxxxxxxxxx]", True),
        ("ExpoPushToken[a]", True),
        ("7a4bf7f9-2513-4c3b-95f3-7ae0efae025f", True),
        ("ExponentPushToken[]", False),
        ("ExponentPushToken[a] ", False),
        ("ExponentPushToken[a b]", False),
        ("exponentpushtoken[a]", False),
        ("fcm:APA91b", False),
        ("", False),
        (f"ExponentPushToken[{'x' * 81}]", False),
    ],
)
async def test_a_malformed_expo_token_is_rejected(chat: Chat, token: str, valid: bool) -> None:
    if valid:
        await register(chat, chat.guide, token)
    else:
        async with refused(chat.connection, "23514"):
            await register(chat, chat.guide, token)


async def test_a_registration_that_stores_nothing_takes_no_push_token(chat: Chat) -> None:
    """As POST /user_devices?on_conflict=user_id,device_id with Prefer: resolution=ignore-duplicates does."""
    await register(chat, chat.guide, ONE)
    await register(chat, chat.tourist, TWO)
    before = await devices(chat)
    async with as_user(chat.connection, chat.tourist):
        ignored = await chat.connection.execute(
            "insert into user_devices (user_id, device_id, platform, push_token) values (%s, 'phone', 'ios', %s)"
            " on conflict (user_id, device_id) do nothing",
            (chat.tourist, ONE),
        )
    assert ignored.rowcount == 0
    assert await devices(chat) == before


async def test_an_import_that_skips_existing_rows_takes_no_push_token(chat: Chat) -> None:
    await register(chat, chat.guide, ONE)
    known = await chat.device(user_id=chat.tourist, push_token=TWO)
    before = await devices(chat)
    async with acting_as(chat.connection, "service_role"):
        await chat.connection.execute(
            "insert into user_devices (id, user_id, device_id, platform, push_token)"
            " values (%s, %s, 'another', 'ios', %s) on conflict do nothing",
            (known["id"], chat.tourist, ONE),
        )
    assert await devices(chat) == before


@pytest.mark.parametrize("spellings", [("Expo", "Exponent"), ("Exponent", "Expo")])
async def test_both_spellings_of_an_expo_token_count_as_one_token(chat: Chat, spellings: tuple[str, str]) -> None:
    first, second = [f"{name}PushToken[one]" for name in spellings]
    await register(chat, chat.guide, first)
    await register(chat, chat.tourist, second)
    assert await devices(chat) == {(chat.guide, "phone", None, False), (chat.tourist, "phone", second, True)}
    await register(chat, chat.tourist, first)
    assert (chat.tourist, "phone", first, True) in await devices(chat)
    await chat.connection.execute("alter table user_devices disable trigger user")
    async with refused(chat.connection, "23505"):
        await chat.connection.execute("update user_devices set push_token = %s where push_token is null", (second,))


@pytest.mark.parametrize("provider", ["fcm", "apns"])
@pytest.mark.parametrize("token", [ONE, "ExpoPushToken[one]", "exponentpushtoken[one]"])
async def test_an_expo_token_under_another_provider_is_rejected_and_names_push_provider(
    chat: Chat, provider: str, token: str
) -> None:
    with pytest.raises(
        psycopg.Error, match=f"push_provider is {provider}, but push_token is a token of Expo"
    ) as refusal:
        await register(chat, chat.guide, token, push_provider=provider)
    assert (refusal.value.sqlstate, "[one]" in str(refusal.value)) == ("22023", False)
    await register(chat, chat.guide, ONE)
    async with refused(chat.connection, "22023"), as_user(chat.connection, chat.guide):
        await chat.connection.execute("update user_devices set push_provider = %s", (provider,))


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"device_id": "📱" * 201}, "device_id has 201 characters; it must have 1 to 200"),
        ({"device_id": ""}, "device_id has 0 characters; it must have 1 to 200"),
        ({"app_version": "x" * 201}, "app_version is too long: 201 bytes, at most 200"),
        ({"locale": "de_DE"}, "locale is not a BCP 47 language tag"),
        ({"token": "x" * 2049, "push_provider": "fcm"}, "push_token is too long: 2049 bytes, at most 2048"),
        ({"token": "x" * 3000000, "push_provider": "apns"}, "push_token is too long"),
    ],
)
async def test_a_device_over_a_limit_is_rejected_by_the_name_of_its_field(
    chat: Chat, columns: dict[str, str], reason: str
) -> None:
    async with refused(chat.connection, "22001" if "is too long" in reason else "22023", reason):
        await register(chat, chat.guide, **{"token": ONE, **columns})


async def test_a_native_token_of_2048_bytes_is_stored(chat: Chat) -> None:
    # Random, because an index compresses what repeats.
    token = token_hex(1024)
    await register(chat, chat.guide, token, push_provider="fcm")
    assert await devices(chat) == {(chat.guide, "phone", token, True)}


@pytest.mark.parametrize("is_online", [True, False])
async def test_presence_has_the_time_of_the_server(chat: Chat, is_online: bool) -> None:
    before = await chat.server_time()
    for _ in range(2):
        async with as_user(chat.connection, chat.guide):
            await chat.connection.execute(
                "insert into user_presence (user_id, is_online, last_seen_at) values (%s, %s, 'infinity')"
                " on conflict (user_id) do update"
                " set is_online = excluded.is_online, last_seen_at = excluded.last_seen_at",
                (chat.guide, is_online),
            )
        presence = await row(chat.connection, "table user_presence")
        assert before < presence["updated_at"] == presence["last_seen_at"] < await chat.server_time()
        before = presence["updated_at"]
