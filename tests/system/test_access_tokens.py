"""The device API accepts the access tokens of its Supabase project, with a shared secret or with asymmetric keys."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from aiohttp import web

from local.app import Person, chat_app
from local.aws.gateway import gateway
from local.cloud import LocalCloud
from local.http_server import serving
from local.processes import free_port
from tests.auth import signed_by_hmac, signing_key, unsigned
from tests.system.chat import Chat, error_of, running_function, sign_out_everywhere

PHONE = {"device_id": "phone", "platform": "android", "push_token": "ExponentPushToken[xxxxxxxxxxxxxxxxxxxxxx]"}


async def get_devices(api_url: str, token: str) -> httpx.Response:
    """Lists devices with this access token, and returns the answer."""
    async with httpx.AsyncClient(base_url=api_url, timeout=30) as http:
        return await http.get("/api/push/devices", headers={"Authorization": f"Bearer {token}"})


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
    answer = await get_devices(chat.cloud.api_url, token)
    assert error_of(answer) == expected
    assert ("WWW-Authenticate" in answer.headers) == (expected[0] == 401)


async def test_a_token_of_another_project_is_answered_401(chat: Chat) -> None:
    issued = jwt.decode(chat.gus.access_token, options={"verify_signature": False})
    answer = await get_devices(chat.cloud.api_url, jwt.encode(issued, "the secret of another project, just as long"))
    assert error_of(answer) == (401, "unauthorized")


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
    function = cloud.template.functions["RegisterDevice"]
    function = replace(function, environment={**function.environment, "SUPABASE_URL": project.url})
    async with (
        serving(server, port),
        running_function(cloud, function, tmp_path) as running,
        gateway(cloud.template, {"RegisterDevice": running}, cloud.aws.sqs) as project.api_url,
    ):
        yield project


async def test_tokens_with_a_key_of_the_key_set_are_verified_with_one_request_for_it(
    chat: Chat, project: Project
) -> None:
    for key in (EC, RSA, EC):
        answer = await get_devices(project.api_url, key.token(**project.claims_of(chat.gus)))
        assert [device["device_id"] for device in answer.json()] == [chat.phone.token]
    assert project.auth_paths == [".well-known/jwks.json"]


async def test_a_valid_token_of_a_session_that_has_ended_registers_no_device(chat: Chat, project: Project) -> None:
    async with chat_app(chat.cloud.supabase, project.api_url) as app:
        guest = await app.sign_up("Guest", "guide")
        issued = jwt.decode(guest.access_token, options={"verify_signature": False})
        token = EC.token(**project.claims_of(guest), session_id=issued["session_id"])
        async with httpx.AsyncClient(base_url=project.api_url, headers={"Authorization": f"Bearer {token}"}) as http:
            assert (await http.post("/api/push/register", json=PHONE)).status_code == 201
            await sign_out_everywhere(chat, guest)
            answer = await http.post("/api/push/register", json=PHONE)
    assert error_of(answer) == (401, "unauthorized")
    assert "session" in answer.json()["error"]["message"]
    assert "WWW-Authenticate" in answer.headers


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
        assert error_of(await get_devices(project.api_url, token)) == (401, "unauthorized")
    # The Auth API was asked for the key set, and about the token that is signed with a shared secret.
    assert project.auth_paths == [".well-known/jwks.json", "user"]


async def test_cached_keys_verify_tokens_while_auth_is_down_and_a_cold_function_answers_503(
    chat: Chat, project: Project
) -> None:
    token = EC.token(**project.claims_of(chat.gus))
    project.down = True
    answer = await get_devices(project.api_url, token)
    assert (error_of(answer), answer.headers["Retry-After"]) == ((503, "unavailable"), "5")
    project.down = False
    assert (await get_devices(project.api_url, token)).status_code == 200
    project.down = True
    assert (await get_devices(project.api_url, token)).status_code == 200


async def test_a_token_that_the_data_api_finds_expired_is_answered_401(chat: Chat, project: Project) -> None:
    """The function verified the token before it expired."""
    project.changed_claims = {"exp": int(time.time()) - 3600}
    answer = await get_devices(project.api_url, EC.token(**project.claims_of(chat.gus)))
    assert error_of(answer) == (401, "unauthorized")
