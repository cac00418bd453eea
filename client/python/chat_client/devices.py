"""This device: its registration for pushes over the HTTP API, and the heartbeats that say what is on its screen."""

import asyncio
import re
from collections.abc import Callable
from locale import getlocale
from typing import Literal
from uuid import UUID

import httpx

from chat_client.errors import RateLimited, Rejected, ServerFailed, ServerUnreachable, SessionExpired
from chat_client.server import Server, seconds_to_wait
from chat_client.settings import Timing
from chat_client.store import Store
from chat_client.waiting import wait


class Devices:
    """`api_url`: None if the project has no HTTP API, so no pushes."""

    def __init__(
        self,
        store: Store,
        server: Server,
        http: httpx.AsyncClient,
        api_url: str | None,
        timing: Timing,
        failed: Callable[[str, Exception], None],
    ) -> None:
        self._store = store
        self._server = server
        self._http = http
        self._api_url = api_url.rstrip("/") if api_url else None
        self._timing = timing
        self._failed = failed
        self._on_screen: UUID | None = None
        self._foreground = True
        self._changed = asyncio.Event()

    async def register(
        self,
        push_token: str,
        platform: Literal["ios", "android", "web"],
        push_provider: Literal["expo", "fcm", "apns"] = "expo",
        app_version: str | None = None,
        locale: str | None = None,
    ) -> None:
        """Registers this device for pushes. Repeat it after each sign-in, and when the token changes.

        Raises Rejected, whose code is one of docs/client.md, RateLimited, ServerUnreachable and NotSignedIn.
        """
        body = {
            "device_id": self._store.device_id(),
            "platform": platform,
            "push_token": push_token,
            "push_provider": push_provider,
        }
        if app_version is not None:
            body["app_version"] = app_version
        if (language := locale or own_locale()) is not None:
            body["locale"] = language
        await self._call("POST", "/api/push/register", json=body)

    async def unregister(self) -> None:
        """Removes the registration of this device. Raises what `register` raises."""
        await self._call("DELETE", "/api/push/unregister", params={"device_id": self._store.device_id()})

    @property
    def on_screen(self) -> UUID | None:
        """The conversation on the screen; None in the background."""
        return self._on_screen if self._foreground else None

    def look_at(self, conversation_id: UUID | None) -> None:
        """Says which conversation is on the screen. It is reported soon."""
        self._on_screen = conversation_id
        self._changed.set()

    def set_foreground(self, foreground: bool) -> None:
        """Says whether the app is in the foreground. It is reported soon."""
        self._foreground = foreground
        self._changed.set()

    async def run(self) -> None:
        """Reports presence until it is cancelled. The next report replaces one that is lost."""
        while True:
            self._changed.clear()
            if self._server.signed_in:
                try:
                    await self.report_presence()
                except Exception as error:
                    self._failed("presence was not reported", error)
            await wait(self._changed, self._timing.heartbeat if self._foreground else None)

    async def report_presence(self, *, online: bool | None = None) -> None:
        """Reports what this device shows. `online`: None for the state of the app. Raises what `register` raises."""
        online = self._foreground if online is None else online
        shown = self._on_screen if online else None
        try:
            await self._server.rpc(
                "report_presence",
                p_device_id=self._store.device_id(),
                p_state="online" if online else "offline",
                p_conversation_id=str(shown) if shown else None,
            )
        except Rejected as error:
            me = self._store.me
            if error.code != "22023" or me is None:
                raise
            # A device that is not registered reports for the person as a whole.
            await self._server.report_presence_of_person(me, online=online, conversation_id=shown)

    async def _call(self, method: str, path: str, **content: object) -> None:
        if self._api_url is None:
            raise Rejected("no_api_url", "Settings.api_url is not set to the output ApiUrl of the stack")
        answer = await self._answer(method, path, content)
        if answer.status_code == 401:
            await self._server.renew(self._server.access_token)
            answer = await self._answer(method, path, content)
        if answer.is_success:
            return
        try:
            error = answer.json()["error"]
            code, message = str(error["code"]), str(error["message"])
            if fields := error.get("fields"):
                message = "; ".join(f"{each['field']}: {each['message']}" for each in fields)
        except (ValueError, KeyError, TypeError, AttributeError):
            code, message = f"http_{answer.status_code}", answer.reason_phrase
        match answer.status_code:
            case 401:
                raise SessionExpired("the session has ended: sign in again")
            case 429:
                raise RateLimited(seconds_to_wait(answer.headers.get("Retry-After")))
            case status if status >= 500:
                raise ServerFailed(f"{message} ({code})")
        raise Rejected(code, message)

    async def _answer(self, method: str, path: str, content: dict[str, object]) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self._server.access_token}"}
        try:
            return await self._http.request(method, f"{self._api_url}{path}", headers=headers, **content)  # type: ignore[arg-type]
        except httpx.RequestError as error:
            raise ServerUnreachable(f"the HTTP API gave no answer: {type(error).__name__}") from error


def own_locale() -> str | None:
    """The language of this process as a BCP 47 tag, or None."""
    name, _ = getlocale()
    return name.replace("_", "-") if name and re.fullmatch(r"[a-z]{2,3}(_[A-Z]{2})?", name) else None
