"""Apps register devices over HTTP with real sessions. A phone shows the messages to the account that logged in last."""

import asyncio
from collections.abc import AsyncIterator

import jwt
import psycopg
import pytest
from postgrest import APIError

from local.app import App, Person, chat_app, new_phone
from local.cloud import LocalCloud
from tests.system.chat import Chat, arrived_and_visible, error_of, execute, sign_out_everywhere

REGISTER, UNREGISTER, DEVICES = "/api/push/register", "/api/push/unregister", "/api/push/devices"
PHONE = {"device_id": "phone", "platform": "android", "push_token": "ExponentPushToken[xxxxxxxxxxxxxxxxxxxxxx]"}


@pytest.fixture
async def app(cloud: LocalCloud) -> AsyncIterator[App]:
    async with chat_app(cloud.supabase, cloud.api_url) as app:
        yield app


async def test_a_device_is_registered_listed_and_unregistered_over_http(chat: Chat) -> None:
    answers = [await chat.greta.call("POST", REGISTER, json=PHONE) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 200]
    [listed] = (await chat.greta.call("GET", DEVICES)).json()
    assert listed == answers[1].json()
    assert (listed["push_token"], listed["is_active"]) == ("ExponentPushToken[xxxx…", True)
    for _ in range(2):
        answer = await chat.greta.call("DELETE", UNREGISTER, json={"device_id": "phone"})
        assert (answer.status_code, answer.content) == (204, b"")
    assert (await chat.greta.call("GET", DEVICES)).json() == []


async def test_a_registration_stores_the_session_id_of_the_access_token(chat: Chat) -> None:
    async with await psycopg.AsyncConnection.connect(chat.cloud.database_url) as connection:
        found = await connection.execute("select session_id::text from user_devices")
        [[session_id]] = await found.fetchall()
    session = jwt.decode(chat.gus.access_token, options={"verify_signature": False})
    assert session_id == session["session_id"]


async def test_a_phone_whose_user_signed_out_everywhere_shows_nothing_new(chat: Chat, app: App) -> None:
    guest = await app.sign_up("Guest", "guide")
    phone = new_phone(chat.cloud.expo, "ios")
    await guest.log_in_on(phone, device_id="lost")
    room = await chat.tina.open_chat(guest)
    before = await chat.tina.send(room, "Before")
    await chat.until_done(before)
    await sign_out_everywhere(chat, guest)
    after = await chat.tina.send(room, "After")
    assert (await chat.until_done(after))["reason"] == "no_device"
    assert [arrival.message_id for arrival in phone.shown] == [str(before)]
    registration = {"p_device_id": "lost", "p_platform": "ios", "p_push_token": phone.token}
    with pytest.raises(APIError, match="the session of this access token has ended"):
        await guest.client.rpc("register_device", registration).execute()


async def test_fifty_registrations_of_a_phone_by_ten_accounts_leave_one_owner_and_only_it_gets_pushes(
    chat: Chat, app: App
) -> None:
    people = [await app.sign_up(f"Guest{number}", "guide") for number in range(10)]
    phone = new_phone(chat.cloud.expo, "android")
    for _ in range(5):  # five at a time: the account allows ten invocations at once
        for some in (people[::2], people[1::2]):
            await asyncio.gather(*(person.log_in_on(phone, device_id="phone") for person in some))
    devices = [(await person.devices())["phone"] for person in people]
    [owner] = [person for person, device in zip(people, devices, strict=True) if device["is_active"]]
    assert sum(device["push_token"] is not None for device in devices) == 1
    written = {person.id: await chat.tina.send(await chat.tina.open_chat(person), "Hello") for person in people}
    for message in written.values():
        await chat.until_done(message)
    assert [arrival.message_id for arrival in phone.shown] == [str(written[owner.id])]


async def test_a_phone_registered_under_two_device_ids_shows_a_message_once(chat: Chat) -> None:
    await chat.gus.log_in_on(chat.phone, device_id="after a reinstallation")
    message = await chat.send()
    await chat.until_done(message)
    assert arrived_and_visible(chat.phone, message) == (1, 1)


async def test_an_account_that_logs_in_again_on_its_former_phone_gets_its_pushes_there(chat: Chat) -> None:
    for person in (chat.omar, chat.gus):
        await person.log_in_on(chat.phone, device_id=chat.phone.token)
    to_omar = await chat.tina.send(await chat.tina.open_chat(chat.omar), "Hello Omar")
    assert (await chat.until_done(to_omar))["reason"] == "no_device"
    message = await chat.send()
    await chat.until_done(message)
    assert (arrived_and_visible(chat.phone, to_omar), arrived_and_visible(chat.phone, message)) == ((0, 0), (1, 1))


async def test_a_new_push_token_replaces_the_old_one_of_the_device(chat: Chat) -> None:
    renewed = new_phone(chat.cloud.expo, "ios")
    await chat.gus.log_in_on(renewed, device_id=chat.phone.token)
    message = await chat.send()
    await chat.until_done(message)
    assert (arrived_and_visible(chat.phone, message), arrived_and_visible(renewed, message)) == ((0, 0), (1, 1))


async def test_an_iphone_under_fcm_is_rejected_by_the_api_with_the_field_and_a_reason(chat: Chat) -> None:
    device = {**PHONE, "platform": "ios", "push_provider": "fcm", "push_token": "cXyz_9-8:APA91bH_xyz"}
    answer = await chat.greta.call("POST", REGISTER, json=device)
    assert answer.status_code == 422
    [wrong] = answer.json()["error"]["fields"]
    assert wrong["field"] == "push_provider"
    assert "use expo or apns for ios" in wrong["message"]


async def test_a_warm_function_keeps_concurrent_callers_apart(chat: Chat) -> None:
    people: list[Person] = [chat.tina, chat.gus, chat.omar, chat.greta]

    async def use(person: Person) -> None:
        body = {**PHONE, "device_id": person.name, "push_token": f"ExponentPushToken[{person.name}]"}
        for _ in range(5):
            assert (await person.call("POST", REGISTER, json=body)).json()["device_id"] == person.name
            assert person.name in await person.devices()
            assert not (await person.devices()).keys() & {other.name for other in people if other is not person}

    await asyncio.gather(*map(use, people))


async def test_registrations_beyond_the_limit_are_answered_429_for_that_account_only(chat: Chat) -> None:
    await execute(chat.cloud, "update push.settings set registration_limit = 2")
    await execute(chat.cloud, "delete from push.registration_counts")
    answers = [await chat.greta.call("POST", REGISTER, json=PHONE) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [201, 200, 429]
    assert error_of(answers[-1]) == (429, "too_many_registrations")
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
    assert (await chat.omar.call("POST", REGISTER, json=PHONE)).status_code == 201


async def test_registering_without_a_row_in_users_is_answered_403(chat: Chat, app: App) -> None:
    person = await app.sign_up("Nobody", "tourist")
    await execute(chat.cloud, "delete from public.users where id = %s", person.id)
    answer = await person.call("POST", REGISTER, json=PHONE)
    assert error_of(answer) == (403, "no_profile")
    assert "users" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/api/push/nothing", (404, "not_found")),
        ("GET", REGISTER, (405, "method_not_allowed")),
        ("PUT", UNREGISTER, (405, "method_not_allowed")),
    ],
)
async def test_an_unknown_route_or_method_is_answered_in_the_format_of_all_errors(
    chat: Chat, method: str, path: str, expected: tuple[int, str]
) -> None:
    assert error_of(await chat.gus.call(method, path)) == expected


async def test_registering_is_answered_503_while_the_database_hangs_and_works_afterwards(chat: Chat) -> None:
    async with await psycopg.AsyncConnection.connect(chat.cloud.database_url) as other:
        await other.execute("lock table user_devices")
        answer = await chat.greta.call("POST", REGISTER, json=PHONE)
        assert (error_of(answer), answer.headers["Retry-After"]) == ((503, "unavailable"), "5")
    assert (await chat.greta.call("POST", REGISTER, json=PHONE)).is_success
    assert list(await chat.greta.devices()) == ["phone"]
