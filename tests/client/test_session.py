"""The session of the Python client, against a fake server."""

from pathlib import Path
from uuid import UUID

import httpx
import pytest

from chat_client import ChatClient, Settings
from chat_client.errors import OtherAccount, ServerUnreachable
from tests.client.conftest import Client
from tests.client.fake_server import KEY, ME, PARTNER, FakeServer, error


def settings(tmp_path: Path) -> Settings:
    """Nothing listens there: HTTP goes to the fake server, and there is no Realtime."""
    return Settings(
        supabase_url="http://127.0.0.1:9",
        api_url="http://127.0.0.1:9",
        publishable_key=KEY,
        database=tmp_path / "client.sqlite",
    )


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
    server: FakeServer, tmp_path: Path
) -> None:
    client = ChatClient(settings(tmp_path), transport=server)
    await client.sign_in("gus@example.com", "right")
    server.fault = lambda request: httpx.Response(500) if "/api/" in request.url.path else None

    await client.sign_out()

    assert server.requests[-2:] == ["DELETE /api/push/unregister", "POST /auth/v1/logout"]
    assert (client.signed_in, client.user_id) == (False, None)
    await client.close()
