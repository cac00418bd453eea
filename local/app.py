"""What an app does, with supabase-py: the people of the demo and of the system tests."""

import secrets
from typing import Any, Literal
from uuid import UUID, uuid4

import aiohttp
from supabase import AsyncClient, AsyncClientOptions, acreate_client

from local.expo_service import ExpoService
from local.phones import Phone
from local.supabase import Supabase


class Person:
    """Somebody with a session of their own, as the app on their phone holds it."""

    def __init__(self, name: str, id: UUID, client: AsyncClient) -> None:
        self.name = name
        self.id = id
        self.client = client

    async def open_chat(self, other: "Person") -> UUID:
        """The id of the conversation with the other person."""
        answer = await self.client.rpc(
            "get_or_create_conversation", {"p_user1_id": str(self.id), "p_user2_id": str(other.id)}
        ).execute()
        return UUID(str(answer.data))

    async def send(self, conversation: UUID, text: str, **columns: Any) -> UUID:
        """Inserts a message through the Data API; its id. Raises postgrest.APIError like any insert."""
        row = {
            "room_id": str(conversation),
            "sender_id": str(self.id),
            "message": text,
            "client_msg_id": str(uuid4()),
            **columns,
        }
        answer = await self.client.table("chat_messages").insert(row).execute()
        return UUID(_rows(answer.data)[0]["id"])

    async def look_at(self, conversation: UUID | None) -> None:
        """One heartbeat of the app, with the conversation on its screen."""
        await (
            self.client.table("user_presence")
            .upsert(
                {
                    "user_id": str(self.id),
                    "is_online": True,
                    "current_conversation_id": str(conversation) if conversation else None,
                }
            )
            .execute()
        )

    async def read(self, conversation: UUID) -> None:
        """Marks every message of the conversation as read."""
        await self.client.rpc(
            "mark_messages_read", {"p_user_id": str(self.id), "p_conversation_id": str(conversation)}
        ).execute()

    async def devices(self) -> dict[str, dict[str, Any]]:
        """The person's own rows of user_devices, by device_id."""
        answer = await self.client.table("user_devices").select("*").execute()
        return {row["device_id"]: row for row in _rows(answer.data)}

    async def log_in_on(self, phone: Phone, device_id: str) -> None:
        """Registers the phone's push token for this person."""
        row = {"user_id": str(self.id), "device_id": device_id, "platform": phone.platform, "push_token": phone.token}
        await self.client.table("user_devices").insert(row).execute()


async def sign_up(project: Supabase, name: str, role: str) -> Person:
    """A new account through the Auth API, and its profile."""
    email = f"{name.lower()}-{secrets.token_hex(4)}@example.com"
    # Not by supabase-py: it cannot read the way in which Supabase Lite 0.10 writes times, as in 12:00:00+00.
    async with (
        aiohttp.ClientSession(headers={"apikey": project.publishable_key}, raise_for_status=True) as http,
        http.post(
            f"{project.url}/auth/v1/signup", json={"email": email, "password": secrets.token_urlsafe(16)}
        ) as answer,
    ):
        session = await answer.json()
    options = AsyncClientOptions(
        headers={"Authorization": f"Bearer {session['access_token']}"}, auto_refresh_token=False, persist_session=False
    )
    client = await acreate_client(project.url, project.publishable_key, options)
    person = Person(name, UUID(session["user"]["id"]), client)
    await client.table("users").insert({"id": str(person.id), "display_name": name, "role": role}).execute()
    return person


def new_phone(expo: ExpoService, platform: Literal["ios", "android"]) -> Phone:
    """A phone on which the app was just installed: Expo has given it a push token."""
    return expo.install(f"ExponentPushToken[{secrets.token_urlsafe(16)}]", platform)


def _rows(data: Any) -> list[dict[str, Any]]:
    assert isinstance(data, list)
    return data
