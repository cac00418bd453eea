"""The pushes of chat-push-client in an app, against the local cloud. Only the native modules of Expo are stand-ins."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from local.app import Person
from local.cloud import LocalCloud
from local.packages import NODE_MODULES, node
from local.processes import free_port, run
from local.providers.fcm.state import registration_token
from tests.node_app import AppError
from tests.system.chat import execute
from tests.system.expo_phone import APP, ExpoPhone, expo_phone, notification


@pytest.fixture
def tina(people: dict[str, Person]) -> Person:
    """A tourist who writes to the user of the app."""
    return people["tina"]


@pytest.fixture
def omar(people: dict[str, Person]) -> Person:
    """Another one."""
    return people["omar"]


@pytest.fixture
async def app(cloud: LocalCloud) -> AsyncIterator[ExpoPhone]:
    """The app, started, with Gus signed in."""
    async with expo_phone(cloud) as app:
        await app.sign_up("Gus")
        await app.do("follow")
        yield app


async def rows(cloud: LocalCloud, query: str, *parameters: Any) -> list[Any]:
    async with await psycopg.AsyncConnection.connect(cloud.database_url) as connection:
        return await (await connection.execute(query.encode(), parameters)).fetchall()


async def registered(cloud: LocalCloud, app: ExpoPhone) -> list[Any]:
    """Push token and device id of the active phones of the app's user."""
    query = "select push_token, device_id from user_devices where user_id = %s and is_active"
    return await rows(cloud, query, app.user_id)


async def until(cloud: LocalCloud, query: str, *parameters: Any) -> None:
    """Wait until the query returns a row."""
    async with (
        asyncio.timeout(30),
        await psycopg.AsyncConnection.connect(cloud.database_url, autocommit=True) as database,
    ):
        while not (await database.execute(query.encode(), parameters)).rowcount:  # noqa: ASYNC110 - no event says it
            await asyncio.sleep(0.05)


async def until_does(app: ExpoPhone, command: str, expected: Any) -> None:
    """Wait until a command of the app returns this."""
    async with asyncio.timeout(30):
        while await app.do(command) != expected:  # noqa: ASYNC110 - there is no event to await
            await asyncio.sleep(0.05)


async def until_registration(app: ExpoPhone, reason: str | None) -> None:
    """Wait until the phone is registered, or until it is not for this reason."""
    await until_does(app, "status", {"isRegistered": reason is None, "reason": reason})


async def until_refreshed(app: ExpoPhone) -> None:
    """Wait until the app has compared its notifications with the server, and so has set the badge."""
    async with asyncio.timeout(30):
        while not await app.state("badges"):  # noqa: ASYNC110 - there is no event to await
            await asyncio.sleep(0.05)


async def new_conversation(app: ExpoPhone, partner: Person, unread: int) -> str:
    """The partner writes that many messages to Gus. Returns the conversation."""
    conversation: str = await app.do("openChat", str(partner.id))
    for _ in range(unread):
        await partner.send(UUID(conversation), "Hello")
    return conversation


async def push_from(tina: Person, app: ExpoPhone, cloud: LocalCloud) -> tuple[str, dict[str, Any]]:
    """Tina writes to Gus. Returns the conversation, and the notification as his phone gets it."""
    conversation = await app.do("openChat", str(tina.id))
    cloud.expo.phones[app.phone.token].channels = frozenset(await app.state("channels"))
    message = await tina.send(UUID(conversation), "Shall we meet at the fountain?")
    await cloud.until_push(message)
    [arrival] = [arrival for arrival in app.phone.shown if arrival.message_id == str(message)]
    return conversation, notification(arrival)


def of_a_message(recipient: str | None, conversation: str | None = None, date: int = 1) -> dict[str, Any]:
    """A notification on a phone. Pushes of older versions name no recipient."""
    conversation = conversation or "11111111-1111-4111-8111-111111111111"
    data = {"type": "chat_message", "conversationId": conversation, "messageId": str(uuid4()), "senderId": str(uuid4())}
    data |= {"recipientId": recipient} if recipient else {}
    identifier = f"of {recipient} in {conversation}"
    return {
        "date": date,
        "request": {"identifier": identifier, "content": {"title": "Tina", "body": "Hi", "data": data}},
    }


def silent_push(app: ExpoPhone, *conversations: str, kind: str = "dismiss", badge: int, **more: Any) -> dict[str, Any]:
    """The data of a push without a text."""
    ids = {"conversationIds": list(conversations)} if kind == "dismiss" else {}
    return {"type": "chat_message", "kind": kind, "recipientId": app.user_id, "badge": badge, **ids, **more}


def drawn_by_android(conversation: str) -> dict[str, Any]:
    """A notification that Android has drawn, as Android returns it: with its tag, but without its data."""
    identifier = f"expo-notifications://foreign_notifications?tag={conversation}&id=0"
    return {"date": 1, "request": {"identifier": identifier, "content": {"title": "Tina", "body": "Hi"}}}


async def test_the_stand_ins_have_the_types_of_expo(tmp_path: Path) -> None:
    await run("tsc", node(), NODE_MODULES / "typescript" / "bin" / "tsc", "--project", APP, folder=tmp_path)


# Registration ---------------------------------------------------------------------------------------


async def test_asking_shows_the_permission_dialog_once(app: ExpoPhone, cloud: LocalCloud) -> None:
    await until_registration(app, "not_asked")
    await app.do("ask")
    [[token, device_id]] = await registered(cloud, app)
    assert (token, device_id) == (app.phone.token, await app.do("deviceId"))
    await app.do("ask")
    assert await registered(cloud, app) == [(token, device_id)]
    assert await app.state("asked") == 1
    assert set(await app.state("channels")) == {"chat-messages", "chat-messages-quiet"}


async def test_a_user_who_denies_permission_is_not_registered(app: ExpoPhone, cloud: LocalCloud) -> None:
    await app.do("phone", {"answer": False})
    with pytest.raises(AppError) as refused:
        await app.do("ask")
    assert (refused.value.name, refused.value.code) == ("PushUnavailable", "denied")
    assert await registered(cloud, app) == []


async def test_each_start_registers_a_phone_with_permission(cloud: LocalCloud) -> None:
    async with expo_phone(cloud) as app:
        await app.sign_up("Gus")
        await app.do("phone", {"allowed": True})
        await app.do("start")
        await until_registration(app, None)
        assert len(await registered(cloud, app)) == 1


async def test_each_sign_in_registers_a_phone_with_permission(cloud: LocalCloud) -> None:
    async with expo_phone(cloud) as app:
        await app.do("phone", {"allowed": True})
        await app.do("start")
        await app.sign_up("Gus")
        await until(cloud, "select from user_devices where user_id = %s and is_active", app.user_id)


@pytest.mark.parametrize(
    ("platform", "token", "new", "registration"),
    [
        ("android", registration_token("old"), registration_token("new"), ("fcm", "production")),
        ("ios", "a1" * 32, "a2" * 32, ("apns", "sandbox")),
    ],
)
async def test_native_tokens_are_registered_with_their_provider(
    cloud: LocalCloud, platform: str, token: str, new: str, registration: tuple[str, str]
) -> None:
    found = "select push_provider, push_environment, push_token from user_devices where user_id = %s"
    await execute(cloud, "select push.note_providers('{fcm,apns}')")
    try:
        native = {"PHONE_PLATFORM": platform, "TOKENS": "native", "EAS_PROJECT_ID": ""}
        async with expo_phone(cloud, **native) as app:
            await app.sign_up("Gus")
            await app.do("phone", {"allowed": True, "nativeToken": token})
            await app.do("start")
            await until(cloud, "select from user_devices where push_token = %s", token)
            assert await rows(cloud, found, app.user_id) == [(*registration, token)]
            await app.do("rollToken", "", new)
            await until(cloud, "select from user_devices where push_token = %s", new)
            assert await rows(cloud, found, app.user_id) == [(*registration, new)]
    finally:
        await execute(cloud, "delete from push.providers where provider <> 'expo'")


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"EAS_PROJECT_ID": ""}, "no_project_id"),
        ({"PHONE": "simulator"}, "simulator"),
        ({"PHONE": "Expo Go"}, "expo_go"),
        ({"PHONE": "Expo Go", "MISSING": "expo-notifications"}, "expo_go"),  # its import throws there, on Android
        ({"MISSING": "expo-task-manager"}, "missing_module"),
        ({"PHONE_PLATFORM": "web"}, "web"),
    ],
)
async def test_a_phone_that_can_get_no_pushes_says_why(
    cloud: LocalCloud, environment: dict[str, str], reason: str
) -> None:
    async with expo_phone(cloud, **environment) as app:
        await app.sign_up("Gus")
        await app.do("start")
        await until_registration(app, reason)
        with pytest.raises(AppError) as refused:
            await app.do("ask")
        assert (refused.value.name, refused.value.code) == ("PushUnavailable", reason)


@pytest.mark.parametrize("environment", [{"MISSING": "expo-notifications"}, {"PHONE_PLATFORM": "web"}], ids=str)
async def test_an_app_that_can_have_no_pushes_chats_and_signs_out(
    cloud: LocalCloud, tina: Person, environment: dict[str, str]
) -> None:
    async with expo_phone(cloud, **environment) as app:
        await app.sign_up("Gus")
        await app.do("follow")
        conversation = await app.do("openChat", str(tina.id))
        await tina.send(UUID(conversation), "Hello")
        await app.do("sync")
        assert await app.do("unread", conversation) == 1
        await app.do("signOut")
        assert not await app.do("signedIn")


async def test_an_iphone_with_provisional_permission_is_registered_without_a_dialog(cloud: LocalCloud) -> None:
    async with expo_phone(cloud, PHONE_PLATFORM="ios", PROVISIONAL="yes") as app:
        await app.sign_up("Gus")
        await app.do("start")
        await until_registration(app, None)
        assert (await app.state("asked"), await app.state("provisional")) == (0, True)


async def test_the_api_url_may_end_with_a_slash(cloud: LocalCloud) -> None:
    async with expo_phone(cloud, EXPO_PUBLIC_CHAT_PUSH_URL=f"{cloud.api_url}/") as app:
        await app.sign_up("Gus")
        await app.do("ask")
        assert len(await registered(cloud, app)) == 1


async def test_a_user_who_allows_pushes_in_the_settings_is_registered_on_return(
    app: ExpoPhone, cloud: LocalCloud
) -> None:
    await app.do("phone", {"answer": False})
    with pytest.raises(AppError):
        await app.do("ask")
    await app.do("phone", {"allowed": True})
    await app.do("moveTo", "background")
    await app.do("moveTo", "active")
    await until_registration(app, None)
    assert len(await registered(cloud, app)) == 1


async def test_a_new_push_token_is_registered_for_the_same_phone(app: ExpoPhone, cloud: LocalCloud) -> None:
    await app.do("ask")
    [[_, device_id]] = await registered(cloud, app)
    new = f"{app.phone.token[:-5]}new]"
    await app.do("rollToken", new)
    await until(cloud, "select from user_devices where push_token = %s", new)
    assert await registered(cloud, app) == [(new, device_id)]


async def test_a_registration_in_the_background_waits_and_repeats_after_a_rate_limit_error(
    app: ExpoPhone, cloud: LocalCloud
) -> None:
    await until_registration(app, "not_asked")
    await execute(cloud, "update push.settings set registration_limit = 1, registration_limit_window = '2 seconds'")
    try:
        await app.do("ask")
        new = f"{app.phone.token[:-5]}new]"
        await app.do("rollToken", new)
        await until(cloud, "select from user_devices where push_token = %s", new)
    finally:
        await execute(
            cloud, "update push.settings set registration_limit = default, registration_limit_window = default"
        )


async def test_registering_without_a_profile_fails_with_no_profile(cloud: LocalCloud) -> None:
    async with expo_phone(cloud) as app:
        app.user_id = await app.do("signUp", f"{app.phone.token[18:28].lower()}@example.com", "a long password")
        with pytest.raises(AppError) as refused:
            await app.do("ask")
        assert (refused.value.name, refused.value.code) == ("Rejected", "no_profile")
        await app.do("createProfile", "Gus")
        await app.do("register")
        assert len(await registered(cloud, app)) == 1


async def test_a_restored_backup_brings_no_device_id_to_another_phone(app: ExpoPhone) -> None:
    device_id = await app.do("deviceId")
    assert await app.do("newDeviceId") == device_id
    await app.do("restoreBackup")
    assert await app.do("newDeviceId") != device_id


# Taps -----------------------------------------------------------------------------------------------


async def test_a_push_opens_its_conversation_once(app: ExpoPhone, cloud: LocalCloud, tina: Person) -> None:
    await app.do("ask")
    conversation, pushed = await push_from(tina, app, cloud)
    await app.do("tap", pushed)
    assert await app.do("opened") == [conversation]
    assert await app.state("tappedBeforeStart") is None


async def test_the_tap_that_starts_the_app_opens_its_conversation_once(cloud: LocalCloud) -> None:
    async with expo_phone(cloud) as app:
        await app.sign_up("Gus")
        await app.do("tap", of_a_message(app.user_id))
        await app.do("follow")
        await until_does(app, "opened", ["11111111-1111-4111-8111-111111111111"])
        assert await app.state("tappedBeforeStart") is None


async def test_a_root_layout_that_is_mounted_twice_opens_a_tap_once(cloud: LocalCloud) -> None:
    """React's StrictMode mounts it twice, at once or one after the other."""
    async with expo_phone(cloud) as app:
        await app.sign_up("Gus")
        await app.do("tap", of_a_message(app.user_id))
        await app.do("startTwice")
        await app.do("follow")
        opened = ["11111111-1111-4111-8111-111111111111"]
        await until_does(app, "opened", opened)
        await app.do("tap", of_a_message(app.user_id, date=2))
        assert await app.do("opened") == opened * 2


async def test_a_push_for_another_account_is_neither_shown_nor_opened(
    app: ExpoPhone, cloud: LocalCloud, tina: Person
) -> None:
    await app.do("ask")
    _, pushed = await push_from(tina, app, cloud)
    assert pushed["request"]["content"]["data"]["recipientId"] == app.user_id
    assert (await app.do("arrive", pushed))["shouldShowBanner"]
    await app.do("signOut")
    await app.sign_up("Greta")
    assert not any((await app.do("arrive", pushed)).values())
    await app.do("tap", pushed)
    assert await app.do("opened") == []
    assert await app.state("tappedBeforeStart") is None


# Presence -------------------------------------------------------------------------------------------

REPORTED = "select from private.device_presence where user_id = %s and device_id = %s and is_online = %s"


async def test_presence_names_the_device(app: ExpoPhone, cloud: LocalCloud, tina: Person) -> None:
    await app.do("ask")
    [[_, device_id]] = await registered(cloud, app)
    conversation = await app.do("openChat", str(tina.id))
    await app.do("lookAt", conversation)
    await until(cloud, f"{REPORTED} and current_conversation_id = %s", app.user_id, device_id, True, conversation)
    await app.do("moveTo", "background")
    await until(cloud, REPORTED, app.user_id, device_id, False)
    await app.do("moveTo", "active")
    await until(cloud, f"{REPORTED} and current_conversation_id = %s", app.user_id, device_id, True, conversation)


async def test_an_open_app_reports_again_and_again(app: ExpoPhone, cloud: LocalCloud) -> None:
    await app.do("ask")
    [[_, device_id]] = await registered(cloud, app)
    for _ in range(2):
        await execute(cloud, f"delete from private.device_presence where user_id = '{app.user_id}'")
        await until(cloud, f"{REPORTED} and current_conversation_id is null", app.user_id, device_id, True)


async def test_an_app_that_the_system_starts_in_the_background_is_not_online(cloud: LocalCloud) -> None:
    async with expo_phone(cloud, STARTED="in the background") as app:
        await app.sign_up("Gus")
        await app.do("phone", {"allowed": True})
        await app.do("start")
        await app.do("pushInBackground", silent_push(app, kind="badge", badge=0))
        assert await rows(cloud, "select from user_presence where user_id = %s and is_online", app.user_id) == []
        assert await registered(cloud, app) == []
        await app.do("moveTo", "active")
        await until(cloud, "select from user_presence where user_id = %s and is_online", app.user_id)
        await until_registration(app, None)


async def test_a_sign_out_ends_the_presence_of_the_device(app: ExpoPhone, cloud: LocalCloud, tina: Person) -> None:
    await app.do("ask")
    [[_, device_id]] = await registered(cloud, app)
    await app.do("lookAt", await app.do("openChat", str(tina.id)))
    await until(cloud, REPORTED, app.user_id, device_id, True)
    await app.do("signOut")
    assert await rows(cloud, REPORTED, app.user_id, device_id, True) == []


# Notifications --------------------------------------------------------------------------------------


async def test_a_start_removes_the_notifications_of_another_account(cloud: LocalCloud, omar: Person) -> None:
    """The system shows pushes without the app while it is closed."""
    async with expo_phone(cloud) as app:
        await app.sign_up("Gus")
        conversation = await new_conversation(app, omar, unread=1)
        other, own, old = [of_a_message(user, conversation) for user in (str(uuid4()), app.user_id, None)]
        await app.do("phone", {"presented": [other, own, old], "allowed": True})
        await app.do("start")
        await until_refreshed(app)
        assert await app.state("presented") == [own, old]


async def test_the_conversation_on_the_screen_shows_no_banner(app: ExpoPhone, cloud: LocalCloud, tina: Person) -> None:
    await app.do("ask")
    conversation, pushed = await push_from(tina, app, cloud)
    assert (await app.do("arrive", pushed))["shouldShowBanner"]
    await app.do("lookAt", conversation)
    assert not (await app.do("arrive", pushed))["shouldShowBanner"]
    await app.do("lookAt", None)
    assert (await app.do("arrive", pushed))["shouldShowBanner"]


async def test_a_dismissal_removes_what_was_read_elsewhere_and_sets_the_badge(
    app: ExpoPhone, people: dict[str, Person]
) -> None:
    await until_refreshed(app)
    tina, gus, omar, greta = people.values()
    read = [await new_conversation(app, partner, unread=0) for partner in (tina, gus)]
    unread = [await new_conversation(app, omar, unread=1), await new_conversation(app, greta, unread=2)]
    others = [of_a_message(app.user_id, unread[0]), drawn_by_android(unread[1])]
    presented = [of_a_message(app.user_id, read[0]), drawn_by_android(read[1]), *others]
    await app.do("phone", {"presented": presented, "badges": []})
    await app.do("pushInBackground", silent_push(app, *read, badge=3))
    assert (await app.state("presented"), (await app.state("badges"))[-1]) == (others, 3)


async def test_a_dismissal_removes_an_unread_conversation_without_a_newer_message(app: ExpoPhone, omar: Person) -> None:
    """The time to live of its messages is over: they still count in the badge."""
    await until_refreshed(app)
    conversation = await new_conversation(app, omar, unread=2)
    await app.do("phone", {"presented": [drawn_by_android(conversation)], "badges": []})
    await app.do("pushInBackground", silent_push(app, conversation, badge=2, sentAt="2100-01-01T00:00:00Z"))
    assert (await app.state("presented"), (await app.state("badges"))[-1]) == ([], 2)


async def test_a_dismissal_that_the_system_held_back_keeps_the_notification_of_a_newer_message(
    app: ExpoPhone, omar: Person
) -> None:
    """Android delays such a push while the phone is unused, but not the push of a new message."""
    await until_refreshed(app)
    conversation = await new_conversation(app, omar, unread=1)
    presented = [drawn_by_android(conversation)]
    await app.do("phone", {"presented": presented, "badges": []})
    await app.do("pushInBackground", silent_push(app, conversation, badge=0, sentAt="2026-01-01T00:00:00Z"))
    assert (await app.state("presented"), (await app.state("badges"))[-1]) == (presented, 1)


@pytest.mark.parametrize("state", ["offline", "signed out"])
async def test_a_silent_push_is_believed_if_the_server_cannot_be_asked(app: ExpoPhone, state: str) -> None:
    await until_refreshed(app)
    kept, gone = str(uuid4()), str(uuid4())
    if state == "offline":
        await app.do("network", {"isThere": False})
    else:
        await app.do("signOut")
    await app.do("phone", {"presented": [drawn_by_android(kept), drawn_by_android(gone)], "badges": []})
    await app.do("pushInBackground", silent_push(app, gone, badge=4))
    assert (await app.state("presented"), await app.state("badges")) == ([drawn_by_android(kept)], [4])


async def test_a_badge_push_sets_the_badge_and_removes_nothing(app: ExpoPhone, omar: Person) -> None:
    await until_refreshed(app)
    presented = [drawn_by_android(await new_conversation(app, omar, unread=4))]
    await app.do("phone", {"presented": presented})
    await app.do("pushInBackground", silent_push(app, kind="badge", badge=4))
    assert (await app.state("presented"), await app.state("badge")) == (presented, 4)


async def test_a_silent_push_for_another_account_changes_nothing(app: ExpoPhone) -> None:
    await until_refreshed(app)
    conversation = str(uuid4())
    presented = [drawn_by_android(conversation)]
    await app.do("phone", {"presented": presented, "badge": 1})
    await app.do("pushInBackground", silent_push(app, conversation, badge=4, recipientId=str(uuid4())))
    assert (await app.state("presented"), await app.state("badge")) == (presented, 1)


async def test_a_badge_push_in_the_foreground_is_not_shown(app: ExpoPhone, omar: Person) -> None:
    """On iOS, it comes to the handler of notifications."""
    await until_refreshed(app)
    await new_conversation(app, omar, unread=1)
    arrived = of_a_message(app.user_id)
    arrived["request"]["content"] = {"title": None, "body": None, "data": silent_push(app, kind="badge", badge=1)}
    assert not any((await app.do("arrive", arrived)).values())
    assert await app.state("badge") == 1


async def test_a_changed_text_makes_no_sound_and_no_banner_in_the_foreground(app: ExpoPhone) -> None:
    arrived = of_a_message(app.user_id)
    arrived["request"]["content"]["data"]["kind"] = "update"
    shown = await app.do("arrive", arrived)
    assert (shown["shouldPlaySound"], shown["shouldShowBanner"], shown["shouldShowList"]) == (False, False, True)


async def test_a_push_in_the_foreground_replaces_the_notification_of_its_conversation(app: ExpoPhone) -> None:
    """In the foreground, expo-notifications ignores the tag on Android."""
    await until_refreshed(app)
    one, two = str(uuid4()), str(uuid4())
    await app.do("phone", {"presented": [drawn_by_android(one), drawn_by_android(two)]})
    arrived = of_a_message(app.user_id, one)
    await app.do("arrive", arrived)
    assert await app.state("presented") == [drawn_by_android(two), arrived]


async def test_a_return_to_the_app_removes_only_what_was_read_elsewhere_and_sets_the_badge(
    app: ExpoPhone, omar: Person, tina: Person
) -> None:
    """The push that says so may be lost: iOS limits such pushes, and starts no app that was swiped away."""
    await until_refreshed(app)
    read, unread = await new_conversation(app, tina, unread=0), await new_conversation(app, omar, unread=1)
    await app.do("moveTo", "background")
    of_the_app = {"date": 1, "request": {"identifier": str(uuid4()), "content": {"title": "Tour at 9", "data": {}}}}
    former = drawn_by_android(str(uuid4()))  # of a deleted conversation, or of a former account
    presented = [of_a_message(app.user_id, read), drawn_by_android(unread), former, of_the_app]
    await app.do("phone", {"presented": presented, "badges": []})
    await app.do("moveTo", "active")
    await until_refreshed(app)
    assert await app.state("presented") == [drawn_by_android(unread), of_the_app]
    assert set(await app.state("badges")) == {1}, "0 would remove every notification of the app"


async def test_a_notification_that_arrives_while_the_app_reads_what_is_unread_stays(
    app: ExpoPhone, tina: Person
) -> None:
    await until_refreshed(app)
    conversation = await app.do("openChat", str(tina.id))
    await app.do("moveTo", "background")
    await app.do("phone", {"badges": []})
    await app.do("holdAnswer")
    await app.do("moveTo", "active")
    await app.do("untilHeld")  # the answer says: nothing is unread
    await tina.send(UUID(conversation), "Hello")
    presented = [drawn_by_android(conversation)]
    await app.do("phone", {"presented": presented})
    await app.do("releaseAnswer")
    await until_refreshed(app)
    assert (await app.state("presented"), (await app.state("badges"))[-1]) == (presented, 1)


async def test_a_permission_that_was_taken_back_in_the_settings_of_the_system_is_reported_at_the_next_return(
    app: ExpoPhone,
) -> None:
    await app.do("ask")
    await app.do("moveTo", "background")
    await app.do("phone", {"allowed": False})
    await app.do("moveTo", "active")
    await until_registration(app, "denied")


async def test_reading_on_this_phone_removes_the_notification_and_sets_the_badge(
    app: ExpoPhone, cloud: LocalCloud, tina: Person, omar: Person
) -> None:
    await app.do("ask")
    other = await new_conversation(app, omar, unread=2)
    _, shown = await push_from(tina, app, cloud)
    _, later = await push_from(tina, app, cloud)
    await app.do("sync")
    await app.do("phone", {"presented": [later, drawn_by_android(other)], "badges": []})
    [message, unseen] = [pushed["request"]["content"]["data"]["messageId"] for pushed in (shown, later)]
    await app.do("markRead", message)
    await until_refreshed(app)
    assert (await app.state("badge"), await app.state("presented")) == (3, [later, drawn_by_android(other)])
    await app.do("phone", {"badges": []})
    await app.do("markRead", unseen)
    await until_refreshed(app)
    assert (await app.state("badge"), await app.state("presented")) == (2, [drawn_by_android(other)])
    await until(cloud, "select from chat_messages where id = %s and is_read", unseen)
    [[_, device_id]] = await registered(cloud, app)
    read_on = "select read_device_id from message_receipts where message_id = %s"
    assert await rows(cloud, read_on, message) == [(device_id,)]


# Sign-out -------------------------------------------------------------------------------------------


async def test_a_sign_out_unregisters_the_phone(app: ExpoPhone, cloud: LocalCloud) -> None:
    await app.do("ask")
    await app.do("phone", {"presented": [drawn_by_android(str(uuid4()))], "badge": 3})
    await app.do("signOut")
    assert await registered(cloud, app) == []
    assert await app.do("signedIn") is False
    assert (await app.state("presented"), await app.state("badge")) == ([], 0)
    with pytest.raises(AppError, match="NotSignedIn"):
        await app.do("register")


async def test_a_sign_out_without_the_api_gives_up_the_push_token(cloud: LocalCloud) -> None:
    async with expo_phone(cloud, EXPO_PUBLIC_CHAT_PUSH_URL=f"http://127.0.0.1:{free_port()}") as app:
        await app.sign_up("Gus")
        await app.do("signOut")
        assert await app.state("registered") is False
        assert await app.do("signedIn") is False


async def test_a_phone_that_cannot_give_up_its_token_stays_signed_in(cloud: LocalCloud) -> None:
    """Otherwise it would show the messages of this account to the next user."""
    async with expo_phone(cloud, EXPO_PUBLIC_CHAT_PUSH_URL=f"http://127.0.0.1:{free_port()}") as app:
        await app.sign_up("Gus")
        await app.do("phone", {"canGiveUpToken": False})
        with pytest.raises(AppError, match="ServerUnreachable"):
            await app.do("signOut")
        assert await app.do("signedIn") is True
        await until(cloud, "select from user_presence where user_id = %s and is_online", app.user_id)
