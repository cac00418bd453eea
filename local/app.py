"""A stand-in for the app: people who act through the Python client, and through supabase-py and the HTTP API.

The client decides when it sends what. So tests of one request use supabase-py.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal
from uuid import UUID, uuid4

import httpx

from chat_client import ChatClient, Settings, Timing
from local.providers.apns.state import ApnsService
from local.providers.expo.state import ExpoService
from local.providers.fcm.state import FcmService, registration_token
from local.providers.phones import Phone
from local.providers.pushes import Platform
from local.supabase.project import Supabase
from supabase import AsyncClient, AsyncClientOptions, acreate_client


class Person:
    """A signed-in user, with a session as the app on a phone holds it."""

    def __init__(
        self,
        name: str,
        id: UUID,
        credentials: tuple[str, str],
        access_token: str,
        client: AsyncClient,
        api: httpx.AsyncClient,
    ) -> None:
        self.name = name
        self.id = id
        self.credentials = credentials  # e-mail and password
        self.access_token = access_token
        self.client = client
        self._api = api

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

    async def read(self, conversation: UUID, device_id: str | None = None) -> None:
        """Marks every message of the conversation as read. None: the app does not say on which device."""
        device = {"p_device_id": device_id} if device_id else {}
        await self.client.rpc(
            "mark_messages_read", {"p_user_id": str(self.id), "p_conversation_id": str(conversation), **device}
        ).execute()

    async def edit(self, message_id: UUID, text: str) -> None:
        """Replaces the text of a message that this person sent."""
        await self.client.table("chat_messages").update({"message": text}).eq("id", str(message_id)).execute()

    async def delete(self, message_id: UUID) -> None:
        """Deletes a message that this person sent, for both participants."""
        await self.client.table("chat_messages").update({"deleted_at": "now"}).eq("id", str(message_id)).execute()

    async def call(self, method: str, path: str, **content: Any) -> httpx.Response:
        """The answer of the HTTP API to this person; `content` is httpx's: json, params, ..."""
        headers = {"Authorization": f"Bearer {self.access_token}"}
        return await self._api.request(method, path, headers=headers, **content)

    async def log_in_on(self, phone: Phone, device_id: str) -> None:
        """Registers the phone's push token for this person."""
        registration = {
            "device_id": device_id,
            "platform": phone.platform,
            "push_provider": phone.provider,
            "push_token": phone.token,
        }
        (await self.call("POST", "/api/push/register", json=registration)).raise_for_status()

    async def log_out_of(self, device_id: str) -> None:
        """Removes this person's own registration of a device."""
        (await self.call("DELETE", "/api/push/unregister", params={"device_id": device_id})).raise_for_status()

    async def devices(self) -> dict[str, dict[str, Any]]:
        """The person's own devices, by device_id."""
        answer = await self.call("GET", "/api/push/devices")
        return {device["device_id"]: device for device in answer.raise_for_status().json()}


class App:
    """The app of a project. Its people share connections, but each has a session of their own."""

    def __init__(self, project: Supabase, http: httpx.AsyncClient, api: httpx.AsyncClient) -> None:
        self._project = project
        self._http = http
        self._api = api

    async def sign_up(self, name: str, role: Literal["tourist", "guide"]) -> Person:
        """A new account through the Auth API, and its profile."""
        email, password = f"{name.lower()}-{secrets.token_hex(4)}@example.com", secrets.token_urlsafe(16)
        # By HTTP, so that the client has one fixed token and refreshes nothing.
        answer = await self._http.post(
            f"{self._project.url}/auth/v1/signup",
            headers={"apikey": self._project.publishable_key},
            json={"email": email, "password": password},
        )
        session = answer.raise_for_status().json()
        options = AsyncClientOptions(
            headers={"Authorization": f"Bearer {session['access_token']}"},
            auto_refresh_token=False,
            persist_session=False,
            httpx_client=self._http,
        )
        client = await acreate_client(self._project.url, self._project.publishable_key, options)
        credentials = (email, password)
        person = Person(name, UUID(session["user"]["id"]), credentials, session["access_token"], client, self._api)
        await client.table("users").insert({"id": str(person.id), "display_name": name, "role": role}).execute()
        return person


@asynccontextmanager
async def chat_app(project: Supabase, api_url: str) -> AsyncIterator[App]:
    """The app of this project and of this HTTP API; its people can act while the context is open."""
    async with httpx.AsyncClient(timeout=30) as http, httpx.AsyncClient(base_url=api_url, timeout=30) as api:
        yield App(project, http, api)


class Network(httpx.AsyncHTTPTransport):
    """The network of a client. It counts the inserts of messages."""

    inserts = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The answer to a request. Raises httpx.TransportError."""
        self.inserts += request.method == "POST" and request.url.path.endswith("/chat_messages")
        return await super().handle_async_request(request)


@asynccontextmanager
async def signed_in_client(
    url: str, key: str, person: Person, database: Path, timing: Timing, network: Network | None = None
) -> AsyncIterator[ChatClient]:
    """The client of a person, signed in, on a device without pushes. `url`: of the project with Realtime."""
    settings = Settings(supabase_url=url, publishable_key=key, database=database, attempts=1_000_000, timing=timing)
    async with ChatClient(settings, transport=network) as client:
        if not client.signed_in:
            await client.sign_in(*person.credentials)
        yield client


async def until(client: ChatClient, holds: Callable[[], object], seconds: float = 30) -> None:
    """Returns when the condition holds, now or after an event of the client. Raises TimeoutError."""
    if holds():
        return
    async with asyncio.timeout(seconds):
        async for _ in client.events():
            if holds():
                return


def new_phone(service: ExpoService | FcmService | ApnsService, platform: Platform) -> Phone:
    """A phone with the app newly installed and a push token from this service.

    Raises ValueError: Expo serves no browsers, and APNs serves iPhones only.
    """
    match service:
        case ExpoService():
            return service.install(f"ExponentPushToken[{secrets.token_urlsafe(16)}]", platform)
        case FcmService():
            return service.install(registration_token(secrets.token_urlsafe(16)), platform)
        case ApnsService():
            if platform != "ios":
                raise ValueError(f"APNs does not serve {platform}, only ios")
            return service.install(secrets.token_hex(32))


def _rows(data: Any) -> list[dict[str, Any]]:
    assert isinstance(data, list)
    return data
