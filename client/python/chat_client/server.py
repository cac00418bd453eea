"""Supabase Auth and the Data API. This module alone knows their client, their errors and their JSON.

The session is renewed here. No decision depends on the phone's clock, which may be hours off: a token is renewed
some time after it was issued, or when the server says that it has expired.
"""

import asyncio
import json
import math
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any
from uuid import UUID

import httpx
from postgrest.exceptions import APIError
from supabase_auth.errors import AuthApiError, AuthError
from supabase_auth.types import Session

from chat_client.errors import (
    NotSignedIn,
    OtherAccount,
    RateLimited,
    Rejected,
    ServerFailed,
    ServerUnreachable,
    SessionExpired,
    SignInRejected,
    Suspended,
    TooManyContacts,
)
from chat_client.models import Attachment, Json, Person
from supabase import AsyncClient, AsyncClientOptions

# https://docs.postgrest.org/en/stable/references/errors.html and https://www.postgresql.org/docs/current/errcodes-appendix.html
_TOKEN_CODES = {"401", "PGRST301", "PGRST302", "PGRST303"}
_TEMPORARY_CODES = {"408", "425", "PGRST000", "PGRST001", "PGRST002", "PGRST003"}
_TEMPORARY_CLASSES = {"08", "25", "40", "53", "55", "57", "58", "XX"}


class TokenRejected(Exception):
    """The server does not accept the access token (any more)."""


class Server:
    """A project of Supabase, for one person. `save`: stores the session, or None when it has ended."""

    def __init__(
        self,
        url: str,
        key: str,
        stored: str | None,
        save: Callable[[str | None], None],
        http: httpx.AsyncClient,
    ) -> None:
        self._url = url
        self._key = key
        self._save = save
        self._http = http
        http.event_hooks["response"].append(_refuse_page)
        self._session = Session.model_validate_json(stored) if stored else None
        self._renewed_at = time.monotonic()
        self._renewing = asyncio.Lock()
        self._sessions = 0  # how often somebody has signed in or out
        self._client = self._client_of(self._session)

    def _client_of(self, session: Session | None) -> AsyncClient:
        return AsyncClient(
            self._url,
            self._key,
            AsyncClientOptions(
                headers={"Authorization": f"Bearer {session.access_token}"} if session else {},
                auto_refresh_token=False,
                persist_session=False,
                postgrest_client_retry=False,
                httpx_client=self._http,
            ),
        )

    # Session ------------------------------------------------------------------------------------

    @property
    def access_token(self) -> str:
        """The access token of the person. Raises NotSignedIn."""
        if self._session is None:
            raise NotSignedIn("nobody is signed in")
        return self._session.access_token

    @property
    def signed_in(self) -> bool:
        """Whether there is a session. The server may have ended it."""
        return self._session is not None

    @property
    def realtime_url(self) -> str:
        """The URL of Realtime."""
        return str(self._client.realtime_url)

    async def sign_in(self, email: str, password: str, owner: UUID | None) -> UUID:
        """Signs in, without storing it: `keep_session` does. Returns the id of the person.

        `owner`: who alone may sign in. Raises SignInRejected, ServerUnreachable, RateLimited and OtherAccount.
        """
        async with self._renewing:  # a session that cannot be renewed must not end one that has just begun
            # Until it is known who signs in, requests go on with the session of the owner.
            client = self._client_of(None)
            try:
                with _from_auth():
                    answer = await client.auth.sign_in_with_password({"email": email, "password": password})
            except AuthApiError as error:
                raise SignInRejected(error.code or str(error.status), error.message) from error
            if answer.session is None:
                raise SignInRejected("no_session", "Supabase Auth returned no session")
            user_id = UUID(answer.session.user.id)
            if owner not in (None, user_id):
                with suppress(ServerUnreachable):
                    await _end(client, answer.session.access_token)
                raise OtherAccount("the local database belongs to another account: call sign_out, or use another file")
            self._client = client
            self._session = answer.session
            self._sessions += 1
            self._renewed_at = time.monotonic()
            return user_id

    def keep_session(self) -> None:
        """Stores the session."""
        assert self._session is not None
        self._save(self._session.model_dump_json())

    def seconds_until_renewal(self) -> float:
        """When the session should be renewed: after 9 tenths of the life of its token."""
        lifetime = self._session.expires_in if self._session else 3600
        return max(0.0, self._renewed_at + 0.9 * lifetime - time.monotonic())

    async def renew(self, rejected: str | None = None) -> None:
        """Renews the session, unless another caller has done so since the token `rejected`.

        Raises SessionExpired if the server does not renew it, and ServerUnreachable.
        """
        async with self._renewing:
            if self._session is None:
                raise NotSignedIn("nobody is signed in")
            if rejected is not None and self._session.access_token != rejected:
                return
            try:
                with _from_auth():
                    answer = await self._client.auth.refresh_session(self._session.refresh_token)
            except AuthApiError as error:
                self.forget_session()
                raise SessionExpired("the session has ended: sign in again") from error
            if answer.session is None:
                raise ServerUnreachable("Supabase Auth returned no session")
            self._session = answer.session
            self._renewed_at = time.monotonic()
            self.keep_session()

    def forget_session(self) -> None:
        """Removes the session, also the stored one, without telling the server."""
        self._session = None
        self._sessions += 1
        self._save(None)

    async def end_session(self) -> None:
        """Ends the session on the server. Raises ServerUnreachable."""
        await _end(self._client, self.access_token)

    # Requests -----------------------------------------------------------------------------------

    async def rpc(self, function: str, **arguments: Any) -> Any:
        """Calls a function of the database, and returns its result."""
        return await self.request(lambda client: client.rpc(function, arguments).execute())

    async def send_message(
        self, conversation_id: UUID, sender_id: UUID, text: str, attachments: tuple[Attachment, ...], client_msg_id: str
    ) -> Json | None:
        """Inserts a message. Returns its row; None: the person has no message with this client_msg_id after all.

        A message that an earlier attempt has stored counts as sent: its row is returned.
        """
        row = {
            "room_id": str(conversation_id),
            "sender_id": str(sender_id),
            "message": text,
            "attachments": list(attachments),
            "client_msg_id": client_msg_id,
        }
        try:
            return _first(await self.rows(lambda client: client.table("chat_messages").insert(row).execute()))
        except Rejected as error:
            if error.code != "23505":
                raise
            return await self.message_of_client_msg_id(sender_id, client_msg_id)

    async def message_of_client_msg_id(self, sender_id: UUID, client_msg_id: str) -> Json | None:
        """The row of a message by the id that its sender gave it, or None."""
        return _first(
            await self.rows(
                lambda client: (
                    client.table("chat_messages")
                    .select("*")
                    .eq("sender_id", str(sender_id))
                    .eq("client_msg_id", client_msg_id)
                    .execute()
                )
            )
        )

    async def update_message(self, message_id: UUID, **columns: Any) -> Json | None:
        """Edits or deletes an own message. Returns its row; None: there is no such message of this person."""
        return _first(
            await self.rows(
                lambda client: client.table("chat_messages").update(columns).eq("id", str(message_id)).execute()
            )
        )

    async def conversation(self, conversation_id: UUID) -> Json | None:
        """The row of a conversation, or None."""
        return _first(
            await self.rows(
                lambda client: client.table("chat_rooms").select("*").eq("id", str(conversation_id)).execute()
            )
        )

    async def update_conversation(self, conversation_id: UUID, **columns: Any) -> Json | None:
        """Updates a conversation. Returns its row, or None if there is none."""
        return _first(
            await self.rows(
                lambda client: client.table("chat_rooms").update(columns).eq("id", str(conversation_id)).execute()
            )
        )

    async def conversations(self) -> list[Json]:
        """The rows of all conversations of the person."""
        found: list[Json] = []
        while True:
            # A project may return fewer rows at once than are asked for, so only an empty page is the last one.
            after = found[-1]["id"] if found else "00000000-0000-0000-0000-000000000000"
            page = await self.rows(
                lambda client, after=after: (
                    client.table("chat_rooms").select("*").gt("id", after).order("id").limit(500).execute()
                )
            )
            if not page:
                return found
            found += page

    async def people(self, ids: list[UUID]) -> list[Person]:
        """The profiles of these people, as far as the person may see them."""
        people = []
        for start in range(0, len(ids), 100):  # the ids are in the URL
            listed = [str(each) for each in ids[start : start + 100]]
            rows = await self.rows(
                lambda client, listed=listed: (
                    client.table("users").select("id,display_name,avatar_url,role").in_("id", listed).execute()
                )
            )
            people += [
                Person(id=UUID(r["id"]), display_name=r["display_name"], avatar_url=r["avatar_url"], role=r["role"])
                for r in rows
            ]
        return people

    async def report_presence_of_person(self, me: UUID, *, online: bool, conversation_id: UUID | None) -> None:
        """The presence of a device that is not registered: it counts for the person as a whole."""
        row = {
            "user_id": str(me),
            "is_online": online,
            "current_conversation_id": str(conversation_id) if conversation_id else None,
        }
        await self.request(lambda client: client.table("user_presence").upsert(row).execute())

    async def request(self, build: Callable[..., Awaitable[Any]]) -> Any:
        """Makes a request with the session, and returns its data. A session that has expired is renewed once.

        The data of one account never reach another: after a sign-out meanwhile, it raises NotSignedIn.
        Raises Rejected, RateLimited, ServerFailed, ServerUnreachable, SessionExpired and NotSignedIn.
        """
        token, session = self.access_token, self._sessions
        try:
            data = await self._request(build)
        except TokenRejected:
            await self.renew(token)
            try:
                data = await self._request(build)
            except TokenRejected as error:
                self.forget_session()
                raise SessionExpired("the session has ended: sign in again") from error
        if session != self._sessions:
            raise NotSignedIn("the person has signed out during the request")
        return data

    async def rows(self, build: Callable[..., Awaitable[Any]]) -> list[Json]:
        """As `request`, for rows."""
        return rows_of(await self.request(build))

    async def _request(self, build: Callable[..., Awaitable[Any]]) -> Any:
        try:
            answer = await build(self._client)
        except httpx.RequestError as error:
            raise ServerUnreachable(f"the Data API gave no answer: {type(error).__name__}") from error
        except APIError as error:
            raise _translated(error) from error
        except ValueError as error:  # a proxy answered with something that is no JSON
            raise ServerUnreachable("the Data API gave an answer that is no JSON") from error
        return answer.data


@contextmanager
def _from_auth() -> Iterator[None]:
    """Raises what is no decision of Supabase Auth as ServerUnreachable or RateLimited. A refusal is an AuthApiError."""
    try:
        yield
    except AuthApiError as error:
        if error.status == 429:
            raise RateLimited(60) from error
        if error.status >= 500:
            raise ServerUnreachable("Supabase Auth cannot answer now") from error
        raise
    except (AuthError, httpx.RequestError, ValueError) as error:  # such as a page of a proxy
        raise ServerUnreachable("Supabase Auth gave no answer") from error


async def _end(client: AsyncClient, token: str) -> None:
    with suppress(AuthApiError), _from_auth():  # A session that is refused has ended already.
        await client.auth.admin.sign_out(token, "local")


def _translated(error: APIError) -> Exception:
    code, message = str(error.code or ""), error.message or "rejected"
    if code in _TOKEN_CODES:
        return TokenRejected(message)
    if code in ("PT429", "429"):
        details = _json(error.details)
        limited = TooManyContacts if details.get("limit") == "new_contact_limit" else RateLimited
        return limited(seconds_to_wait(details.get("retry_after_seconds")), message)
    if code == "PT403":
        until = _json(error.details).get("suspended_until")
        return Suspended(message, datetime.fromisoformat(until) if isinstance(until, str) else None)
    status = int(code) if re.fullmatch("[1-9][0-9]{2}", code) else None
    # Of a proxy: a redirection or a page instead of rows, or a failure, such as 522 of Cloudflare.
    is_of_proxy = code == "" or (status is not None and (status < 400 or status > 501))
    if is_of_proxy or code in _TEMPORARY_CODES:
        return ServerUnreachable(f"the Data API cannot answer now ({code})")
    if (status is not None and status >= 500) or (len(code) == 5 and code[:2] in _TEMPORARY_CLASSES):
        return ServerFailed(f"{message} ({code})")
    return Rejected(code, message)


def _json(details: object) -> Json:
    try:
        found = json.loads(str(details))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def seconds_to_wait(said: object) -> float:
    """How long a server says to wait. A proxy may say it in another form, such as a date."""
    try:
        seconds = float(str(said))
    except ValueError:
        return 10.0
    return seconds if 0 < seconds < math.inf else 10.0


async def _refuse_page(answer: httpx.Response) -> None:
    """Refuses an answer of a proxy. The client of Supabase would take an empty one for no rows."""
    has_no_rows = answer.status_code == 204 and "/rpc/" in answer.url.path
    is_json = "json" in answer.headers.get("content-type", "")
    if "/rest/v1/" in answer.url.path and answer.is_success and not has_no_rows and not is_json:
        raise ServerUnreachable("the Data API gave an answer that is no JSON")


def rows_of(data: Any) -> list[Json]:
    """The rows of an answer. Raises ServerUnreachable for anything else, which is of a proxy."""
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        raise ServerUnreachable("the Data API gave an answer that is no list of rows")
    return data


def _first(rows: list[Json]) -> Json | None:
    return rows[0] if rows else None


def iso(time: datetime) -> str:
    """A time as the Data API reads it, with all microseconds."""
    return time.isoformat(timespec="microseconds")
