"""One person with phones of all providers: Expo, FCM and APNs. End to end on fake phones."""

import asyncio
import json

import pytest

from local.app import new_phone
from local.providers.apns.faults import GoAway
from local.providers.expo.faults import HttpError
from local.providers.fcm.faults import FcmError
from local.providers.phones import Phone
from tests.system.chat import Chat

pytestmark = pytest.mark.usefixtures("direct")


@pytest.fixture
async def phones(chat: Chat) -> list[Phone]:
    """Gus's phones: by Expo, an Android phone by FCM, an iPhone by APNs, and a browser by FCM."""
    new = [new_phone(chat.cloud.fcm, "android"), new_phone(chat.cloud.apns, "ios"), new_phone(chat.cloud.fcm, "web")]
    for phone in new:
        await chat.gus.log_in_on(phone, device_id=phone.token)
    return [chat.phone, *new]


def shown(phone: Phone) -> list[tuple[object, object]]:
    return [(arrival.message["title"], arrival.message["body"]) for arrival in phone.shown]


async def until_shown(chat: Chat, phones: list[Phone], *notifications: tuple[str, str], badge: int) -> None:
    """Waits until each phone shows just these notifications, each as title and body, and was told this badge."""

    async def on(phone: Phone) -> None:
        expected = ([*notifications], badge)
        try:
            await chat.cloud.service_of(phone).until(lambda: (shown(phone), phone.told_badge) == expected)
        except TimeoutError:
            raise AssertionError(f"{phone.provider}: {shown(phone)}, badge {phone.told_badge}") from None

    await asyncio.gather(*map(on, phones))


async def test_one_message_reaches_the_lock_screens_of_all_providers_in_one_attempt(
    chat: Chat, phones: list[Phone]
) -> None:
    job = await chat.until_done(await chat.send("Hello"))
    await until_shown(chat, phones, ("Tina", "Hello"), badge=1)
    assert (job["outcome"], job["attempts"]) == ("accepted", 1)
    assert [len(phone.sounds) for phone in phones] == [1] * len(phones)
    statuses = {delivery["device_id"]: delivery["status"] for delivery in job["deliveries"]}
    assert [statuses[phone.token] for phone in phones] == ["accepted", *["handed_over"] * 3]
    tickets = {delivery["device_id"]: delivery["ticket_id"] for delivery in job["deliveries"]}
    assert tickets == {phone.token: phone.arrived[0].ticket_id for phone in phones}
    metrics = [line for line in chat.cloud.functions["SendChatPush"].log_lines() if '"DirectAccepted"' in line]
    assert {json.loads(line)["provider"] for line in metrics} == {"fcm", "apns"}


async def test_phones_of_all_providers_follow_an_edit_and_a_deletion(chat: Chat, phones: list[Phone]) -> None:
    message = await chat.send("Hello")
    await until_shown(chat, phones, ("Tina", "Hello"), badge=1)
    await chat.until_done(message)
    await chat.tina.edit(message, "Hello Gus")
    await until_shown(chat, phones, ("Tina", "Hello Gus"), badge=1)
    await chat.tina.delete(message)
    await until_shown(chat, phones, badge=0)


@pytest.mark.parametrize("reader", range(4), ids=["expo", "fcm", "apns", "browser"])
async def test_a_read_on_a_phone_of_one_provider_clears_the_phones_of_all_others(
    chat: Chat, phones: list[Phone], reader: int
) -> None:
    await chat.until_done(await chat.send("Hello"))
    await until_shown(chat, phones, ("Tina", "Hello"), badge=1)
    own = phones.pop(reader)
    chat.cloud.service_of(own).open_app(own.token, [], badge=0)
    await chat.gus.read(chat.id, device_id=own.token)
    await until_shown(chat, phones, badge=0)
    assert len(own.arrived) == 1, "the reader gets no further push"


@pytest.mark.parametrize("down", ["expo", "fcm", "apns"])
async def test_a_provider_that_is_down_does_not_delay_the_others(chat: Chat, phones: list[Phone], down: str) -> None:
    cloud = chat.cloud
    match down:
        case "expo":
            cloud.expo.script(HttpError(status=503), times=1_000_000)
        case "fcm":
            cloud.fcm.script(FcmError(error="UNAVAILABLE"), times=1_000_000)
        case _:
            cloud.apns.script(GoAway(variant="nothing_handled"), times=1_000_000)
    of_others = [phone for phone in phones if phone.provider != down]
    for number, text in enumerate(("One", "Two"), 1):
        message = await chat.send(text)
        lines = "\n".join(("Two", "One")[-number:])
        await until_shown(chat, of_others, ("Tina" + (f" ({number})" if number > 1 else ""), lines), badge=number)
    assert [phone.arrived for phone in phones if phone.provider == down] == [[]] * (len(phones) - len(of_others))
    for service in (cloud.expo, cloud.fcm, cloud.apns):
        service.faults.scripts.clear()
    await chat.until_done(message, sweep=True)
    await until_shown(chat, phones, ("Tina (2)", "Two\nOne"), badge=2)


async def test_a_removed_app_ends_the_device_of_its_provider_alone(chat: Chat, phones: list[Phone]) -> None:
    _, pixel, iphone, _ = phones
    chat.cloud.fcm.uninstall(pixel.token)
    chat.cloud.apns.uninstall(iphone.token)
    await chat.until_done(await chat.send("Hello"))
    await chat.cloud.scheduler.fire("CleanupReceiptsRun")
    devices = await chat.gus.devices()
    assert [devices[phone.token]["is_active"] for phone in phones] == [True, False, False, True]
