"""docs/client/push.ts does in an app what docs/client.md says, against the local cloud."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from local.app import Person, chat_app
from local.cloud import LocalCloud
from local.packages import NODE_MODULES, node
from local.processes import free_port, run
from tests.docs.app_on_phone import AppError, AppOnPhone, app_on_phone, notification
from tests.system.chat import done

APP = Path(__file__).parent / "app"


@pytest.fixture(scope="session")
async def tina(cloud: LocalCloud) -> AsyncIterator[Person]:
    """A tourist, who writes to whoever has the app."""
    async with chat_app(cloud.supabase, cloud.api_url) as app:
        yield await app.sign_up("Tina", "tourist")


@pytest.fixture
async def app(cloud: LocalCloud) -> AsyncIterator[AppOnPhone]:
    """The app, started, with Gus signed in."""
    async with app_on_phone(cloud) as app:
        await app.sign_up("Gus")
        await app.do("start")
        yield app


async def rows(cloud: LocalCloud, query: str, *parameters: Any) -> list[Any]:
    async with await psycopg.AsyncConnection.connect(cloud.database_url) as connection:
        return await (await connection.execute(query.encode(), parameters)).fetchall()


async def change(cloud: LocalCloud, statement: str) -> None:
    async with await psycopg.AsyncConnection.connect(cloud.database_url) as connection:
        await connection.execute(statement.encode())


async def registered(cloud: LocalCloud, app: AppOnPhone) -> list[Any]:
    """Push token and device id of the active phones of whoever signed up in the app."""
    query = "select push_token, device_id from user_devices where user_id = %s and is_active"
    return await rows(cloud, query, app.user_id)


async def until(cloud: LocalCloud, query: str, *parameters: Any) -> None:
    """Waits until the query finds something."""
    async with asyncio.timeout(30):
        while not await rows(cloud, query, *parameters):  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.05)


async def push_from(tina: Person, app: AppOnPhone, cloud: LocalCloud) -> tuple[str, dict[str, Any]]:
    """Tina writes to Gus: the conversation, and the notification as his phone gets it."""
    conversation = await app.do("openChat", str(tina.id))
    cloud.expo.phones[app.phone.token].channels = frozenset(await app.state("channels"))
    message = await tina.send(UUID(conversation), "Shall we meet at the fountain?")
    await cloud.until_push(message, done)
    [arrival] = [arrival for arrival in app.phone.shown if arrival.message_id == str(message)]
    return conversation, notification(arrival)


async def test_types_are_right(tmp_path: Path) -> None:
    await run("tsc", node(), NODE_MODULES / "typescript" / "bin" / "tsc", "--project", APP, folder=tmp_path)


async def test_the_phone_is_asked_once_and_registered(app: AppOnPhone, cloud: LocalCloud) -> None:
    assert await app.do("registerPhone") == "not allowed"
    assert await app.do("registerPhone", {"ask": True}) == "registered"
    [[token, device_id]] = await registered(cloud, app)
    assert token == app.phone.token
    assert await app.do("registerPhone", {"ask": True}) == "registered"
    assert await registered(cloud, app) == [(token, device_id)]
    assert await app.state("asked") == 1


async def test_whoever_says_no_is_not_registered(app: AppOnPhone, cloud: LocalCloud) -> None:
    await app.do("phone", {"answer": False})
    assert await app.do("registerPhone", {"ask": True}) == "not allowed"
    assert await registered(cloud, app) == []


async def test_a_start_registers_a_phone_that_is_allowed(app: AppOnPhone, cloud: LocalCloud) -> None:
    await app.do("phone", {"allowed": True})
    await app.do("start")
    await until(cloud, "select from user_devices where user_id = %s and is_active", app.user_id)


async def test_a_new_push_token_is_registered_for_the_same_phone(app: AppOnPhone, cloud: LocalCloud) -> None:
    await app.do("registerPhone", {"ask": True})
    [[_, device_id]] = await registered(cloud, app)
    new = f"{app.phone.token[:-5]}new]"
    await app.do("rollToken", new)
    await until(cloud, "select from user_devices where push_token = %s", new)
    assert await registered(cloud, app) == [(new, device_id)]


async def test_whoever_registers_too_often_waits_and_is_registered(app: AppOnPhone, cloud: LocalCloud) -> None:
    await app.do("phone", {"allowed": True})
    await change(cloud, "update push.settings set registration_limit = 1, registration_limit_window = '2 seconds'")
    try:
        assert [await app.do("registerPhone") for _ in range(2)] == ["registered", "registered"]
    finally:
        await change(
            cloud, "update push.settings set registration_limit = default, registration_limit_window = default"
        )


async def test_an_account_without_a_profile_is_told_so(cloud: LocalCloud) -> None:
    async with app_on_phone(cloud) as app:
        app.user_id = await app.do("signUp", f"{app.phone.token[18:28].lower()}@example.com", "a long password")
        with pytest.raises(AppError) as refused:
            await app.do("registerPhone", {"ask": True})
        assert (refused.value.status, refused.value.code) == (403, "no_profile")
        await app.do("createProfile", "Gus")
        assert await app.do("registerPhone") == "registered"


async def test_a_push_opens_its_conversation_once(app: AppOnPhone, cloud: LocalCloud, tina: Person) -> None:
    await app.do("registerPhone", {"ask": True})
    conversation, pushed = await push_from(tina, app, cloud)
    await app.do("tap", pushed)
    assert await app.do("visited") == [f"/chat/{conversation}"]
    assert await app.state("tappedBeforeStart") is None


async def test_the_tap_that_starts_the_app_opens_its_conversation_once(cloud: LocalCloud) -> None:
    async with app_on_phone(cloud) as app:
        data = {"type": "chat_message", "conversationId": "c", "messageId": "m", "senderId": "s"}
        content = {"title": "Tina", "body": "Hello", "data": data}
        await app.do("tap", {"date": 1, "request": {"identifier": "m", "content": content}})
        await app.do("start")
        assert await app.do("visited") == ["/chat/c"]
        assert await app.state("tappedBeforeStart") is None


async def test_the_conversation_on_the_screen_shows_no_banner(app: AppOnPhone, cloud: LocalCloud, tina: Person) -> None:
    await app.do("registerPhone", {"ask": True})
    conversation, pushed = await push_from(tina, app, cloud)
    assert (await app.do("arrive", pushed))["shouldShowBanner"]
    await app.do("open", conversation)
    assert not (await app.do("arrive", pushed))["shouldShowBanner"]
    await app.do("leave")
    assert (await app.do("arrive", pushed))["shouldShowBanner"]


async def test_whoever_goes_from_one_conversation_to_another_looks_at_the_other(
    app: AppOnPhone, cloud: LocalCloud, tina: Person
) -> None:
    await app.do("registerPhone", {"ask": True})
    conversation, pushed = await push_from(tina, app, cloud)
    await app.do("switchTo", str(uuid4()), conversation)
    assert not (await app.do("arrive", pushed))["shouldShowBanner"]


async def test_heartbeats_follow_the_screen(app: AppOnPhone, cloud: LocalCloud, tina: Person) -> None:
    presence = "select from user_presence where user_id = %s and is_online = %s and current_conversation_id"
    conversation = await app.do("openChat", str(tina.id))
    await app.do("open", conversation)
    await until(cloud, f"{presence} = %s", app.user_id, True, conversation)
    await app.do("moveTo", "background")
    await until(cloud, f"{presence} is null", app.user_id, False)
    await app.do("moveTo", "active")
    await until(cloud, f"{presence} = %s", app.user_id, True, conversation)
    await app.do("leave")
    await until(cloud, f"{presence} is null", app.user_id, True)


async def test_what_arrived_is_delivered_and_what_was_seen_is_read(
    app: AppOnPhone, cloud: LocalCloud, tina: Person
) -> None:
    await app.do("registerPhone", {"ask": True})
    conversation, pushed = await push_from(tina, app, cloud)
    await app.do("arrive", pushed)
    message = pushed["request"]["content"]["data"]["messageId"]
    await app.do("markDelivered", [message])
    [delivery] = (await cloud.explain_push(UUID(message)))["deliveries"]
    assert delivery["status"] == "delivered"
    assert await app.state("badge") == 1
    await app.do("open", conversation)
    await until(cloud, "select from chat_messages where id = %s and is_read", message)
    await app.do("markRead", conversation)
    assert (await app.state("badge"), await app.state("presented")) == (0, [])


async def test_the_badge_counts_the_other_conversations(app: AppOnPhone, cloud: LocalCloud, tina: Person) -> None:
    await app.do("registerPhone", {"ask": True})
    conversation, _ = await push_from(tina, app, cloud)
    await app.do("markRead", str(uuid4()))
    assert await app.state("badge") == 1
    await app.do("markRead", conversation)
    assert await app.state("badge") == 0


async def test_a_logout_unregisters_the_phone(app: AppOnPhone, cloud: LocalCloud) -> None:
    await app.do("registerPhone", {"ask": True})
    await app.do("logOut")
    assert await registered(cloud, app) == []
    assert await app.do("signedIn") is False
    assert await app.do("registerPhone") == "signed out"


async def test_a_logout_without_network_silences_the_phone_itself(cloud: LocalCloud) -> None:
    async with app_on_phone(cloud, api_url=f"http://127.0.0.1:{free_port()}") as app:
        await app.sign_up("Gus")
        await app.do("logOut")
        assert await app.state("registered") is False
        assert await app.do("signedIn") is False
