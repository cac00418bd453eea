"""register_device, unregister_device and my_devices: a device belongs to its last login."""

import json
import re
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from chat_push.devices import EXPO_PATTERN

from tests.database.chat import Chat, Row, acting_as, as_user, insert, refused, row, rows, session_of, value

ONE, TWO = "ExponentPushToken[one]", "ExponentPushToken[two]"


async def register(
    chat: Chat,
    user: UUID,
    token: str | None = ONE,
    device_id: str | None = "phone",
    session: UUID | None = None,
    **more: str | None,
) -> Row:
    """As the function calls it, with the caller's own token; {device, created}."""
    arguments = {"device_id": device_id, "platform": "ios", "push_token": token, **more}
    named = ", ".join(f"p_{name} => %s" for name in arguments)
    claims = {"session_id": str(session)} if session else {}
    async with as_user(chat.connection, user, **claims):
        answer = await value(chat.connection, f"select public.register_device({named})", *arguments.values())
    assert isinstance(answer, dict)
    return answer


async def unregister(chat: Chat, user: UUID, device_id: str = "phone") -> Any:
    async with as_user(chat.connection, user):
        return await value(chat.connection, "select public.unregister_device(%s)", device_id)


async def my_devices(chat: Chat, user: UUID) -> list[Row]:
    async with as_user(chat.connection, user):
        devices = await value(chat.connection, "select public.my_devices()")
    assert isinstance(devices, list)
    return devices


async def stored(chat: Chat, user: UUID, device_id: str = "phone") -> Row:
    return await row(
        chat.connection, "select * from user_devices where user_id = %s and device_id = %s", user, device_id
    )


async def owners(chat: Chat) -> set[tuple[UUID, str, str | None, bool]]:
    devices = await rows(chat.connection, "table user_devices")
    return {(one["user_id"], one["device_id"], one["push_token"], one["is_active"]) for one in devices}


async def set_up(chat: Chat, **settings: int) -> None:
    for name, number in settings.items():
        await chat.connection.execute(f"update push.settings set {name} = {number}")


async def test_register_device_stores_a_new_device(chat: Chat) -> None:
    answer = await register(chat, chat.guide, app_version="1.4.0")
    device = await stored(chat, chat.guide)
    for time in ("last_seen_at", "created_at"):
        assert datetime.fromisoformat(answer["device"].pop(time)) == device[time]
    assert answer == {
        "created": True,
        "device": {
            "device_id": "phone",
            "platform": "ios",
            "push_provider": "expo",
            "push_environment": "production",
            "push_token": "ExponentPushToken[one]…",
            "app_version": "1.4.0",
            "locale": None,
            "is_active": True,
        },
    }


async def test_registering_a_device_again_changes_only_the_time_it_was_seen(chat: Chat) -> None:
    await register(chat, chat.guide, app_version="1.4.0")
    first = await stored(chat, chat.guide)
    answer = await register(chat, chat.guide, app_version="1.4.0")
    again = await stored(chat, chat.guide)
    assert not answer["created"]
    assert {name for name in first if first[name] != again[name]} == {"last_seen_at", "updated_at"}
    assert again["last_seen_at"] > first["last_seen_at"]


async def test_registering_a_device_again_without_a_version_keeps_the_version(chat: Chat) -> None:
    for version in ("1.4.0", "1.5.0"):
        await register(chat, chat.guide, app_version=version)
        assert (await register(chat, chat.guide))["device"]["app_version"] == version


async def test_registering_a_device_again_activates_it(chat: Chat) -> None:
    await register(chat, chat.guide)
    await chat.connection.execute("update user_devices set is_active = false, push_token = null")
    assert not (await register(chat, chat.guide))["created"]
    assert await owners(chat) == {(chat.guide, "phone", ONE, True)}


async def test_register_device_stores_the_session(chat: Chat) -> None:
    first, second = [await session_of(chat.connection, chat.guide) for _ in range(2)]
    await register(chat, chat.guide, session=first)
    assert (await stored(chat, chat.guide))["session_id"] == first
    await register(chat, chat.guide, session=second)
    assert (await stored(chat, chat.guide))["session_id"] == second


async def test_a_direct_insert_stores_the_session_too(chat: Chat) -> None:
    session = await session_of(chat.connection, chat.guide)
    async with as_user(chat.connection, chat.guide, session_id=str(session)):
        await insert(chat.connection, "public.user_devices", user_id=chat.guide, device_id="phone", platform="web")
    assert (await stored(chat, chat.guide))["session_id"] == session


async def test_a_device_that_a_backend_inserts_has_no_session(chat: Chat) -> None:
    async with acting_as(chat.connection, "service_role"):
        await chat.device(device_id="phone")
    assert (await stored(chat, chat.guide))["session_id"] is None


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"platform": "web"}, "push_provider"),
        ({"platform": "windows"}, "platform"),
        ({"platform": None}, "platform"),
        ({"push_provider": "fcm"}, "push_provider"),
        ({"push_provider": "apns", "token": "0a" * 32}, "push_provider"),
        ({"push_provider": "apns", "token": "0a" * 32, "platform": "android"}, "push_provider"),
        ({"push_provider": "other"}, "push_provider"),
        ({"push_environment": "test"}, "push_environment"),
        ({"locale": "de_DE"}, "locale"),
        ({"locale": ""}, "locale"),
        ({"token": "0a" * 32}, "push_token"),
        ({"token": None}, "push_token"),
        ({"device_id": ""}, "device_id"),
        ({"device_id": "x" * 201}, "device_id"),
        ({"device_id": None}, "device_id"),
    ],
)
async def test_register_device_rejects_what_could_never_get_a_push_and_names_the_field(
    chat: Chat, changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=field) as refusal:
        await register(chat, chat.guide, **changes)
    # The function register_device reads field and rule from here.
    rule = refusal.value.diag.message_primary
    assert json.loads(str(refusal.value.diag.message_detail)) == {"field": field, "rule": rule}
    assert "0a0a" not in str(refusal.value)
    assert await rows(chat.connection, "table user_devices") == []


@pytest.mark.parametrize(("platform", "provider"), [("web", "expo"), ("android", "fcm"), ("ios", "apns")])
async def test_a_direct_insert_stores_a_device_that_register_device_rejects(
    chat: Chat, platform: str, provider: str
) -> None:
    """Apps from before Chat Push write such rows. ./dev doctor counts them."""
    async with as_user(chat.connection, chat.guide):
        token = ONE if provider == "expo" else "0a" * 32
        await chat.device(device_id="phone", platform=platform, push_provider=provider, push_token=token)
    assert (await stored(chat, chat.guide))["is_active"]


async def test_register_device_rejects_an_account_without_a_profile(chat: Chat) -> None:
    account = await insert(chat.connection, "auth.users", email="new@example.com")
    async with refused(chat.connection, "23503"):
        await register(chat, account["id"])


async def test_register_device_rejects_a_caller_who_is_not_signed_in(chat: Chat) -> None:
    async with refused(chat.connection, "42501"), acting_as(chat.connection, "authenticated"):
        await chat.connection.execute(b"select public.register_device('phone', 'ios', 'ExponentPushToken[a]')")


async def test_the_last_login_takes_the_phone_from_its_former_account(chat: Chat) -> None:
    await register(chat, chat.guide)
    before = await stored(chat, chat.guide)
    assert (await register(chat, chat.tourist))["created"]
    assert await owners(chat) == {(chat.guide, "phone", None, False), (chat.tourist, "phone", ONE, True)}
    assert (await stored(chat, chat.guide))["last_seen_at"] == before["last_seen_at"]


async def test_a_person_who_logs_in_again_gets_the_phone_back(chat: Chat) -> None:
    for user, created in ((chat.guide, True), (chat.tourist, True), (chat.guide, False), (chat.tourist, False)):
        assert (await register(chat, user))["created"] == created
    assert await owners(chat) == {(chat.guide, "phone", None, False), (chat.tourist, "phone", ONE, True)}


async def test_the_last_login_with_another_device_id_takes_the_token(chat: Chat) -> None:
    await register(chat, chat.guide, device_id="before")
    seen = (await stored(chat, chat.guide, "before"))["last_seen_at"]
    await register(chat, chat.guide, device_id="after")
    assert await owners(chat) == {(chat.guide, "before", None, False), (chat.guide, "after", ONE, True)}
    assert (await stored(chat, chat.guide, "before"))["last_seen_at"] == seen


async def test_a_login_with_a_new_token_replaces_the_old_one(chat: Chat) -> None:
    await register(chat, chat.guide, ONE)
    assert not (await register(chat, chat.guide, TWO))["created"]
    assert await owners(chat) == {(chat.guide, "phone", TWO, True)}


async def test_a_login_takes_a_token_from_a_row_of_another_provider(chat: Chat) -> None:
    token = str(uuid4())
    await chat.device(device_id="phone", push_token=token, push_provider="fcm")
    await register(chat, chat.tourist, token)
    assert await owners(chat) == {(chat.guide, "phone", None, False), (chat.tourist, "phone", token, True)}


async def test_beyond_25_active_devices_the_least_recently_seen_is_deactivated(chat: Chat) -> None:
    await set_up(chat, registration_limit=100)
    for number in range(25):
        await register(chat, chat.guide, f"ExponentPushToken[{number}]", f"phone {number}")
    await register(chat, chat.guide, "ExponentPushToken[0]", "phone 0")
    oldest = await stored(chat, chat.guide, "phone 1")
    await register(chat, chat.guide, "ExponentPushToken[25]", "phone 25")
    deactivated = [one for one in await rows(chat.connection, "table user_devices") if not one["is_active"]]
    [gone] = deactivated
    assert (gone["device_id"], gone["last_seen_at"]) == ("phone 1", oldest["last_seen_at"])
    await register(chat, chat.guide, "ExponentPushToken[1]", "phone 1")
    active = {one["device_id"] for one in await my_devices(chat, chat.guide) if one["is_active"]}
    assert active == {f"phone {number}" for number in range(26)} - {"phone 2"}


async def test_the_device_limit_ignores_devices_of_others_and_inactive_ones(chat: Chat) -> None:
    await set_up(chat, device_limit=2)
    await chat.device(user_id=chat.tourist)
    await chat.device(is_active=False)
    for number in range(2):
        await register(chat, chat.guide, f"ExponentPushToken[{number}]", f"phone {number}")
    assert await value(chat.connection, "select count(*) from user_devices where is_active") == 3


async def test_the_21st_registration_in_a_minute_is_rejected(chat: Chat) -> None:
    for _ in range(20):
        await register(chat, chat.guide)
    with pytest.raises(psycopg.Error) as raised:
        async with chat.connection.transaction():
            await register(chat, chat.guide, TWO)
    assert raised.value.sqlstate == "PT429"
    assert raised.value.diag.message_primary == "too many registrations: at most 20 in 60 seconds"
    assert 50 < json.loads(str(raised.value.diag.message_detail))["retry_after_seconds"] <= 60
    assert await owners(chat) == {(chat.guide, "phone", ONE, True)}
    # Other people can still register, and all can log out.
    await register(chat, chat.tourist, TWO)
    assert await unregister(chat, chat.guide)
    passed = "update push.registration_counts set window_began_at = window_began_at - interval '61 s'"
    await chat.connection.execute(passed.encode())
    for _ in range(20):
        await register(chat, chat.guide)
    async with refused(chat.connection, "PT429"):
        await register(chat, chat.guide)


async def test_the_registration_limit_is_a_setting(chat: Chat) -> None:
    await set_up(chat, registration_limit=1)
    await register(chat, chat.guide)
    async with refused(chat.connection, "PT429"):
        await register(chat, chat.guide)


async def insert_devices(chat: Chat, number: int, first: int = 0) -> None:
    """Inserts devices of the guide in one statement, as the role of the connection."""
    await chat.connection.execute(
        "insert into user_devices (user_id, device_id, platform, push_token)"
        " select %s, 'phone ' || n, 'ios', 'ExponentPushToken[' || n || ']' from generate_series(%s::integer, %s) n",
        (chat.guide, first, first + number - 1),
    )


async def count_devices(chat: Chat) -> tuple[int, int]:
    """Returns how many devices are active, and how many are stored."""
    counted = await row(
        chat.connection, "select count(*) filter (where is_active) as active, count(*) as stored from user_devices"
    )
    return counted["active"], counted["stored"]


async def test_20000_devices_in_one_statement_are_rejected_with_429(chat: Chat) -> None:
    with pytest.raises(psycopg.Error) as raised:
        async with as_user(chat.connection, chat.guide):
            await insert_devices(chat, 20000)
    assert raised.value.sqlstate == "PT429"
    assert raised.value.diag.message_primary == "too many registrations: at most 20 in 60 seconds"
    assert 50 < json.loads(str(raised.value.diag.message_detail))["retry_after_seconds"] <= 60
    assert await count_devices(chat) == (0, 0)


async def test_the_registration_limit_counts_rows_that_are_ignored_as_duplicates(chat: Chat) -> None:
    """Otherwise one statement could hold the locks of all tokens, and all other writers would wait."""
    await register(chat, chat.guide)
    async with refused(chat.connection, "PT429"), as_user(chat.connection, chat.guide):
        await chat.connection.execute(
            "insert into user_devices (user_id, device_id, platform, push_token)"
            " select %s, 'phone', 'ios', 'ExponentPushToken[' || n || ']' from generate_series(1, 20000) n"
            " on conflict (user_id, device_id) do nothing",
            (chat.guide,),
        )


async def test_the_registration_limit_counts_a_token_that_is_taken_for_an_inactive_device(chat: Chat) -> None:
    await set_up(chat, registration_limit=2)
    await register(chat, chat.guide)
    update = "update user_devices set is_active = false, push_token = %s"
    async with as_user(chat.connection, chat.guide):
        await chat.connection.execute(update.encode(), (TWO,))
    async with refused(chat.connection, "PT429"), as_user(chat.connection, chat.guide):
        await chat.connection.execute(update.encode(), (ONE,))


UPSERT = (
    "insert into user_devices (user_id, device_id, platform, push_token) values (%s, 'phone', 'ios', %s)"
    " on conflict (user_id, device_id) do update set push_token = excluded.push_token, is_active = true"
)


async def test_direct_writes_and_register_device_share_one_registration_limit(chat: Chat) -> None:
    await set_up(chat, registration_limit=6)
    await register(chat, chat.guide)
    for token in (ONE, TWO):
        async with as_user(chat.connection, chat.guide):
            await chat.connection.execute(UPSERT, (chat.guide, token))
        async with as_user(chat.connection, chat.guide):
            await chat.connection.execute("update user_devices set push_token = %s", (f"ExponentPushToken[{uuid4()}]",))
    await register(chat, chat.guide)
    async with refused(chat.connection, "PT429"), as_user(chat.connection, chat.guide):
        await chat.connection.execute(UPSERT, (chat.guide, TWO))
    async with refused(chat.connection, "PT429"), as_user(chat.connection, chat.guide):
        await chat.connection.execute("update user_devices set push_token = %s", (TWO,))
    async with refused(chat.connection, "PT429"):
        await register(chat, chat.guide)
    # A logout is no registration.
    async with as_user(chat.connection, chat.guide):
        await chat.connection.execute("update user_devices set push_token = null, is_active = false")
    assert await owners(chat) == {(chat.guide, "phone", None, False)}


async def test_losing_a_token_does_not_count_as_a_registration(chat: Chat) -> None:
    await set_up(chat, registration_limit=1)
    await register(chat, chat.guide)
    await register(chat, chat.tourist)
    counted = await rows(chat.connection, "select user_id, registrations from push.registration_counts")
    assert {one["user_id"]: one["registrations"] for one in counted} == {chat.guide: 1, chat.tourist: 1}


async def test_direct_writes_obey_the_device_limit(chat: Chat) -> None:
    await set_up(chat, device_limit=3)
    async with as_user(chat.connection, chat.guide):
        await insert_devices(chat, 5)
    assert await count_devices(chat) == (3, 5)
    async with as_user(chat.connection, chat.guide):
        await chat.connection.execute("update user_devices set is_active = true")
    assert await count_devices(chat) == (3, 5)
    await chat.device(user_id=chat.tourist)
    assert await count_devices(chat) == (4, 6)


async def test_a_backend_obeys_the_device_limit_and_has_no_registration_limit(chat: Chat) -> None:
    async with acting_as(chat.connection, "service_role"):
        await insert_devices(chat, 200)
    assert await count_devices(chat) == (25, 100)


async def test_beyond_stored_device_limit_the_devices_deactivated_longest_ago_are_deleted(chat: Chat) -> None:
    await set_up(chat, stored_device_limit=4, device_limit=2)
    for number in range(6):
        await register(chat, chat.guide, f"ExponentPushToken[{number}]", f"phone {number}")
    assert {(one["device_id"], one["is_active"]) for one in await my_devices(chat, chat.guide)} == {
        ("phone 2", False),
        ("phone 3", False),
        ("phone 4", True),
        ("phone 5", True),
    }
    async with as_user(chat.connection, chat.guide):
        await chat.connection.execute(
            "insert into user_devices (user_id, device_id, platform, is_active) values (%s, 'off', 'ios', false)",
            (chat.guide,),
        )
    assert {one["device_id"] for one in await my_devices(chat, chat.guide)} == {"phone 3", "phone 4", "phone 5", "off"}


async def test_an_import_of_20000_devices_takes_at_most_1000_token_locks(chat: Chat) -> None:
    """Locks of all sessions share one table; when it is full, the statements of all sessions fail."""
    await set_up(chat, device_limit=20000)
    await insert_devices(chat, 20000)
    mine = "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"
    assert 0 < await value(chat.connection, mine) < 1100
    assert await count_devices(chat) == (20000, 20000)


async def test_an_import_compares_no_device_with_each_other_if_the_table_was_analyzed_while_it_was_empty(
    chat: Chat,
) -> None:
    """Then the planner takes the table for empty during the whole import."""
    await set_up(chat, device_limit=1000)
    await chat.connection.execute("analyze user_devices")
    await insert_devices(chat, 1000)
    read = "select seq_tup_read from pg_stat_xact_user_tables where relid = 'user_devices'::regclass"
    assert await value(chat.connection, read) < 10_000


async def test_unregister_removes_the_device(chat: Chat) -> None:
    await register(chat, chat.guide)
    await register(chat, chat.guide, TWO, "tablet")
    assert await unregister(chat, chat.guide) is True
    assert await owners(chat) == {(chat.guide, "tablet", TWO, True)}


async def test_unregister_of_an_unknown_device_returns_false(chat: Chat) -> None:
    assert await unregister(chat, chat.guide) is False


async def test_unregister_keeps_the_device_of_another_account(chat: Chat) -> None:
    await register(chat, chat.guide)
    assert await unregister(chat, chat.tourist) is False
    assert await owners(chat) == {(chat.guide, "phone", ONE, True)}


async def test_a_late_logout_keeps_the_device_of_the_new_account(chat: Chat) -> None:
    await register(chat, chat.guide)
    await register(chat, chat.tourist)
    assert await unregister(chat, chat.guide) is True
    assert await owners(chat) == {(chat.tourist, "phone", ONE, True)}


async def test_my_devices_lists_active_and_deactivated_devices_newest_first(chat: Chat) -> None:
    for device_id in ("a", "b", "c"):
        await register(chat, chat.guide, f"ExponentPushToken[{device_id * 22}]", device_id)
    await register(chat, chat.guide, f"ExponentPushToken[{'a' * 22}]", "a")
    await register(chat, chat.tourist, f"ExponentPushToken[{'b' * 22}]", "b")
    assert [
        (device["device_id"], device["push_token"], device["is_active"])
        for device in await my_devices(chat, chat.guide)
    ] == [
        ("a", "ExponentPushToken[aaaa…", True),
        ("c", "ExponentPushToken[cccc…", True),
        ("b", None, False),
    ]


async def test_my_devices_is_empty_without_devices(chat: Chat) -> None:
    assert await my_devices(chat, chat.guide) == []


@pytest.mark.parametrize(
    ("token", "provider", "shown"),
    [
        ("ExponentPushToken[abcdefghijklmnopqrstuv]", "expo", "ExponentPushToken[abcd…"),
        ("ExpoPushToken[abcdefghijklmnopqrstuv]", "expo", "ExpoPushToken[abcd…"),
        ("8f14e45f-ceea-467f-a8d2-0d6f2f1c7a55", "expo", "8f14…"),
        ("cXyz_9-8:APA91bH", "fcm", "cXyz…"),
    ],
)
async def test_my_devices_shortens_push_tokens(chat: Chat, token: str, provider: str, shown: str) -> None:
    await chat.device(push_token=token, push_provider=provider)
    [device] = await my_devices(chat, chat.guide)
    assert device["push_token"] == shown


def odd_tokens() -> list[str]:
    """Tokens that are nearly right, with every ASCII character and some that others count as spaces."""
    characters = [chr(code) for code in range(1, 128)] + list("é\u0085\u00a0\u2003\u3000\ufeff📱")
    uuid = "8f14e45f-ceea-467f-a8d2-0d6f2f1c7a55"
    return [
        *(f"{name}[{'x' * length}]" for name in ("ExponentPushToken", "ExpoPushToken") for length in (0, 1, 80, 81)),
        *(f"ExponentPushToken[a{character}b]" for character in characters),
        *(f"{before}ExponentPushToken[a]{after}" for before in ("", " ", "x") for after in ("", "\n", "x", "]")),
        *("exponentpushtoken[a]", "EXPONENTPUSHTOKEN[a]", "expoPushToken[a]", "PushToken[a]", "ExponentPushToken(a)"),
        *(uuid, uuid.upper(), uuid.replace("-", ""), uuid + "\n", uuid[:-1], uuid + "0", "g" + uuid[1:], f"{{{uuid}}}"),
    ]


async def test_register_device_accepts_no_expo_token_that_the_table_rejects(chat: Chat) -> None:
    """Otherwise the function would answer 503. Collations decide which characters outside ASCII are spaces."""
    expression = await value(
        chat.connection,
        "select pg_get_expr(conbin, conrelid) from pg_constraint where conname = 'expo_push_token_format'",
    )
    judged = await rows(
        chat.connection,
        f"select push_token, {expression} as accepted"
        " from unnest(%s::text[]) push_token, (values ('expo'::varchar)) as provider (push_provider)",
        odd_tokens(),
    )
    assert len(judged) == len(odd_tokens())
    for one in judged:
        token = one["push_token"]
        accepted = re.fullmatch(EXPO_PATTERN, token) is not None
        assert one["accepted"] or not accepted, token
        if token.isascii() and token.isprintable():
            assert one["accepted"] == accepted, token
