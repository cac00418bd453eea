"""A clock, device tokens, and an HTTP/2 client that sends any request, for the tests of the fake APNs."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import jwt
from h2.connection import ConnectionState, H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from h2.settings import SettingCodes

from local.providers.apns.provider_tokens import ProviderKey
from local.providers.apns.state import TOPIC, ApnsService

IPHONE = "a1" * 32
OTHER_IPHONE = "a2" * 32
DEBUG_IPHONE = "b1" * 32  # runs the app from Xcode, so it belongs to the sandbox
STRANGER = "c1" * 32  # well-formed, never issued

ALERT: dict[str, Any] = {
    "aps": {"alert": {"title": "Ana", "body": "Hello"}, "sound": "default"},
    "body": {"messageId": "m1"},
}
SILENT: dict[str, Any] = {"aps": {"content-available": 1}, "body": {"type": "chat_message"}}
BACKGROUND = {"apns-push-type": "background", "apns-priority": "5"}


class Clock:
    """A clock that moves only by `advance`."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 6, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **delta: float) -> None:
        self.now += timedelta(**delta)


@dataclass
class Answer:
    """What came on one stream."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    data_frames: int = 0
    reset: ErrorCodes | int | None = None
    is_ended: bool = False

    @property
    def status(self) -> int:
        return int(self.headers[":status"])

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def reason(self) -> str | None:
        return str(self.json["reason"]) if self.body else None


@dataclass(frozen=True)
class Request:
    """A request for one stream. A header that is None is left out."""

    token: str = IPHONE
    payload: Any = field(default_factory=lambda: ALERT)
    headers: Mapping[str, str | None] = field(default_factory=dict)
    more: tuple[tuple[str, str], ...] = ()  # headers that may repeat a name


class Connection:
    """One connection of a sender."""

    def __init__(self, apns: ApnsService, authority: str, streams: tuple[asyncio.StreamReader, asyncio.StreamWriter]):
        self._apns = apns
        self._authority = authority
        self._reader, self._writer = streams
        self._h2 = H2Connection()
        self._buffer = b""  # the start of a frame
        self._answers: dict[int, Answer] = {}
        self.stream_limits: list[int] = []  # that the server has set, in order
        self.go_away: tuple[int, bytes] | None = None  # last stream id, debug data
        self.provider_token: str | None = None
        self.renew_provider_token()
        self._h2.initiate_connection()

    def renew_provider_token(self) -> None:
        """Later requests have a new provider token."""
        self.provider_token = provider_token(self._apns.key, self._apns.now())

    async def send(self, token: str = IPHONE, payload: Any = None, **headers: str | None) -> Answer:
        """Sends one request, and waits for its answer. An underscore in a name of a header stands for a hyphen."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        [answer] = await self.send_all(Request(token, ALERT if payload is None else payload, names))
        return answer

    async def send_all(self, *requests: Request) -> list[Answer]:
        """Sends requests at once, without regard to the limit of streams, and waits for all answers.

        Raises ConnectionError: the connection ended before.
        """
        streams = [self.open(request) for request in requests]
        return [await self.answer(stream) for stream in streams]

    def open(self, request: Request) -> int:
        """Sends a request. Returns the id of its stream."""
        stream_id = self._h2.get_next_available_stream_id()
        headers: dict[str, str | None] = {
            ":method": "POST",
            ":scheme": "https",
            ":path": f"/3/device/{request.token}",
            ":authority": self._authority,
            "authorization": None if self.provider_token is None else f"bearer {self.provider_token}",
            "apns-topic": TOPIC,
            "apns-push-type": "alert",
            **request.headers,
        }
        present = [(name, value) for name, value in headers.items() if value is not None]
        body = request.payload if isinstance(request.payload, bytes) else json.dumps(request.payload).encode()
        self._answers[stream_id] = Answer()
        # This client keeps to no limit of streams, so that a test can exceed it.
        self._h2.remote_settings.max_concurrent_streams = 10_000
        self._h2.remote_settings.acknowledge()
        self._h2.send_headers(stream_id, [*present, *request.more])
        self._h2.send_data(stream_id, body, end_stream=True)
        self._writer.write(self._h2.data_to_send())
        return stream_id

    def cancel(self, stream_id: int) -> None:
        """Sends RST_STREAM."""
        self._h2.reset_stream(stream_id, ErrorCodes.CANCEL)
        self._writer.write(self._h2.data_to_send())

    def set_window(self, size: int) -> None:
        """The server may send so many bytes on each stream."""
        self._h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: size})
        self._writer.write(self._h2.data_to_send())

    async def until_headers(self, stream_id: int) -> Answer:
        """The answer on a stream, of which at least the headers have come."""
        while not self._answers[stream_id].headers:
            assert await self._read()
        return self._answers[stream_id]

    async def answer(self, stream_id: int) -> Answer:
        """The answer on a stream, or its reset. Raises ConnectionError: the connection ended before."""
        answer = self._answers[stream_id]
        while not answer.is_ended:
            if not await self._read():
                raise ConnectionError("the server closed the connection")
        return answer

    async def until_limited(self) -> None:
        """Returns when this client has acknowledged a limit of streams."""
        while not self.stream_limits:
            assert await self._read()

    async def until_go_away(self) -> tuple[int, bytes]:
        """Last stream id and debug data of a GOAWAY."""
        while self.go_away is None:
            assert await self._read()
        return self.go_away

    async def until_closed(self) -> None:
        """Returns when the server has closed the connection. Raises ConnectionResetError."""
        while await self._read():
            pass

    async def _read(self) -> bool:
        async with asyncio.timeout(5):
            if not (data := await self._reader.read(65536)):
                return False
        self._buffer += data
        while len(self._buffer) >= (size := 9 + int.from_bytes(self._buffer[:3])):
            frame, self._buffer = self._buffer[:size], self._buffer[size:]
            for event in self._h2.receive_data(frame):
                self._on_event(event)
        self._writer.write(self._h2.data_to_send())
        return True

    def _on_event(self, event: Event) -> None:
        match event:
            case ResponseReceived(headers=headers, stream_id=stream_id):
                self._answers[stream_id].headers = {bytes(k).decode(): bytes(v).decode() for k, v in headers}
            case DataReceived(data=data, stream_id=stream_id):
                self._answers[stream_id].body += data
                self._answers[stream_id].data_frames += 1
            case StreamEnded(stream_id=stream_id):
                self._answers[stream_id].is_ended = True
            case StreamReset(stream_id=stream_id, error_code=code):
                self._answers[stream_id].is_ended, self._answers[stream_id].reset = True, code
            case RemoteSettingsChanged(changed_settings=changed) if SettingCodes.MAX_CONCURRENT_STREAMS in changed:
                self.stream_limits.append(changed[SettingCodes.MAX_CONCURRENT_STREAMS].new_value)
            case ConnectionTerminated(last_stream_id=last, additional_data=data):
                self.go_away = (last or 0, data or b"")
                # Older streams are still answered, which h2 does not expect.
                self._h2.state_machine.state = ConnectionState.CLIENT_OPEN


def provider_token(key: ProviderKey, issued_at: datetime, algorithm: str = "ES256", **changes: Any) -> str:
    """A token signed with a key. `changes`: other claims and, as `kid`, another key id."""
    kid = changes.pop("kid", key.id)
    claims = {"iss": key.team_id, "iat": int(issued_at.timestamp()), **changes}
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, key.private_key, algorithm, headers={"kid": kid})


@asynccontextmanager
async def connected(
    apns: ApnsService, sandbox: bool = False, authority: str | None = None
) -> AsyncIterator[Connection]:
    """A new connection to a port of the fake. It has no ALPN."""
    url = urlsplit(apns.sandbox_url if sandbox else apns.url)
    tls = ssl.create_default_context(cafile=apns.authority)
    reader, writer = await asyncio.open_connection(url.hostname, url.port, ssl=tls)
    try:
        yield Connection(apns, authority or url.netloc, (reader, writer))
    finally:
        writer.transport.abort()
