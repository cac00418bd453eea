"""The answers of the Data API to an app that writes too much, too often, or what belongs to other users."""

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from local.app import Person
from local.cloud import LocalCloud
from tests.system.chat import Chat, arrived_and_visible, execute

type Rows = dict[str, Any] | list[dict[str, Any]]


@pytest.fixture
async def http(cloud: LocalCloud) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"{cloud.supabase.url}/rest/v1/", timeout=30) as http:
        yield http


async def write(
    http: httpx.AsyncClient,
    cloud: LocalCloud,
    person: Person,
    path: str,
    body: Rows,
    *,
    method: str = "POST",
    prefer: str = "",
) -> httpx.Response:
    """Sends a request to the Data API as this person, and returns the answer."""
    headers = {
        "apikey": cloud.supabase.publishable_key,
        "Authorization": f"Bearer {person.access_token}",
        "Prefer": prefer or "return=minimal",
    }
    return await http.request(method, path, json=body, headers=headers)


def error_of(answer: httpx.Response) -> tuple[int, str, str]:
    """Returns status, code and message of an error."""
    error = answer.json()
    return answer.status_code, error["code"], error["message"]


@pytest.mark.parametrize(
    ("table", "field", "content", "message"),
    [
        ("chat_messages", "message", "x" * 16385, "message is too long: 16385 bytes, at most 16384"),
        ("chat_messages", "client_msg_id", "x" * 3000, "client_msg_id is too long: 3000 bytes, at most 200"),
        ("chat_messages", "attachments", [{}] * 31, "attachments are too many: 31, at most 30"),
        ("chat_messages", "attachments", {}, "attachments must be an array, not of the type object"),
        ("chat_messages", "attachments", [{"url": "http://a.b/c"}], "attachments[0].url must be an https URL"),
        ("users", "display_name", "x" * 2049, "display_name is too long: 2049 bytes, at most 2048"),
        ("user_devices", "device_id", "x" * 201, "device_id has 201 characters; it must have 1 to 200"),
        ("user_devices", "app_version", "x" * 201, "app_version is too long: 201 bytes, at most 200"),
        ("user_devices", "push_token", "x" * 3000, "push_token is too long: 3000 bytes, at most 2048"),
        ("message_receipts", "device_id", "x" * 801, "device_id is too long: 801 bytes, at most 800"),
    ],
)
async def test_a_field_beyond_its_bound_is_answered_400_with_its_name_its_bound_and_a_hint(
    http: httpx.AsyncClient, chat: Chat, table: str, field: str, content: Any, message: str
) -> None:
    gus = chat.gus
    row: dict[str, Any] = {
        "chat_messages": {"room_id": str(chat.id), "sender_id": str(gus.id), "message": "Hello"},
        "users": {},
        "user_devices": {"user_id": str(gus.id), "device_id": "a", "platform": "android", "push_provider": "fcm"},
        "message_receipts": {"user_id": str(gus.id)},
    }[table]
    if table == "message_receipts":
        row["message_id"] = str(await chat.send())
    method, path = ("PATCH", f"users?id=eq.{gus.id}") if table == "users" else ("POST", table)
    answer = await write(http, chat.cloud, gus, path, {**row, field: content}, method=method)
    assert error_of(answer) == (400, "22001" if "is too long" in message else "22023", message)
    assert answer.json()["hint"]


async def test_registrations_beyond_the_limit_in_one_insert_are_answered_429_and_none_is_stored(
    http: httpx.AsyncClient, chat: Chat
) -> None:
    await execute(chat.cloud, "update push.settings set registration_limit = default")
    await execute(chat.cloud, "delete from push.registration_counts")
    flood = [
        {"user_id": str(chat.omar.id), "device_id": f"{n}", "platform": "ios", "push_token": f"ExponentPushToken[{n}]"}
        for n in range(10000)  # the most rows that Supabase Lite takes
    ]
    answer = await write(http, chat.cloud, chat.omar, "user_devices", flood)
    assert error_of(answer) == (429, "PT429", "too many registrations: at most 20 in 60 seconds")
    assert 1 <= json.loads(answer.json()["details"])["retry_after_seconds"] <= 60
    assert await chat.omar.devices() == {}


async def test_an_insert_that_is_ignored_as_a_duplicate_takes_no_push_token(
    http: httpx.AsyncClient, chat: Chat
) -> None:
    body = {"user_id": str(chat.omar.id), "device_id": "mine", "platform": "ios"}
    await write(http, chat.cloud, chat.omar, "user_devices", {**body, "push_token": "ExponentPushToken[mine]"})
    answer = await write(
        http,
        chat.cloud,
        chat.omar,
        "user_devices?on_conflict=user_id,device_id",
        {**body, "push_token": chat.phone.token},
        prefer="resolution=ignore-duplicates",
    )
    assert answer.is_success
    assert (await chat.gus.devices())[chat.phone.token]["is_active"]
    message = await chat.send()
    await chat.until_done(message)
    assert arrived_and_visible(chat.phone, message) == (1, 1)


async def test_opening_a_conversation_of_others_is_answered_403_whether_it_exists_or_not(
    http: httpx.AsyncClient, chat: Chat
) -> None:
    answers = [
        await write(http, chat.cloud, chat.greta, "chat_rooms", {"user1_id": str(one), "user2_id": str(other)})
        for one, other in ((chat.tina.id, chat.gus.id), (chat.omar.id, chat.gus.id), (chat.omar.id, uuid4()))
    ]
    assert {error_of(answer) for answer in answers} == {
        (403, "42501", "neither user1_id nor user2_id is the signed-in user")
    }


async def test_a_message_in_the_name_of_another_user_is_answered_403_even_at_that_users_limit(
    http: httpx.AsyncClient, chat: Chat
) -> None:
    await chat.send()
    await execute(chat.cloud, "update private.chat_settings set message_limit = 1")
    body = {"room_id": str(chat.id), "sender_id": str(chat.tina.id), "message": "As Tina"}
    assert error_of(await write(http, chat.cloud, chat.gus, "chat_messages", body))[:2] == (403, "42501")
    assert error_of(await write(http, chat.cloud, chat.tina, "chat_messages", body))[:2] == (429, "PT429")
