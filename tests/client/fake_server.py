"""A fake of Supabase at the HTTP border: Auth, and the parts of the Data API that the client uses. For httpx."""

import json
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs
from uuid import UUID, uuid4

import httpx

type Json = dict[str, Any]
type Answer = httpx.Response | Exception
type Fault = Callable[[httpx.Request], Answer | None]

URL = "https://project.supabase.co"
KEY = "sb_publishable_key"
ME, PARTNER = UUID(int=1), UUID(int=2)
BEGIN = datetime(2026, 11, 26, 12, tzinfo=UTC)


def error(status: int, code: str, message: str = "no", details: object = None) -> httpx.Response:
    """An error of PostgREST."""
    return httpx.Response(status, json={"code": code, "message": message, "details": details, "hint": None})


def rate_limited(seconds: float) -> httpx.Response:
    """The error of private.limit_message_rate."""
    return error(429, "PT429", "too many messages", json.dumps({"retry_after_seconds": seconds}))


class FakeServer(httpx.AsyncBaseTransport):
    """Has one person, ME, and conversations with PARTNER. Its clock advances by a second with each change.

    `before`: answers of the next requests, which do not reach the database; `after`: of the next requests, which do.
    None in one of them: no fault. `fault`: decides for each request.
    """

    def __init__(self) -> None:
        self.now = BEGIN
        self.rows: dict[str, Json] = {}
        self.rooms: dict[str, Json] = {}
        self.before: deque[Answer | None] = deque()
        self.after: deque[Answer | None] = deque()
        self.fault: Fault = lambda request: None
        self.requests: list[str] = []
        self.access_tokens = {"token-0"}
        self.refresh_token = "refresh-0"
        self.renewals = 0
        self.marks: list[Json] = []

    # What others do -----------------------------------------------------------------------------

    def tick(self) -> str:
        """Advances the clock, and returns its time."""
        self.now += timedelta(seconds=1)
        return self.now.isoformat()

    def open_room(self) -> UUID:
        """A new conversation of the two people."""
        room = str(uuid4())
        now = self.tick()
        self.rooms[room] = {
            "id": room, "user1_id": str(ME), "user2_id": str(PARTNER), "last_message": None, "last_message_at": None,
            "unread_count_user1": 0, "unread_count_user2": 0, "archived_by_user1": False, "archived_by_user2": False,
            "accepted_by_user1": False, "accepted_by_user2": False,
            "updated_at": now,
        }  # fmt: skip
        return UUID(room)

    def write(self, room: UUID, text: str, sender: UUID = PARTNER, **columns: Any) -> Json:
        """A message that somebody sends. Returns its row."""
        now = self.tick()
        row = {
            "id": str(uuid4()), "room_id": str(room), "sender_id": str(sender), "message": text, "message_type": "text",
            "attachments": [], "client_msg_id": None, "server_timestamp": now, "changed_at": now, "edited_at": None,
            "deleted_at": None, "delivered_at": None, "read_at": None, "is_read": False, **columns,
        }  # fmt: skip
        self.rows[row["id"]] = row
        listed = self.rooms[str(room)]
        listed |= {"last_message": text, "last_message_at": now, "updated_at": now}
        if sender == PARTNER:
            listed["unread_count_user1"] += 1
        return row

    def change(self, message_id: str, **columns: Any) -> Json:
        """A change of a message. Returns its row."""
        self.rows[message_id] = {**self.rows[message_id], **columns, "changed_at": self.tick()}
        return self.rows[message_id]

    def texts(self, room: UUID) -> list[str]:
        """The texts of a conversation, oldest first."""
        return [row["message"] for row in self.rows.values() if row["room_id"] == str(room)]

    # HTTP ---------------------------------------------------------------------------------------

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The answer to a request."""
        self.requests.append(f"{request.method} {request.url.path}")
        if not request.url.path.startswith("/rest/"):
            return self._other(request)
        if request.headers["authorization"].removeprefix("Bearer ") not in self.access_tokens:
            return error(401, "PGRST301", "JWT expired")
        fault = self.before.popleft() if self.before else self.fault(request)
        lost = self.after.popleft() if fault is None and self.after else None
        answer = fault or self._answer(request)
        if isinstance(lost or answer, Exception):
            raise lost or answer  # type: ignore[misc]
        return lost or answer  # type: ignore[return-value]

    def _other(self, request: httpx.Request) -> httpx.Response:
        fault = self.fault(request)
        if isinstance(fault, Exception):
            raise fault
        if fault is None and request.url.path == "/auth/v1/token":
            return self._token(json.loads(request.content))
        return fault or httpx.Response(204)

    def _token(self, body: Json) -> httpx.Response:
        if body.get("refresh_token", self.refresh_token) != self.refresh_token:
            return httpx.Response(400, json={"code": 400, "error_code": "refresh_token_not_found", "msg": "no"})
        if "password" in body and body["password"] != "right":
            return httpx.Response(400, json={"code": 400, "error_code": "invalid_credentials", "msg": "wrong"})
        self.renewals += 1
        self.access_tokens = {f"token-{self.renewals}"}
        self.refresh_token = f"refresh-{self.renewals}"
        return httpx.Response(200, json=self.session())

    def session(self) -> Json:
        """The session that is valid now."""
        [access_token] = self.access_tokens
        user = {
            "id": str(ME), "aud": "authenticated", "app_metadata": {}, "user_metadata": {},
            "created_at": BEGIN.isoformat(),
        }  # fmt: skip
        return {
            "access_token": access_token, "refresh_token": self.refresh_token, "token_type": "bearer",
            "expires_in": 3600, "expires_at": 4_000_000_000, "user": user,
        }  # fmt: skip

    def _answer(self, request: httpx.Request) -> Answer:
        query = {name: values[0] for name, values in parse_qs(request.url.query.decode()).items()}
        body = json.loads(request.content) if request.content else {}
        match request.method, request.url.path.removeprefix("/rest/v1/"):
            case "POST", "chat_messages":
                return self._insert(body)
            case "PATCH", "chat_messages":
                message_id = query["id"].removeprefix("eq.")
                if "deleted_at" in body:
                    body = {"deleted_at": self.tick(), "message": "", "attachments": []}
                return httpx.Response(200, json=[self.change(message_id, **body)] if message_id in self.rows else [])
            case "GET", "chat_messages":
                wanted = query["client_msg_id"].removeprefix("eq.")
                return httpx.Response(200, json=[r for r in self.rows.values() if r["client_msg_id"] == wanted])
            case "GET", "chat_rooms":
                return httpx.Response(200, json=self._rooms(query))
            case "PATCH", "chat_rooms":
                room = self.rooms[query["id"].removeprefix("eq.")]
                room |= {**body, "updated_at": self.tick()}
                return httpx.Response(200, json=[room])
            case "GET", "users":
                row = {"id": str(PARTNER), "display_name": "Gus", "avatar_url": None, "role": "guide"}
                return httpx.Response(200, json=[row])
            case "POST", path:
                return self._function(path.removeprefix("rpc/"), body)
        raise AssertionError(f"{request.method} {request.url}")

    def _insert(self, body: Json) -> httpx.Response:
        if any(row["client_msg_id"] == body["client_msg_id"] for row in self.rows.values()):
            return error(409, "23505", "duplicate key value")
        row = self.write(
            UUID(body["room_id"]), body["message"], ME, client_msg_id=body["client_msg_id"],
            attachments=body["attachments"],
        )  # fmt: skip
        return httpx.Response(201, json=[row])

    def _rooms(self, query: dict[str, str]) -> list[Json]:
        operator, value = query["id"].split(".", 1)
        rows = sorted(self.rooms.values(), key=lambda row: str(row["id"]))
        return [row for row in rows if (row["id"] == value if operator == "eq" else row["id"] > value)]

    def _function(self, name: str, arguments: Json) -> httpx.Response:
        match name:
            case "report_presence":
                return httpx.Response(204)
            case "sync_cursor":
                return httpx.Response(200, json=self.now.isoformat())
            case "get_changed_messages":
                return httpx.Response(200, json=self._changed(arguments))
            case "get_messages_paginated":
                return httpx.Response(200, json=self._page(arguments))
            case "mark_messages_delivered" | "mark_messages_read":
                self.marks.append({"function": name, **arguments})
                return httpx.Response(200, json=1)
        raise AssertionError(name)

    def _changed(self, arguments: Json) -> list[Json]:
        since = datetime.fromisoformat(arguments["p_since"])
        rows = sorted(self.rows.values(), key=lambda row: (row["changed_at"], row["id"]))
        if arguments["p_after_id"] is None:
            since -= timedelta(minutes=1)
            rows = [row for row in rows if datetime.fromisoformat(row["changed_at"]) >= since]
        else:
            after = (since, arguments["p_after_id"])
            rows = [row for row in rows if (datetime.fromisoformat(row["changed_at"]), row["id"]) > after]
        return rows[: arguments["p_limit"]]

    def _page(self, arguments: Json) -> list[Json]:
        rows = [row for row in self.rows.values() if row["room_id"] == arguments["p_conversation_id"]]
        rows.sort(key=lambda row: str(row["server_timestamp"]), reverse=True)
        if arguments["p_cursor_timestamp"]:
            before = datetime.fromisoformat(arguments["p_cursor_timestamp"])
            rows = [row for row in rows if datetime.fromisoformat(row["server_timestamp"]) < before]
        return rows[: min(arguments["p_limit"], 200)]
