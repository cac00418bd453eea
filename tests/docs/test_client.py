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
from local.providers.fcm.state import registration_token
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


async def until_refreshed(app: AppOnPhone) -> None:
    """Wait until the app has compared its notifications with the database, and so has set the badge."""
    async with asyncio.timeout(30):
        while not await app.state("badges"):  # noqa: ASYNC110 - there is no event to await
            await asyncio.sleep(0.05)


async def new_conversation(app: AppOnPhone, cloud: LocalCloud, unread: int) -> str:
    """Another user writes that many messages to Gus. Returns the conversation."""
    async with chat_app(cloud.supabase, cloud.api_url) as people:
        omar = await people.sign_up("Omar", "tourist")
        conversation: str = await app.do("openChat", str(omar.id))
        for _ in range(unread):
            await omar.send(UUID(conversation), "Hello")
    return conversation


async def push_from(tina: Person, app: AppOnPhone, cloud: LocalCloud) -> tuple[str, dict[str, Any]]:
    """Tina writes to Gus. Returns the conversation, and the notification as his phone gets it."""
    conversation = await app.do("openChat", str(tina.id))
    cloud.expo.phones[app.phone.token].channels = frozenset(await app.state("channels"))
    message = await tina.send(UUID(conversation), "Shall we meet at the fountain?")
    await cloud.until_push(message)
    [arrival] = [arrival for arrival in app.phone.shown if arrival.message_id == str(message)]
    return conversation, notification(arrival)


def of_a_message(recipient: str | None, conversation: str = "c", date: int = 1) -> dict[str, Any]:
    """A notification on a phone. Pushes of older versions name no recipient."""
    data = {"type": "chat_message", "conversationId": conversation, "messageId": "m", "senderId": "s"}
    data |= {"recipientId": recipient} if recipient else {}
    identifier = f"of {recipient} in {conversation}"
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
    ("platform", "token", "new", "registration"),
    [
        ("android", registration_token("old"), registration_token("new"), ("fcm", "production")),
        ("ios", "a1" * 32, "a2" * 32, ("apns", "sandbox")),
    ],
)
async def test_a_build_for_native_tokens_registers_them_with_their_provider(
    cloud: LocalCloud, platform: str, token: str, new: str, registration: tuple[str, str]
) -> None:
    found = "select push_provider, push_environment, push_token from user_devices where user_id = %s"
    await change(cloud, "select push.note_providers('{fcm,apns}')")
    try:
        native = {"PHONE_PLATFORM": platform, "EXPO_PUBLIC_CHAT_PUSH_TOKENS": "native", "EAS_PROJECT_ID": ""}
        async with app_on_phone(cloud, **native) as app:
            await app.sign_up("Gus")
            await app.do("phone", {"allowed": True, "nativeToken": token})
            await app.do("start")
            await until(cloud, "select from user_devices where push_token = %s", token)
            assert await rows(cloud, found, app.user_id) == [(*registration, token)]
            await app.do("rollToken", "", new)
            await until(cloud, "select from user_devices where push_token = %s", new)
            assert await rows(cloud, found, app.user_id) == [(*registration, new)]
    finally:
        await change(cloud, "delete from push.providers where provider <> 'expo'")


@pytest.mark.parametrize(
    ("built_with", "named"),
    [
        ({"EXPO_PUBLIC_CHAT_PUSH_TOKENS": "fcm"}, "EXPO_PUBLIC_CHAT_PUSH_TOKENS"),
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
        conversation = await new_conversation(app, cloud, unread=1)
        other, own, old = [of_a_message(user, conversation) for user in (str(uuid4()), app.user_id, None)]
        await app.do("phone", {"presented": [other, own, old], "allowed": True})
        await app.do("start")
        await until_refreshed(app)
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


REPORTED = "select from private.device_presence where user_id = %s and device_id = %s and is_online = %s"


async def test_presence_names_the_device(app: AppOnPhone, cloud: LocalCloud, tina: Person) -> None:
    await app.do("registerPhone", {"ask": True})
    [[_, device_id]] = await registered(cloud, app)
    conversation = await app.do("openChat", str(tina.id))
    await app.do("open", conversation)
    await until(cloud, f"{REPORTED} and current_conversation_id = %s", app.user_id, device_id, True, conversation)
    await app.do("moveTo", "background")
    await until(cloud, REPORTED, app.user_id, device_id, False)


async def test_an_open_app_reports_every_20_seconds_without_a_conversation(app: AppOnPhone, cloud: LocalCloud) -> None:
    await app.do("registerPhone", {"ask": True})
    [[_, device_id]] = await registered(cloud, app)
    for _ in range(2):
        await change(cloud, f"delete from private.device_presence where user_id = '{app.user_id}'")
        await app.do("passSeconds", 20)
        report = f"{REPORTED} and current_conversation_id is null"
        await until(cloud, report, app.user_id, device_id, True)


async def test_an_app_in_the_background_reports_only_once(app: AppOnPhone, cloud: LocalCloud) -> None:
    await app.do("registerPhone", {"ask": True})
    [[_, device_id]] = await registered(cloud, app)
    await app.do("moveTo", "background")
    await until(cloud, REPORTED, app.user_id, device_id, False)
    await change(cloud, f"delete from private.device_presence where user_id = '{app.user_id}'")
    await app.do("passSeconds", 60)
    await app.do("logOut")  # reports after any report of the timer
    assert await rows(cloud, REPORTED, app.user_id, device_id, True) == []


async def test_a_logout_reports_offline(app: AppOnPhone, cloud: LocalCloud, tina: Person) -> None:
    await app.do("registerPhone", {"ask": True})
    [[_, device_id]] = await registered(cloud, app)
    await app.do("open", await app.do("openChat", str(tina.id)))
    await until(cloud, REPORTED, app.user_id, device_id, True)
    await app.do("logOut")
    assert await rows(cloud, REPORTED, app.user_id, device_id, False)


def silent_push(app: AppOnPhone, *conversations: str, kind: str = "dismiss", badge: int, **more: Any) -> dict[str, Any]:
    """The data of a push without a text."""
    ids = {"conversationIds": list(conversations)} if kind == "dismiss" else {}
    return {"type": "chat_message", "kind": kind, "recipientId": app.user_id, "badge": badge, **ids, **more}


def drawn_by_android(conversation: str) -> dict[str, Any]:
    """A notification that Android has drawn, as Android returns it: with its tag, but without its data."""
    identifier = f"expo-notifications://foreign_notifications?tag={conversation}&id=0"
    return {"date": 1, "request": {"identifier": identifier, "content": {"title": "Tina", "body": "Hi"}}}


async def test_a_dismissal_removes_what_was_read_elsewhere_and_sets_the_badge(
    app: AppOnPhone, cloud: LocalCloud
) -> None:
    await until_refreshed(app)
    read = [await new_conversation(app, cloud, unread=0) for _ in range(2)]
    unread = [await new_conversation(app, cloud, unread=number) for number in (1, 2)]
    others = [of_a_message(app.user_id, unread[0]), drawn_by_android(unread[1])]
    presented = [of_a_message(app.user_id, read[0]), drawn_by_android(read[1]), *others]
    await app.do("phone", {"presented": presented, "badges": []})
    await app.do("pushInBackground", silent_push(app, *read, badge=3))
    assert (await app.state("presented"), await app.state("badges")) == (others, [3])


async def test_a_dismissal_removes_an_unread_conversation_without_a_newer_message(
    app: AppOnPhone, cloud: LocalCloud
) -> None:
    """The time to live of its messages is over: they still count in the badge."""
    await until_refreshed(app)
    conversation = await new_conversation(app, cloud, unread=2)
    await app.do("phone", {"presented": [drawn_by_android(conversation)], "badges": []})
    await app.do("pushInBackground", silent_push(app, conversation, badge=2, sentAt="2100-01-01T00:00:00Z"))
    assert (await app.state("presented"), await app.state("badges")) == ([], [2])


async def test_a_dismissal_that_the_system_held_back_keeps_the_notification_of_a_newer_message(
    app: AppOnPhone, cloud: LocalCloud
) -> None:
    """Android delays such a push while the phone is unused, but not the push of a new message."""
    await until_refreshed(app)
    conversation = await new_conversation(app, cloud, unread=1)
    presented = [drawn_by_android(conversation)]
    await app.do("phone", {"presented": presented, "badges": []})
    await app.do("pushInBackground", silent_push(app, conversation, badge=0, sentAt="2026-01-01T00:00:00Z"))
    assert (await app.state("presented"), await app.state("badges")) == (presented, [1])


@pytest.mark.parametrize("state", ["offline", "signed out"])
async def test_a_silent_push_is_believed_if_the_database_cannot_be_asked(app: AppOnPhone, state: str) -> None:
    await until_refreshed(app)
    kept, gone = [drawn_by_android(str(uuid4())) for _ in range(2)]
    if state == "offline":
        await app.do("network", {"isThere": False})
    else:
        await app.do("logOut")
    await app.do("phone", {"presented": [kept, gone], "badges": []})
    [gone_id] = [part[4:] for part in gone["request"]["identifier"].split("?")[1].split("&") if part[:4] == "tag="]
    await app.do("pushInBackground", silent_push(app, gone_id, badge=4))
    assert (await app.state("presented"), await app.state("badges")) == ([kept], [4])


async def test_a_badge_push_sets_the_badge_and_removes_nothing(app: AppOnPhone, cloud: LocalCloud) -> None:
    await until_refreshed(app)
    presented = [drawn_by_android(await new_conversation(app, cloud, unread=4))]
    await app.do("phone", {"presented": presented})
    await app.do("pushInBackground", silent_push(app, kind="badge", badge=4))
    assert (await app.state("presented"), await app.state("badge")) == (presented, 4)


async def test_a_silent_push_for_another_account_changes_nothing(app: AppOnPhone) -> None:
    await until_refreshed(app)
    conversation = str(uuid4())
    presented = [drawn_by_android(conversation)]
    await app.do("phone", {"presented": presented, "badge": 1})
    await app.do("pushInBackground", silent_push(app, conversation, badge=4, recipientId=str(uuid4())))
    assert (await app.state("presented"), await app.state("badge")) == (presented, 1)


async def test_a_badge_push_in_the_foreground_is_not_shown(app: AppOnPhone, cloud: LocalCloud) -> None:
    """On iOS, it comes to the handler of notifications."""
    await until_refreshed(app)
    await new_conversation(app, cloud, unread=1)
    arrived = of_a_message(app.user_id)
    arrived["request"]["content"] = {"title": None, "body": None, "data": silent_push(app, kind="badge", badge=1)}
    assert not any((await app.do("arrive", arrived)).values())
    assert await app.state("badge") == 1


async def test_a_changed_text_makes_no_sound_and_no_banner_in_the_foreground(app: AppOnPhone) -> None:
    arrived = of_a_message(app.user_id)
    arrived["request"]["content"]["data"]["kind"] = "update"
    shown = await app.do("arrive", arrived)
    assert (shown["shouldPlaySound"], shown["shouldShowBanner"], shown["shouldShowList"]) == (False, False, True)


async def test_a_push_in_the_foreground_replaces_the_notification_of_its_conversation(app: AppOnPhone) -> None:
    """In the foreground, expo-notifications ignores the tag on Android."""
    await until_refreshed(app)
    one, two = str(uuid4()), str(uuid4())
    await app.do("phone", {"presented": [drawn_by_android(one), drawn_by_android(two)]})
    await app.do("arrive", of_a_message(app.user_id, one))
    assert await app.state("presented") == [drawn_by_android(two), of_a_message(app.user_id, one)]


async def test_a_return_to_the_app_removes_only_what_was_read_elsewhere_and_sets_the_badge(
    app: AppOnPhone, cloud: LocalCloud
) -> None:
    """The push that says so may be lost: iOS limits such pushes, and starts no app that was swiped away."""
    await until_refreshed(app)
    read, unread = await new_conversation(app, cloud, unread=0), await new_conversation(app, cloud, unread=1)
    of_the_app = {"date": 1, "request": {"identifier": str(uuid4()), "content": {"title": "Tour at 9", "data": {}}}}
    former = drawn_by_android(str(uuid4()))  # of a deleted conversation, or of a former account
    presented = [of_a_message(app.user_id, read), drawn_by_android(unread), former, of_the_app]
    await app.do("phone", {"presented": presented, "badges": []})
    await app.do("moveTo", "background")
    await app.do("moveTo", "active")
    await until_refreshed(app)
    assert await app.state("presented") == [drawn_by_android(unread), of_the_app]
    assert await app.state("badges") == [1], "0 would remove every notification of the app"


async def test_a_notification_that_arrives_while_the_app_reads_what_is_unread_stays(
    app: AppOnPhone, cloud: LocalCloud, tina: Person
) -> None:
    await until_refreshed(app)
    conversation = await app.do("openChat", str(tina.id))
    await app.do("phone", {"badges": []})
    await app.do("holdAnswer")
    await app.do("moveTo", "active")
    await app.do("untilHeld")  # the answer says: nothing is unread
    await tina.send(UUID(conversation), "Hello")
    presented = [drawn_by_android(conversation)]
    await app.do("phone", {"presented": presented})
    await app.do("releaseAnswer")
    await until_refreshed(app)
    assert (await app.state("presented"), await app.state("badges")) == (presented, [1])


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


async def test_a_sync_brings_what_was_sent_edited_deleted_and_marked_since_the_cursor(
    app: AppOnPhone, cloud: LocalCloud, tina: Person
) -> None:
    cursor = await app.do("firstCursor")
    assert await app.do("sync", cursor) == []
    conversation = UUID(await app.do("openChat", str(tina.id)))
    edited, deleted = await tina.send(conversation, "Hello"), await tina.send(conversation, "Hello?")
    await app.do("send", str(conversation), "Hi", str(uuid4()))
    (first,) = await app.do("sync", cursor)
    assert [message["message"] for message in first["messages"]] == ["Hello", "Hello?", "Hi"]

    await tina.edit(edited, "Hello Gus")
    await tina.delete(deleted)
    await tina.read(conversation)
    (second,) = await app.do("sync", first["cursor"])
    assert [(message["message"], message["is_read"]) for message in second["messages"]] == [
        ("Hello Gus", False),
        ("", False),
        ("Hi", True),
    ]
    assert second["cursor"] == second["messages"][-1]["changed_at"] > first["cursor"]


async def test_a_sync_stores_each_page_with_its_cursor(app: AppOnPhone, cloud: LocalCloud, tina: Person) -> None:
    cursor = await app.do("firstCursor")
    conversation = await app.do("openChat", str(tina.id))
    await change(
        cloud,
        "insert into chat_messages (room_id, sender_id, message)"
        f" select '{conversation}', '{tina.id}', n::text from generate_series(1, 501) n",
    )
    first, second = await app.do("sync", cursor)
    assert {message["message"] for page in (first, second) for message in page["messages"]} == {
        str(n) for n in range(1, 502)
    }
    assert [len(page["messages"]) for page in (first, second)] == [500, 1]
    assert first["cursor"] == first["messages"][-1]["changed_at"]


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
    # The HTTP API stands before the first three, and sync in the place of the last.
    not_called = ("register_device", "unregister_device", "my_devices", "get_missed_messages")
    functions = await rows(
        cloud,
        "select proname, coalesce(proargnames, '{}') from pg_proc where pronamespace = 'public'::regnamespace"
        " and has_function_privilege('authenticated', oid, 'execute') and proname <> all(%s)",
        list(not_called),
    )
    client = "".join(file.read_text() for file in (PROJECT / "docs" / "client").glob("*.ts"))
    calls = {
        name: set(re.findall(r"(p_\w+):", body))
        for name, body in re.findall(r"rpc\('(\w+)'(?:, {(.*?)})?\)", client, re.S)
    }
    # The names also have the columns of what a function returns.
    assert calls == {name: {each for each in names if each.startswith("p_")} for name, names in functions}
    assert all(f"`{name}`" in (PROJECT / "docs" / "client.md").read_text() for name in not_called)
