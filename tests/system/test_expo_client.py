"""The TypeScript client of client/expo on the local cloud, with the Python client as the other phone."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest

from chat_client import ChatClient
from chat_client.events import MessageChanged, TypingChanged
from local.cloud import LocalCloud
from local.processes import free_port
from tests.system.expo_phone import ExpoPhone, expo_phone
from tests.system.test_chat_client import PASSWORD, Account, Phone, settings_of, sign_up


@pytest.fixture(scope="module")
async def tina(running_cloud: LocalCloud) -> Account:
    return await sign_up(running_cloud, "Tina", "tourist")


@pytest.fixture(scope="module")
async def gus(running_cloud: LocalCloud) -> Account:
    return await sign_up(running_cloud, "Gus", "guide")


@pytest.fixture
async def expo(cloud: LocalCloud, tina: Account, tmp_path: Path) -> AsyncIterator[ExpoPhone]:
    """Tina's phone, with the TypeScript client."""
    async with expo_phone(cloud, tmp_path / "tina.sqlite") as phone:
        assert await phone.call("signIn", tina.email, PASSWORD) == str(tina.id)
        await phone.until("connectionChanged", lambda event: event["state"] == "online")
        yield phone


@pytest.fixture
async def python(cloud: LocalCloud, gus: Account, tmp_path: Path) -> AsyncIterator[Phone]:
    """Gus's phone, with the Python client."""
    async with ChatClient(settings_of(cloud, tmp_path / "gus.sqlite")) as client:
        phone = Phone(client)
        await client.sign_in(gus.email, PASSWORD)
        yield phone


async def test_a_typescript_phone_and_a_python_phone_chat(
    expo: ExpoPhone, python: Phone, tina: Account, gus: Account
) -> None:
    conversation = await expo.call("openChat", str(gus.id))
    sent = await expo.call("send", conversation, "Shall we meet at the fountain?")
    assert sent["status"] == "pending"
    arrived = await python.until_message(sent["text"])
    await expo.until_message(sent["text"], "delivered")
    python.client.mark_read(arrived.id)
    read = await expo.until_message(sent["text"], "read")
    assert read["id"] == str(arrived.id)

    answer = python.client.send(UUID(conversation), "At noon.")
    message = await expo.until_message("At noon.")
    assert message["senderId"] == str(gus.id)
    await python.until_message(answer.text, "delivered")
    await expo.call("markRead", message["id"])
    await python.until_message(answer.text, "read")
    [listed] = [each for each in await expo.call("conversations") if each["id"] == conversation]
    assert (listed["partner"]["displayName"], listed["lastMessage"], listed["unread"]) == ("Gus", "At noon.", 0)


async def test_an_edit_and_a_deletion_of_a_typescript_phone_arrive(
    expo: ExpoPhone, python: Phone, gus: Account
) -> None:
    conversation = await expo.call("openChat", str(gus.id))
    pending = await expo.call("send", conversation, "At eigth?")
    arrived = await python.until_message("At eigth?")
    await expo.until_message("At eigth?", "delivered")
    await expo.call("edit", pending["id"], "At eight?")
    assert (await python.until_message("At eight?")).edited_at
    await expo.call("delete", pending["id"])
    await python.until(MessageChanged, lambda event: event.message.id == arrived.id and event.message.deleted_at)


async def test_typing_and_presence_reach_the_other_phone(expo: ExpoPhone, python: Phone, gus: Account) -> None:
    conversation = await expo.call("openChat", str(gus.id))
    await python.client.sync()
    await expo.call("lookAt", conversation)
    python.client.look_at(UUID(conversation))
    await expo.until("presenceChanged", lambda event: str(gus.id) in event["userIds"])
    await python.client.typing()
    await expo.until("typingChanged", lambda event: event["userId"] == str(gus.id) and event["isTyping"])
    await expo.until("typingChanged", lambda event: event["userId"] == str(gus.id) and not event["isTyping"])
    await expo.call("typing")
    await python.until(TypingChanged, lambda event: event.is_typing)


async def test_what_was_written_without_a_server_is_sent_by_the_next_start(
    cloud: LocalCloud, python: Phone, tina: Account, gus: Account, tmp_path: Path
) -> None:
    database = tmp_path / "offline.sqlite"
    async with expo_phone(cloud, database) as phone:
        await phone.call("signIn", tina.email, PASSWORD)
        conversation = await phone.call("openChat", str(gus.id))
    async with expo_phone(cloud, database, url=f"http://127.0.0.1:{free_port()}") as phone:
        await phone.call("send", conversation, "Written without a server")
        assert [each["state"] for each in await phone.call("outbox")] == ["pending"]
    async with expo_phone(cloud, database) as phone:
        await phone.until_message("Written without a server", "sent")
        assert await phone.call("outbox") == []
    await python.client.sync()
    await python.until_message("Written without a server")


@pytest.mark.parametrize("fault", ["cut", "expire_tokens"])
async def test_a_typescript_phone_connects_again_and_misses_nothing(
    cloud: LocalCloud, expo: ExpoPhone, python: Phone, gus: Account, fault: str
) -> None:
    conversation = await expo.call("openChat", str(gus.id))
    before = len(expo.events)
    getattr(cloud.realtime, fault)()
    python.client.send(UUID(conversation), f"after {fault}")
    await expo.until_message(f"after {fault}")
    await expo.until("connectionChanged", lambda event: event["state"] == "online", after=before)
    python.client.send(UUID(conversation), f"live after {fault}")
    await expo.until_message(f"live after {fault}")
