"""The app on phones that are signed in: what Realtime brings, and what the app asks for."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from local.app import Person
from local.cloud import LocalCloud
from local.types import Json
from tests.local.supabase.realtime.clients import PythonClient, python_client


class AppPhone:
    """The app of a person on one phone, with the official client of Supabase."""

    def __init__(self, person: Person, client: PythonClient) -> None:
        self.person = person
        self.client = client

    async def join(self) -> None:
        """Joins the person's own channel, or joins it again after the connection was lost."""
        await self.client.join(f"user:{self.person.id}", {"private": True}, [], False)
        await self.joined()

    async def joined(self) -> None:
        """Waits until the channel is joined."""
        await self.client.events.until("status", status="SUBSCRIBED")

    async def message(self, operation: str, message_id: UUID) -> Json:
        """Waits for the event of a message, and returns the row in it. Raises TimeoutError."""
        while True:
            event = await self._next("message")
            if (event["operation"], event["record"]["id"]) == (operation, str(message_id)):
                return event["record"]

    async def marks(self, message_id: UUID) -> Json:
        """Waits for the event of marks of a message, and returns it. Raises TimeoutError."""
        while True:
            event = await self._next("receipts")
            if str(message_id) in event["message_ids"]:
                return event

    async def _next(self, event: str) -> Json:
        topic = f"user:{self.person.id}"
        return (await self.client.events.until("broadcast", topic=topic, event=event))["payload"]


@asynccontextmanager
async def app_phone(cloud: LocalCloud, person: Person) -> AsyncIterator[AppPhone]:
    """A phone of a person with the open app, which has joined the person's channel."""
    async with python_client(cloud.realtime.url, cloud.supabase.publishable_key) as client:
        await client.set_auth(person.access_token)
        phone = AppPhone(person, client)
        await phone.join()
        yield phone


async def rpc(person: Person, function: str, **arguments: Any) -> Any:
    """Calls a function of the Data API as this person. Raises postgrest.APIError."""
    return (await person.client.rpc(function, arguments).execute()).data


async def changes(person: Person, since: str) -> list[Json]:
    """Returns what a phone of this person finds that synced at `since`, in the order of the changes."""
    found: list[Json] = await rpc(person, "get_changed_messages", p_user_id=str(person.id), p_since=since)
    return found
