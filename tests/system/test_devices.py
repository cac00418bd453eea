"""Apps register devices over HTTP with real sessions. A phone shows the messages to the account that logged in last."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import jwt
import psycopg
import pytest
from aiohttp import web

from local.app import App, Person, chat_app, new_phone
from local.aws.gateway import gateway
from local.cloud import LocalCloud
from local.processes import free_port
from tests.auth import signed_by_hmac, signing_key, unsigned
from tests.system.chat import Chat, arrived_and_visible, execute, running_function

REGISTER, UNREGISTER, DEVICES = "/api/push/register", "/api/push/unregister", "/api/push/devices"
PHONE = {"device_id": "phone", "platform": "android", "push_token": "ExponentPushToken[xxxxxxxxxxxxxxxxxxxxxx]"}


@pytest.fixture
async def app(cloud: LocalCloud) -> AsyncIterator[App]:
    async with chat_app(cloud.supabase, cloud.api_url) as app:
        yield app


async def with_token(cloud: LocalCloud, token: str, method: str = "GET", path: str = DEVICES) -> httpx.Response:
    """Sends a request with this access token, and returns the answer."""
    async with httpx.AsyncClient(base_url=cloud.api_url, timeout=30) as http:
        return await http.request(method, path, headers={"Authorization": f"Bearer {token}"})


def error_of(answer: httpx.Response) -> tuple[int, str]:
    """Returns status and code of an error."""
    return answer.status_code, answer.json()["error"]["code"]


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


async def test_an_fcm_token_is_registered_and_not_sent_to_expo(chat: Chat) -> None:
    body = {**PHONE, "push_provider": "fcm", "push_token": "cXyz_9-8:APA91bH"}
    assert (await chat.greta.call("POST", REGISTER, json=body)).status_code == 201
    message = await chat.tina.send(await chat.tina.open_chat(chat.greta), "Hello Greta")
    assert (await chat.until_done(message))["reason"] == "no_device"
    assert chat.cloud.expo.requests == []


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
    ("changes", "expected"),
    [
        ({"exp": 1}, (401, "unauthorized")),
        ({"sub": None}, (401, "unauthorized")),
        ({"role": "anon"}, (403, "not_signed_in")),
        ({"session_id": "s1"}, (401, "unauthorized")),
        ({"session_id": ["s1"]}, (401, "unauthorized")),
        ({"user_metadata": {"name": "\x00"}}, (401, "unauthorized")),
    ],
    ids=ascii,
)
async def test_a_token_that_the_project_signed_is_rejected_without_a_valid_user_or_session(
    chat: Chat, changes: dict[str, Any], expected: tuple[int, str]
) -> None:
    """The project signs with a shared secret, so only the Auth API can verify the token."""
    issued = jwt.decode(chat.gus.access_token, options={"verify_signature": False}) | changes
    token = jwt.encode(
        {name: value for name, value in issued.items() if value is not None}, chat.cloud.supabase.jwt_secret
    )
    answer = await with_token(chat.cloud, token)
    assert error_of(answer) == expected
    assert ("WWW-Authenticate" in answer.headers) == (expected[0] == 401)


async def test_a_token_of_another_project_is_answered_401(chat: Chat) -> None:
    issued = jwt.decode(chat.gus.access_token, options={"verify_signature": False})
    answer = await with_token(chat.cloud, jwt.encode(issued, "the secret of another project, just as long"))
    assert error_of(answer) == (401, "unauthorized")


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


# --- a project with asymmetric keys


@dataclass
class Project:
    """A Supabase project with asymmetric keys. Its Data API is that of the cloud, which accepts shared secrets only."""

    cloud: LocalCloud
    url: str
    api_url: str = ""  # of register_device for this project
    auth_paths: list[str] = field(default_factory=list)
    changed_claims: dict[str, Any] = field(default_factory=dict)  # in the token that the Data API gets
    down: bool = False

    async def auth(self, request: web.Request) -> web.Response:
        """The Auth API: it serves the key set, and rejects every token that it is asked to verify."""
        self.auth_paths.append(request.path.removeprefix("/auth/v1/"))
        if self.down:
            return web.Response(status=500)
        if request.path == "/auth/v1/user":
            return web.json_response({"code": 403, "error_code": "bad_jwt"}, status=403)
        return web.json_response({"keys": [key.public for key in (EC, RSA)]})

    async def data(self, request: web.Request) -> web.Response:
        """The Data API of the cloud, called with the same claims under the shared secret."""
        token = request.headers["Authorization"].removeprefix("Bearer ")
        claims = jwt.decode(token, options={"verify_signature": False}) | self.changed_claims
        headers = {
            "apikey": request.headers["apikey"],
            "Authorization": f"Bearer {jwt.encode(claims, self.cloud.supabase.jwt_secret)}",
            "Content-Type": "application/json",
        }
        async with httpx.AsyncClient() as http:
            url = self.cloud.supabase.url + request.path
            answer = await http.post(url, content=await request.read(), headers=headers)
        return web.Response(status=answer.status_code, body=answer.content, content_type="application/json")

    async def get_devices(self, token: str) -> httpx.Response:
        async with httpx.AsyncClient(timeout=30) as http:
            return await http.get(self.api_url + DEVICES, headers={"Authorization": f"Bearer {token}"})

    def claims_of(self, person: Person) -> dict[str, Any]:
        return {"sub": str(person.id), "iss": f"{self.url}/auth/v1"}


EC, RSA = signing_key("ec"), signing_key("rsa", "RS256")


@pytest.fixture
async def project(cloud: LocalCloud, tmp_path: Path) -> AsyncIterator[Project]:
    port = free_port()
    project = Project(cloud, f"http://127.0.0.1:{port}")
    server = web.Application()
    server.router.add_get("/auth/v1/{path:.*}", project.auth)
    server.router.add_post("/rest/v1/{path:.*}", project.data)
    runner = web.AppRunner(server)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    function = cloud.template.functions["RegisterDevice"]
    function = replace(function, environment={**function.environment, "SUPABASE_URL": project.url})
    async with (
        running_function(cloud, function, tmp_path) as running,
        gateway(cloud.template, {"RegisterDevice": running}, cloud.aws.sqs) as project.api_url,
    ):
        yield project
    await runner.cleanup()


async def test_tokens_with_a_key_of_the_key_set_are_verified_with_one_request_for_it(
    chat: Chat, project: Project
) -> None:
    for key in (EC, RSA, EC):
        answer = await project.get_devices(key.token(**project.claims_of(chat.gus)))
        assert [device["device_id"] for device in answer.json()] == [chat.phone.token]
    assert project.auth_paths == [".well-known/jwks.json"]


async def test_forged_tokens_are_answered_401(chat: Chat, project: Project) -> None:
    gus = project.claims_of(chat.gus)
    valid = jwt.decode(EC.token(**gus), options={"verify_signature": False})
    for token in (
        unsigned({"alg": "none", "kid": "ec"}, valid),
        signed_by_hmac(EC.public_pem, {"alg": "HS256", "kid": "ec"}, valid),
        signing_key("stranger").token(**gus),
        EC.token(**gus, aud="other"),
        EC.token(**gus, exp=1),
        EC.token(**{**gus, "iss": f"{chat.cloud.supabase.url}/auth/v1"}),
        chat.gus.access_token,
    ):
        assert error_of(await project.get_devices(token)) == (401, "unauthorized")
    # The Auth API was asked for the key set, and about the token that is signed with a shared secret.
    assert project.auth_paths == [".well-known/jwks.json", "user"]


async def test_cached_keys_verify_tokens_while_auth_is_down_and_a_cold_function_answers_503(
    chat: Chat, project: Project
) -> None:
    token = EC.token(**project.claims_of(chat.gus))
    project.down = True
    answer = await project.get_devices(token)
    assert (error_of(answer), answer.headers["Retry-After"]) == ((503, "unavailable"), "5")
    project.down = False
    assert (await project.get_devices(token)).status_code == 200
    project.down = True
    assert (await project.get_devices(token)).status_code == 200


async def test_a_token_that_the_data_api_finds_expired_is_answered_401(chat: Chat, project: Project) -> None:
    """The function verified the token before it expired."""
    project.changed_claims = {"exp": int(time.time()) - 3600}
    answer = await project.get_devices(EC.token(**project.claims_of(chat.gus)))
    assert error_of(answer) == (401, "unauthorized")
