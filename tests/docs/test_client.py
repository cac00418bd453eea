"""The files of docs/client in an app, against the local cloud: they do what docs/client.md says."""

import asyncio
import re
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
from tests.docs.guides import PROJECT

APP = Path(__file__).parent / "app"


@pytest.fixture(scope="session")
async def tina(cloud: LocalCloud) -> AsyncIterator[Person]:
    """A tourist who writes to the user of the app."""
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
    """Push token and device id of the active phones of the app's user."""
    query = "select push_token, device_id from user_devices where user_id = %s and is_active"
    return await rows(cloud, query, app.user_id)


async def until(cloud: LocalCloud, query: str, *parameters: Any) -> None:
    """Wait until the query returns a row."""
    async with asyncio.timeout(30):
        while not await rows(cloud, query, *parameters):  # noqa: ASYNC110 - there is no event to await
            await asyncio.sleep(0.05)


async def until_registration(app: AppOnPhone, registration: str) -> None:
    """Wait until the last registration of the root layout has this outcome."""
    async with asyncio.timeout(30):
        while (await app.do("registrations"))[-1:] != [registration]:  # noqa: ASYNC110 - there is no event to await
            await asyncio.sleep(0.05)


async def push_from(tina: Person, app: AppOnPhone, cloud: LocalCloud) -> tuple[str, dict[str, Any]]:
    """Tina writes to Gus. Returns the conversation, and the notification as his phone gets it."""
    conversation = await app.do("openChat", str(tina.id))
    cloud.expo.phones[app.phone.token].channels = frozenset(await app.state("channels"))
    message = await tina.send(UUID(conversation), "Shall we meet at the fountain?")
    await cloud.until_push(message)
    [arrival] = [arrival for arrival in app.phone.shown if arrival.message_id == str(message)]
    return conversation, notification(arrival)


def of_a_message(recipient: str | None, date: int = 1) -> dict[str, Any]:
    """A notification on a phone. Pushes of older versions name no recipient."""
    data = {"type": "chat_message", "conversationId": "c", "messageId": "m", "senderId": "s"}
    data |= {"recipientId": recipient} if recipient else {}
    identifier = f"of {recipient}"
    return {
        "date": date,
        "request": {"identifier": identifier, "content": {"title": "Tina", "body": "Hi", "data": data}},
    }


async def test_the_client_has_no_type_errors_against_the_types_of_expo(tmp_path: Path) -> None:
    await run("tsc", node(), NODE_MODULES / "typescript" / "bin" / "tsc", "--project", APP, folder=tmp_path)


async def test_registering_shows_the_permission_dialog_once(app: AppOnPhone, cloud: LocalCloud) -> None:
    assert await app.do("registerPhone") == "not allowed"
    assert await app.do("registerPhone", {"ask": True}) == "registered"
    [[token, device_id]] = await registered(cloud, app)
    assert token == app.phone.token
    assert await app.do("registerPhone", {"ask": True}) == "registered"
    assert await registered(cloud, app) == [(token, device_id)]
    assert await app.state("asked") == 1
    assert set(await app.state("channels")) == {"chat-messages", "chat-messages-quiet"}


async def test_a_user_who_denies_permission_is_not_registered(app: AppOnPhone, cloud: LocalCloud) -> None:
    await app.do("phone", {"answer": False})
    assert await app.do("registerPhone", {"ask": True}) == "not allowed"
    assert await registered(cloud, app) == []


async def test_each_start_registers_a_phone_with_permission(app: AppOnPhone, cloud: LocalCloud) -> None:
    await app.do("phone", {"allowed": True})
    await app.do("start")
    await until(cloud, "select from user_devices where user_id = %s and is_active", app.user_id)


@pytest.mark.parametrize(
    ("built_with", "named"),
    [
        ({"EXPO_PUBLIC_CHAT_PUSH_URL": ""}, "EXPO_PUBLIC_CHAT_PUSH_URL"),
        ({"EXPO_PUBLIC_CHAT_PUSH_URL": "undefined"}, "EXPO_PUBLIC_CHAT_PUSH_URL"),
        ({"EAS_PROJECT_ID": ""}, "eas init"),
    ],
)
async def test_a_missing_setting_is_reported_as_not_configured_instead_of_offline(
    cloud: LocalCloud, built_with: dict[str, str], named: str
) -> None:
    async with app_on_phone(cloud, **built_with) as app:
        await app.sign_up("Gus")
        with pytest.raises(AppError, match=named) as refused:
            await app.do("registerPhone", {"ask": True})
        assert (refused.value.status, refused.value.code) == (0, "not_configured")


async def test_the_api_url_may_end_with_a_slash(cloud: LocalCloud) -> None:
    async with app_on_phone(cloud, EXPO_PUBLIC_CHAT_PUSH_URL=f"{cloud.api_url}/") as app:
        await app.sign_up("Gus")
        assert await app.do("registerPhone", {"ask": True}) == "registered"


async def test_a_user_who_allows_pushes_in_the_settings_is_registered_on_return(
    app: AppOnPhone, cloud: LocalCloud
) -> None:
    await until_registration(app, "not allowed")
    await app.do("phone", {"answer": False})
    await app.do("ask")
    assert [alert["title"] for alert in await app.do("alerts")] == ["Notifications are off"]
    await app.do("press", "Settings")
    assert await app.do("opened") == ["settings"]
    await app.do("phone", {"allowed": True})
    await app.do("moveTo", "background")
    await app.do("moveTo", "active")
    await until_registration(app, "registered")
    assert len(await registered(cloud, app)) == 1


async def test_a_user_who_grants_permission_sees_no_alert(app: AppOnPhone, cloud: LocalCloud) -> None:
    await app.do("ask")
    assert await app.do("alerts") == []
    assert len(await registered(cloud, app)) == 1


async def test_a_new_push_token_is_registered_for_the_same_phone(app: AppOnPhone, cloud: LocalCloud) -> None:
    await app.do("registerPhone", {"ask": True})
    [[_, device_id]] = await registered(cloud, app)
    new = f"{app.phone.token[:-5]}new]"
    await app.do("rollToken", new)
    await until(cloud, "select from user_devices where push_token = %s", new)
    assert await registered(cloud, app) == [(new, device_id)]


async def test_registering_waits_and_repeats_after_a_rate_limit_error(cloud: LocalCloud) -> None:
    await change(cloud, "update push.settings set registration_limit = 1, registration_limit_window = '2 seconds'")
    try:
        async with app_on_phone(cloud) as app:  # not started: a start registers, too
            await app.sign_up("Gus")
            await app.do("phone", {"allowed": True})
            assert [await app.do("registerPhone") for _ in range(2)] == ["registered", "registered"]
    finally:
        await change(
            cloud, "update push.settings set registration_limit = default, registration_limit_window = default"
        )


async def test_registering_without_a_profile_fails_with_no_profile(cloud: LocalCloud) -> None:
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
        await app.sign_up("Gus")
        await app.do("tap", of_a_message(app.user_id))
        await app.do("start")
        assert await app.do("visited") == ["/chat/c"]
        assert await app.state("tappedBeforeStart") is None


async def test_a_root_layout_that_is_mounted_twice_opens_a_tap_once(cloud: LocalCloud) -> None:
    """React's StrictMode mounts it twice, at once or one after the other."""
    async with app_on_phone(cloud) as app:
        await app.sign_up("Gus")
        await app.do("tap", of_a_message(app.user_id))
        await app.do("start")
        await app.do("leave")
        await app.do("start")
        await app.do("start")
        assert await app.do("visited") == ["/chat/c"]
        await app.do("tap", of_a_message(app.user_id, date=2))
        assert await app.do("visited") == ["/chat/c"] * 2


async def test_a_push_for_another_account_is_neither_shown_nor_opened(
    app: AppOnPhone, cloud: LocalCloud, tina: Person
) -> None:
    await app.do("registerPhone", {"ask": True})
    _, pushed = await push_from(tina, app, cloud)
    assert pushed["request"]["content"]["data"]["recipientId"] == app.user_id
    assert (await app.do("arrive", pushed))["shouldShowBanner"]
    await app.do("logOut")
    await app.sign_up("Greta")
    assert not any((await app.do("arrive", pushed)).values())
    await app.do("tap", pushed)
    assert await app.do("visited") == []
    assert await app.state("tappedBeforeStart") is None


async def test_a_login_removes_the_notifications_of_another_account(cloud: LocalCloud) -> None:
    """The system shows pushes without the app while it is closed."""
    async with app_on_phone(cloud) as app:
        await app.sign_up("Gus")
        other, own, old = of_a_message(str(uuid4())), of_a_message(app.user_id), of_a_message(None)
        await app.do("phone", {"presented": [other, own, old], "allowed": True})
        await app.do("start")
        await until(cloud, "select from user_devices where user_id = %s and is_active", app.user_id)
        assert await app.state("presented") == [own, old]


async def test_the_conversation_on_the_screen_shows_no_banner(app: AppOnPhone, cloud: LocalCloud, tina: Person) -> None:
    await app.do("registerPhone", {"ask": True})
    conversation, pushed = await push_from(tina, app, cloud)
    assert (await app.do("arrive", pushed))["shouldShowBanner"]
    await app.do("open", conversation)
    assert not (await app.do("arrive", pushed))["shouldShowBanner"]
    await app.do("leave")
    assert (await app.do("arrive", pushed))["shouldShowBanner"]


async def test_leaving_the_first_conversation_late_keeps_the_second_on_the_screen(
    app: AppOnPhone, cloud: LocalCloud, tina: Person
) -> None:
    await app.do("registerPhone", {"ask": True})
    conversation, pushed = await push_from(tina, app, cloud)
    await app.do("switchTo", str(uuid4()), conversation)
    assert not (await app.do("arrive", pushed))["shouldShowBanner"]


async def test_presence_follows_the_screen_and_the_app_state(app: AppOnPhone, cloud: LocalCloud, tina: Person) -> None:
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


async def test_presence_names_the_device(app: AppOnPhone, cloud: LocalCloud, tina: Person) -> None:
    await app.do("registerPhone", {"ask": True})
    [[_, device_id]] = await registered(cloud, app)
    conversation = await app.do("openChat", str(tina.id))
    await app.do("open", conversation)
    reported = "select from private.device_presence where user_id = %s and device_id = %s and is_online = %s"
    await until(cloud, f"{reported} and current_conversation_id = %s", app.user_id, device_id, True, conversation)
    await app.do("moveTo", "background")
    await until(cloud, reported, app.user_id, device_id, False)


def dismissal(app: AppOnPhone, *conversations: str, badge: int = 0, **more: Any) -> dict[str, Any]:
    """The data of a push that removes notifications."""
    ids = list(conversations)
    data = {"type": "chat_message", "kind": "dismiss", "conversationIds": ids, "recipientId": app.user_id}
    return {**data, "badge": badge, **more}


def drawn_by_android(conversation: str) -> dict[str, Any]:
    """A notification as Android returns it that the system has drawn: with its tag, but without its data."""
    identifier = f"expo-notifications://foreign_notifications?tag={conversation}&id=0"
    return {"date": 1, "request": {"identifier": identifier, "content": {"title": "Tina", "body": "Hi"}}}


async def test_the_background_task_removes_what_was_read_elsewhere_and_sets_the_badge(app: AppOnPhone) -> None:
    one, two, three = [of_a_message(app.user_id) for _ in range(3)]
    for name, presented in (("one", one), ("two", two), ("three", three)):
        presented["request"]["identifier"] = name
        presented["request"]["content"]["data"]["conversationId"] = name
    await app.do("phone", {"presented": [one, two, three, drawn_by_android("four"), drawn_by_android("five")]})
    await app.do("pushInBackground", dismissal(app, "one", "three", "five", badge=2))
    assert await app.state("presented") == [two, drawn_by_android("four")]
    assert await app.state("badge") == 2


async def test_the_background_task_sets_a_badge_without_removing_anything(app: AppOnPhone) -> None:
    presented = [drawn_by_android("one")]
    await app.do("phone", {"presented": presented})
    await app.do("pushInBackground", dismissal(app, badge=4, kind="badge"))
    assert (await app.state("presented"), await app.state("badge")) == (presented, 4)


async def test_a_silent_push_for_another_account_changes_nothing(app: AppOnPhone) -> None:
    presented = [drawn_by_android("one")]
    await app.do("phone", {"presented": presented, "badge": 1})
    await app.do("pushInBackground", dismissal(app, "one", badge=4, recipientId=str(uuid4())))
    assert (await app.state("presented"), await app.state("badge")) == (presented, 1)


async def test_a_dismissal_in_the_foreground_is_not_shown(app: AppOnPhone) -> None:
    await app.do("phone", {"presented": [drawn_by_android("one")]})
    arrived = of_a_message(app.user_id)
    arrived["request"]["content"] = {"title": None, "body": None, "data": dismissal(app, "one", badge=1)}
    assert not any((await app.do("arrive", arrived)).values())
    assert (await app.state("presented"), await app.state("badge")) == ([], 1)


async def test_a_changed_text_makes_no_sound_and_no_banner_in_the_foreground(app: AppOnPhone) -> None:
    arrived = of_a_message(app.user_id)
    arrived["request"]["content"]["data"]["kind"] = "update"
    shown = await app.do("arrive", arrived)
    assert (shown["shouldPlaySound"], shown["shouldShowBanner"], shown["shouldShowList"]) == (False, False, True)


async def test_a_return_to_the_app_removes_only_what_was_read_elsewhere_and_sets_the_badge(
    app: AppOnPhone, cloud: LocalCloud, tina: Person
) -> None:
    """The push that says so may be lost: iOS limits such pushes, and starts no app that was swiped away."""
    await app.do("phone", {"allowed": True})
    await app.do("start")
    await until_registration(app, "registered")
    conversation, pushed = await push_from(tina, app, cloud)
    async with chat_app(cloud.supabase, cloud.api_url) as people:
        omar = await people.sign_up("Omar", "tourist")
        other = await app.do("openChat", str(omar.id))
        await omar.send(UUID(other), "Hello")
    await change(cloud, f"update public.chat_messages set is_read = true where room_id = '{conversation}'")
    await app.do("phone", {"presented": [pushed, drawn_by_android(other)], "badge": 2, "badges": []})
    await app.do("moveTo", "background")
    await app.do("moveTo", "active")
    async with asyncio.timeout(30):
        while await app.state("badge") != 1:  # noqa: ASYNC110 - there is no event to await
            await asyncio.sleep(0.05)
    assert await app.state("presented") == [drawn_by_android(other)]
    assert 0 not in await app.state("badges"), "0 would remove every notification of the app on iOS"


async def test_mark_delivered_and_mark_read_change_delivery_message_and_badge(
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
    await app.do("open", conversation, message)
    await until(cloud, "select from chat_messages where id = %s and is_read", message)
    await app.do("markRead", conversation)
    assert (await app.state("badge"), await app.state("presented")) == (0, [])


async def test_the_screen_marks_on_its_device_up_to_the_newest_message_that_it_shows(
    app: AppOnPhone, cloud: LocalCloud, tina: Person
) -> None:
    await app.do("registerPhone", {"ask": True})
    conversation, shown = await push_from(tina, app, cloud)
    _, later = await push_from(tina, app, cloud)
    await app.do("phone", {"presented": [later]})
    [message, unseen] = [pushed["request"]["content"]["data"]["messageId"] for pushed in (shown, later)]
    await app.do("markRead", conversation, message)
    assert (await app.state("badge"), await app.state("presented")) == (1, [later])
    read = "select id::text from chat_messages where room_id = %s and is_read"
    assert await rows(cloud, read, conversation) == [(message,)]
    [[_, device_id]] = await registered(cloud, app)
    read_on = "select read_device_id from message_receipts where message_id = %s"
    assert await rows(cloud, read_on, message) == [(device_id,)]
    await app.do("open", conversation, unseen)
    await until(cloud, "select from chat_messages where id = %s and is_read", unseen)


async def test_a_screen_without_messages_marks_nothing(app: AppOnPhone, cloud: LocalCloud, tina: Person) -> None:
    await app.do("registerPhone", {"ask": True})
    conversation, pushed = await push_from(tina, app, cloud)
    await app.do("open", conversation)
    await app.do("markRead", str(uuid4()))  # The app has sent all earlier requests when this one is answered.
    message = pushed["request"]["content"]["data"]["messageId"]
    assert await rows(cloud, "select from chat_messages where id = %s and not is_read", message)


async def test_mark_read_keeps_the_other_conversations_in_the_badge(
    app: AppOnPhone, cloud: LocalCloud, tina: Person
) -> None:
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


async def test_an_offline_logout_gives_up_the_push_token(cloud: LocalCloud) -> None:
    async with app_on_phone(cloud, EXPO_PUBLIC_CHAT_PUSH_URL=f"http://127.0.0.1:{free_port()}") as app:
        await app.sign_up("Gus")
        await app.do("logOut")
        assert await app.state("registered") is False
        assert await app.do("signedIn") is False


async def test_the_chat_functions_open_send_and_page_a_conversation(
    app: AppOnPhone, cloud: LocalCloud, tina: Person
) -> None:
    conversation = await app.do("openChat", str(tina.id))
    assert await app.do("openChat", str(tina.id)) == conversation
    id = str(uuid4())
    for text in ("Hello", "Hello"):
        await app.do("send", conversation, text, id)
    await tina.send(UUID(conversation), "Hello Gus")
    newest, oldest = await app.do("page", conversation)
    assert [newest["message"], oldest["message"], oldest["client_msg_id"]] == ["Hello Gus", "Hello", id]
    assert await app.do("page", conversation, newest) == [oldest]
    assert await app.do("missed", None) == [oldest, newest]
    assert await app.do("missed", oldest["server_timestamp"], oldest) == [newest]


async def test_retry_after_reads_the_seconds_from_a_rate_limit_error(
    app: AppOnPhone, cloud: LocalCloud, tina: Person
) -> None:
    conversation = await app.do("openChat", str(tina.id))
    await change(cloud, "update private.chat_settings set message_limit = 1, message_batch_limit = 1")
    try:
        assert await app.do("sendOrWait", conversation, "Hello", str(uuid4())) is None
        assert 8 <= await app.do("sendOrWait", conversation, "Hello again", str(uuid4())) <= 10
    finally:
        await change(cloud, "update private.chat_settings set message_limit = default, message_batch_limit = default")


async def test_the_client_passes_every_argument_of_every_function_that_apps_may_call(cloud: LocalCloud) -> None:
    behind_http_api = ("register_device", "unregister_device", "my_devices")
    functions = await rows(
        cloud,
        "select proname, proargnames from pg_proc where pronamespace = 'public'::regnamespace"
        " and has_function_privilege('authenticated', oid, 'execute') and proname <> all(%s)",
        list(behind_http_api),
    )
    client = "".join(file.read_text() for file in (PROJECT / "docs" / "client").glob("*.ts"))
    calls = {
        name: set(re.findall(r"(p_\w+):", body)) for name, body in re.findall(r"rpc\('(\w+)', {(.*?)}", client, re.S)
    }
    assert calls == {name: set(arguments) for name, arguments in functions}
    assert all(f"`{name}`" in (PROJECT / "docs" / "client.md").read_text() for name in behind_http_api)
