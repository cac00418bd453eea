"""The session of the Python client, against a fake server."""

import json
from asyncio import get_running_loop
from itertools import pairwise
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from chat_client import ChatClient, Settings
from chat_client.errors import OtherAccount, RateLimited, ServerUnreachable
from chat_client.models import message_of
from chat_client.settings import Timing
from chat_client.store import Store
from tests.client.conftest import Client
from tests.client.fake_server import KEY, ME, PARTNER, FakeServer, error
from tests.waiting import eventually

NOWHERE = "http://127.0.0.1:9"  # HTTP goes to the fake server, and there is no Realtime


def settings(path: Path, **timing: float) -> Settings:
    return Settings(supabase_url=NOWHERE, api_url=NOWHERE, publishable_key=KEY, database=path, timing=Timing(**timing))


@pytest.mark.parametrize(
    "answer",
    [
        *(httpx.Response(status, html="<html>Log in to the Wi-Fi</html>") for status in (200, 302, 403, 404, 511, 522)),
        httpx.Response(200, json=[]),
        httpx.Response(429, json={"code": 429, "error_code": "over_request_rate_limit", "msg": "slow down"}),
        httpx.Response(500, json={"code": 500, "error_code": "unexpected_failure", "msg": "no database"}),
    ],
    ids=lambda answer: answer.status_code,
)
async def test_an_answer_that_is_no_decision_of_auth_neither_ends_the_session_nor_rejects_a_sign_in(
    client: Client, server: FakeServer, answer: httpx.Response
) -> None:
    server.fault = lambda request: answer
    with pytest.raises(ServerUnreachable):
        await client.server.renew()
    with pytest.raises(ServerUnreachable):
        await client.server.sign_in("gus@example.com", "right", ME)

    server.fault = lambda request: None
    await client.server.renew()


async def test_while_another_account_is_refused_the_messages_of_the_owner_are_sent(
    client: Client, server: FakeServer, room: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = server.handle_async_request

    async def other_account(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/v1/token":
            session = server.session()
            user = {**session["user"], "id": str(PARTNER)}
            return httpx.Response(200, json={**session, "access_token": "another", "user": user})
        if request.url.path == "/auth/v1/logout":
            await client.send_due()
        elif request.headers["authorization"] == "Bearer another":
            return error(403, "42501", "not a member of the conversation")
        return await answer(request)

    monkeypatch.setattr(server, "handle_async_request", other_account)
    client.store.enter_message(room, "hello", (), client.clock())
    with pytest.raises(OtherAccount):
        await client.server.sign_in("omar@example.com", "right", ME)

    assert (server.texts(room), client.store.entries()) == (["hello"], [])
    assert server.requests.count("POST /auth/v1/logout") == 1


async def test_a_sign_out_ends_the_session_although_the_device_cannot_be_unregistered(
    server: FakeServer, path: Path
) -> None:
    client = ChatClient(settings(path), transport=server)
    await client.sign_in("gus@example.com", "right")
    server.fault = lambda request: httpx.Response(500) if "/api/" in request.url.path else None

    await client.sign_out()

    assert server.requests[-2:] == ["DELETE /api/push/unregister", "POST /auth/v1/logout"]
    assert (client.signed_in, client.user_id) == (False, None)
    await client.close()


async def test_a_device_that_registers_waits_also_if_a_proxy_says_a_date(server: FakeServer, path: Path) -> None:
    client = ChatClient(settings(path), transport=server)
    await client.sign_in("gus@example.com", "right")
    server.fault = lambda request: httpx.Response(429, headers={"Retry-After": "Fri, 27 Nov 2026 23:00:00 GMT"})

    with pytest.raises(RateLimited) as raised:
        await client.register_device("ExponentPushToken[1]", "ios")

    assert raised.value.retry_after == 10
    await client.close()


@pytest.fixture
def old_session(store: Store, server: FakeServer, room: UUID, path: Path) -> Path:
    """A local database with a session that has to be renewed, a message to send and one to mark."""
    store.put("session", json.dumps({**server.session(), "expires_in": 0}))
    store.enter_message(room, "hello", (), 1.0)
    store.apply_messages([message_of(server.write(room, "hi"))])
    store.close()
    return path


async def test_an_unexpected_error_ends_no_part_of_the_client_and_the_log_does_not_quote_it(
    server: FakeServer, old_session: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parts = {
        "POST /auth/v1/token", "POST /rest/v1/chat_messages", "POST /rest/v1/rpc/sync_cursor",
        "POST /rest/v1/rpc/mark_messages_delivered", "POST /rest/v1/rpc/report_presence",
    }  # fmt: skip
    server.fault = lambda request: LookupError("a secret")
    timing = settings(old_session, retry_base=0.01, retry_cap=0.02, marks_delay=0, heartbeat=0.01)
    async with ChatClient(timing, transport=server):
        await eventually(lambda: parts <= set(server.requests))
        assert "the sync failed: LookupError" in caplog.text
        assert "a secret" not in caplog.text
        server.requests.clear()
        server.fault = lambda request: None
        await eventually(lambda: parts <= set(server.requests))


async def test_a_session_that_cannot_be_renewed_now_is_tried_again_after_longer_and_longer_waits(
    server: FakeServer, old_session: Path
) -> None:
    tries: list[float] = []

    def refuse(request: httpx.Request) -> httpx.Response | None:
        if request.url.path != "/auth/v1/token":
            return None
        tries.append(get_running_loop().time())
        return httpx.Response(429, json={"code": 429, "error_code": "over_request_rate_limit", "msg": "slow down"})

    server.fault = refuse
    async with ChatClient(settings(old_session, retry_base=0.01), transport=server):
        await eventually(lambda: len(tries) > 4)

    waits = [later - earlier for earlier, later in pairwise(tries)]
    assert all(wait >= 0.005 * 2**number for number, wait in enumerate(waits))
