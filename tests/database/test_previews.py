"""What notifications show of a message: all, only the name, or nothing; on each device."""

from typing import Any
from uuid import uuid4

import pytest

from tests.database.chat import Chat, as_user, refused
from tests.database.test_mute import preferences
from tests.database.test_notification_state import kinds, sent
from tests.database.test_quiet_hours import choose


async def choose_on(chat: Chat, device: dict[str, Any], preview: str | None) -> None:
    async with as_user(chat.connection, chat.guide):
        await chat.connection.execute("select public.set_device_preview(%s, %s)", (device["device_id"], preview))


async def previews(chat: Chat) -> list[str]:
    return [push["preview"] for push in await sent(chat)]


async def test_notifications_show_all_unless_the_person_chose_otherwise(chat: Chat) -> None:
    await chat.device()
    await chat.message()
    assert await previews(chat) == ["full"]


async def test_a_device_shows_what_was_chosen_for_it_and_else_what_the_person_chose(chat: Chat) -> None:
    own, other = await chat.device(), await chat.device()
    await choose(chat, preview="name")
    await choose_on(chat, own, "none")
    await chat.message()
    assert {push["device_id"]: push["preview"] for push in await sent(chat)} == {
        str(own["id"]): "none",
        str(other["id"]): "name",
    }


async def test_another_preview_replaces_what_phones_show_without_a_sound(chat: Chat) -> None:
    own, _ = await chat.device(), await chat.device()
    await chat.message()
    await sent(chat)
    await choose(chat, preview="none")
    pushes = await sent(chat)
    assert [(push["kind"], push["preview"], push["sound"]) for push in pushes] == [("update", "none", False)] * 2
    await choose_on(chat, own, "full")
    [push] = await sent(chat)
    assert (push["device_id"], push["kind"], push["preview"]) == (str(own["id"]), "update", "full")
    await choose_on(chat, own, None)
    assert await previews(chat) == ["none"]
    assert await sent(chat) == []


async def test_a_choice_that_changes_nothing_sends_nothing(chat: Chat) -> None:
    await chat.device()
    await chat.message()
    assert kinds(await sent(chat)) == ["alert"]
    await choose(chat, preview="full")
    assert await sent(chat) == []


async def test_a_person_sees_their_own_previews(chat: Chat) -> None:
    device = await chat.device()
    await choose(chat, preview="name")
    await choose_on(chat, device, "none")
    chosen = await preferences(chat, chat.guide)
    assert (chosen["preview"], chosen["device_previews"]) == ("name", {device["device_id"]: "none"})
    assert (await preferences(chat, chat.tourist))["device_previews"] == {}


@pytest.mark.parametrize("who", ["tourist", "guide"])
async def test_only_devices_of_the_caller_get_a_preview(chat: Chat, who: str) -> None:
    device = await chat.device()
    name = device["device_id"] if who == "tourist" else str(uuid4())
    async with refused(chat.connection, "22023", "p_device_id"), as_user(chat.connection, getattr(chat, who)):
        await chat.connection.execute("select public.set_device_preview(%s, 'none')", (name,))


async def test_an_unknown_preview_is_refused(chat: Chat) -> None:
    device = await chat.device()
    async with refused(chat.connection, "22023", "p_preview"):
        await choose_on(chat, device, "some")
