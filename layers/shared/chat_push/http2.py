"""HTTP/2 requests to FCM and APNs: a batch shares one connection that is kept, and each request gets its own result.

It uses the package h2, not httpx: for each request, httpx 0.28 takes five times the processor time, one timeout fails
all requests of its connection, and a GOAWAY does not say which of them were handled.
"""

import json
import logging
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingAckReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from h2.exceptions import H2Error
from hpack.struct import NeverIndexedHeaderTuple

from chat_push.outcome import Outcome, as_code, not_attempted, request_outcome

# FCM closes a connection with more: https://github.com/firebase/firebase-admin-node/issues/2943
MAX_STREAMS = 100
MAX_CONNECTIONS = 3  # that one exchange may use
CONNECT_TIMEOUT_SECONDS = 2.0
# Google asks for 10 seconds or more: https://firebase.google.com/docs/cloud-messaging/scale-fcm
RESPONSE_TIMEOUT_SECONDS = 10.0
# After a request without a response, this timeout applies for STALLED_SECONDS, so that workers do not all wait long.
STALLED_RESPONSE_TIMEOUT_SECONDS = 2.0
STALLED_SECONDS = 30.0
# A frozen environment does not see that its connection was closed. So an idle one must answer a PING first.
PING_AFTER_IDLE_SECONDS = 10.0
PING_TIMEOUT_SECONDS = 1.0


# On the level DEBUG, hpack logs the headers, which hold access tokens.
logging.getLogger("hpack").setLevel(logging.INFO)


@dataclass(frozen=True)
class Request:
    """A POST request. Its headers hold the access token, and its path may hold a push token."""

    path: str = field(repr=False)
    headers: Sequence[tuple[str, str]] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class Answer:
    """The response to a request."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; empty if it is none."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}


@dataclass(frozen=True)
class NoAnswer:
    """A request without a response. `error`: a code. maybe_handled: it was sent, and may have been handled."""

    error: str
    maybe_handled: bool
    attempted: bool = True


# keep: the answer is the result; reconnect: repeat the request on a new connection; stop: send no further request.
type Verdict = Literal["keep", "reconnect", "stop"]
type Connect = Callable[[float], socket.socket]


class Http2:
    """One server. It serves one exchange at a time. Tests replace `connect` and `clock`.

    `connect` opens a connection within so many seconds, or raises OSError. `clock` returns seconds that also pass while
    the function is frozen.
    """

    def __init__(self, url: str, connect: Connect | None = None, clock: Callable[[], float] = time.time) -> None:
        self._scheme, self._authority = urlsplit(url)[:2]
        self._connect = connect or (lambda timeout: _open(url, timeout))
        self._clock = clock
        self._kept: _Connection | None = None
        self._used_at = 0.0
        self._stalled_until = 0.0

    def exchange(
        self, requests: Sequence[Request], time_left: Callable[[], float], judge: Callable[[Answer], Verdict]
    ) -> list[Answer | NoAnswer]:
        """The result of each request, in order. `time_left` returns the seconds that may still be used.

        The first request on a new connection is sent alone: APNs allows one stream until it has seen a valid token
        (https://developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns), and a wrong
        configuration is refused once. `judge` decides about each answer.
        """
        batch = _Batch(requests, judge, time.monotonic() + time_left())
        if self._clock() < self._stalled_until:
            batch.timeout = STALLED_RESPONSE_TIMEOUT_SECONDS
        for _ in range(MAX_CONNECTIONS):
            if not batch.waiting or batch.stopped or time.monotonic() >= batch.deadline:
                break
            try:
                connection = self._connection(batch)
                connection.run(batch)
            except OSError as error:
                batch.fail_waiting(NoAnswer(type(error).__name__, maybe_handled=False))
                break
            if connection.is_closing:
                self.close()
            self._used_at = self._clock()
        if batch.timed_out and batch.timeout == RESPONSE_TIMEOUT_SECONDS:
            self._stalled_until = self._clock() + STALLED_SECONDS
        out_of_time = time.monotonic() >= batch.deadline and not batch.stopped
        why = "OutOfTime" if out_of_time else batch.lost or "Stopped"
        batch.fail_waiting(NoAnswer(why, maybe_handled=False, attempted=False))
        return [batch.results[index] for index in range(len(requests))]

    def close(self) -> None:
        """Closes the connection. The next exchange opens another one."""
        if self._kept:
            self._kept.close()
        self._kept = None

    def _connection(self, batch: "_Batch") -> "_Connection":
        """The kept connection, or a new one. Raises OSError."""
        left = batch.deadline - time.monotonic()
        if self._kept:
            self._kept.is_reused = True
            idle = self._clock() - self._used_at
            if idle < PING_AFTER_IDLE_SECONDS or self._kept.answers_ping(min(PING_TIMEOUT_SECONDS, left)):
                return self._kept
            self.close()
        connected = self._connect(max(0.001, min(CONNECT_TIMEOUT_SECONDS, left)))
        self._kept = _Connection(connected, self._scheme, self._authority)
        return self._kept


class _Batch:
    """The requests of an exchange, and their results so far."""

    def __init__(self, requests: Sequence[Request], judge: Callable[[Answer], Verdict], deadline: float) -> None:
        self.requests = requests
        self.judge = judge
        self.deadline = deadline
        self.timeout = RESPONSE_TIMEOUT_SECONDS
        self.waiting = deque(range(len(requests)))
        self.tries = [0] * len(requests)
        self.results: dict[int, Answer | NoAnswer] = {}
        self.stopped = False
        self.timed_out = False
        self.lost: str | None = None  # why the last connection ended

    def fail_waiting(self, result: NoAnswer) -> None:
        self.results.update(dict.fromkeys(self.waiting, result))
        self.waiting.clear()

    def put_back(self, index: int, otherwise: Answer | NoAnswer) -> None:
        """Repeats a request that was not handled. After MAX_CONNECTIONS tries, `otherwise` is its result."""
        if self.tries[index] < MAX_CONNECTIONS:
            self.waiting.appendleft(index)
        else:
            self.results[index] = otherwise


@dataclass
class _Stream:
    index: int
    sent_at: float
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)


class _Connection:
    """A connection, with the streams that wait for their responses."""

    def __init__(self, connected: socket.socket, scheme: str, authority: str) -> None:
        self._socket = connected
        self._target = ((":method", "POST"), (":scheme", scheme), (":authority", authority))
        self._protocol = _Protocol(H2Configuration(header_encoding="utf-8"))
        self._protocol.initiate_connection()
        self._streams: dict[int, _Stream] = {}
        self._is_trusted = False  # whether a request was answered without a stop
        self._has_answered = False  # in this exchange, also by GOAWAY
        self.is_reused = False
        self.is_closing = False

    def run(self, batch: _Batch) -> None:
        """Sends what waits, until each request has a result, or the connection takes no more."""
        self._has_answered = False
        try:
            while True:
                self._send_waiting(batch)
                if not self._streams and (self.is_closing or batch.stopped or not batch.waiting):
                    return
                if not self._receive(batch):
                    return
        except OSError:
            # A server that closes the connection may have said why, and answered, before a send failed.
            with suppress(OSError, H2Error):
                while True:
                    self._take_events(0.1, batch)
            self._lose(batch)
        except H2Error:
            self._lose(batch)

    def answers_ping(self, timeout: float) -> bool:
        """Whether the server answers a PING within so many seconds."""
        deadline = time.monotonic() + timeout
        try:
            self._protocol.ping(b"chatpush")
            self._flush(timeout)
            while (left := deadline - time.monotonic()) > 0:
                events = self._read_events(left)
                if any(isinstance(event, ConnectionTerminated) for event in events):
                    return False
                if any(isinstance(event, PingAckReceived) for event in events):
                    return True
                self._flush(left)
        except (OSError, H2Error):
            pass
        return False

    def close(self) -> None:
        self._socket.close()

    def _send_waiting(self, batch: _Batch) -> None:
        limit = min(MAX_STREAMS, self._protocol.remote_settings.max_concurrent_streams) if self._is_trusted else 1
        now = time.monotonic()
        while batch.waiting and not (self.is_closing or batch.stopped) and len(self._streams) < limit:
            request = batch.requests[batch.waiting[0]]
            if now >= batch.deadline or self._protocol.outbound_flow_control_window < len(request.body):
                break
            index = batch.waiting.popleft()
            batch.tries[index] += 1
            stream_id = self._protocol.get_next_available_stream_id()
            # The path of APNs holds the push token. It would only displace other headers from the index.
            path = NeverIndexedHeaderTuple(":path", request.path)
            self._protocol.send_headers(stream_id, [*self._target, path, *request.headers])
            self._protocol.send_data(stream_id, request.body, end_stream=True)
            self._streams[stream_id] = _Stream(index, now)
        self._flush(max(0.001, batch.deadline - now))

    def _flush(self, timeout: float) -> None:
        if data := self._protocol.data_to_send():
            self._socket.settimeout(timeout)
            self._socket.sendall(data)

    def _receive(self, batch: _Batch) -> bool:
        """Handles what arrives next. False if the time is over."""
        first = min((stream.sent_at for stream in self._streams.values()), default=time.monotonic())
        until = min(batch.deadline, first + batch.timeout)
        try:
            self._take_events(max(0.001, until - time.monotonic()), batch)
        except TimeoutError:
            self._time_out(batch)
            return bool(self._streams) or (not self.is_closing and time.monotonic() < batch.deadline)
        return True

    def _take_events(self, timeout: float, batch: _Batch) -> None:
        """Handles what arrives within so many seconds. Raises TimeoutError, another OSError, or H2Error."""
        events = self._read_events(timeout)
        for event in events:
            self._handle(event, batch)
        self._flush(timeout)

    def _read_events(self, timeout: float) -> list[Event]:
        self._socket.settimeout(timeout)
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionResetError
        return self._protocol.receive_data(data)

    def _handle(self, event: Event, batch: _Batch) -> None:
        match event:
            case ConnectionTerminated():
                self._go_away(event, batch)
            case DataReceived():
                self._protocol.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
                if stream := self._streams.get(event.stream_id):
                    stream.body += event.data or b""
            case ResponseReceived():
                self._has_answered = True
                if stream := self._streams.get(event.stream_id):
                    stream.headers = {str(name): str(value) for name, value in event.headers or ()}
            case StreamEnded():
                if stream := self._streams.pop(event.stream_id, None):
                    self._answer(stream, batch)
            case StreamReset():
                if stream := self._streams.pop(event.stream_id, None):
                    is_refused = event.error_code == ErrorCodes.REFUSED_STREAM
                    unknown = NoAnswer("StreamReset", maybe_handled=not is_refused)
                    if is_refused:
                        batch.put_back(stream.index, unknown)
                    else:
                        batch.results[stream.index] = unknown

    def _answer(self, stream: _Stream, batch: _Batch) -> None:
        status = stream.headers.get(":status", "")
        answer = Answer(int(status) if status.isdecimal() else 0, stream.headers, bytes(stream.body))
        match batch.judge(answer):
            case "reconnect":
                self._end(batch, "Reconnect")
                batch.put_back(stream.index, answer)
                return
            case "stop":
                batch.stopped = True
                # The next exchange sends its first request alone again.
                self._is_trusted = False
            case "keep":
                self._is_trusted = not batch.stopped
        batch.results[stream.index] = answer

    def _go_away(self, event: ConnectionTerminated, batch: _Batch) -> None:
        """Streams up to the last one that GOAWAY names may still be answered. The others were not handled."""
        try:
            reason = json.loads(event.additional_data or b"{}")["reason"]
        except (ValueError, KeyError, TypeError):
            reason = None
        self._end(batch, as_code(reason) or "GoAway")
        self._has_answered = True  # It was not dead: the streams that GOAWAY counts have reached the server.
        for stream_id in sorted(self._streams, reverse=True):
            if stream_id > (event.last_stream_id or 0):
                index = self._streams.pop(stream_id).index
                batch.put_back(index, NoAnswer(batch.lost or "GoAway", maybe_handled=False))

    def _time_out(self, batch: _Batch) -> None:
        """Gives up the requests that have waited too long. One slow response does not affect the others."""
        batch.timed_out = True
        now = time.monotonic()
        for stream_id, stream in list(self._streams.items()):
            if now >= min(batch.deadline, stream.sent_at + batch.timeout):
                batch.results[stream.index] = NoAnswer("ReadTimeout", maybe_handled=True)
                del self._streams[stream_id]
        self._end(batch, "ReadTimeout")

    def _lose(self, batch: _Batch) -> None:
        """The connection ended. A frozen connection that answered nothing is replaced once: it was dead before."""
        self._end(batch, "ConnectionLost")
        unknown = NoAnswer("ConnectionLost", maybe_handled=True)
        for stream_id in sorted(self._streams, reverse=True):
            index = self._streams.pop(stream_id).index
            if self.is_reused and not self._has_answered:
                batch.put_back(index, unknown)
            else:
                batch.results[index] = unknown

    def _end(self, batch: _Batch, why: str) -> None:
        self.is_closing = True
        batch.lost = why


class _Protocol(H2Connection):
    """h2 without its rule that GOAWAY ends a connection at once: https://github.com/python-hyper/h2/issues/1181

    RFC 9113, 6.8, lets the server answer the requests that it has taken.
    """

    def _receive_goaway_frame(self, frame: Any) -> tuple[list[Any], list[Event]]:
        event = ConnectionTerminated()
        event.error_code = frame.error_code
        event.last_stream_id = frame.last_stream_id
        event.additional_data = frame.additional_data or None
        return [], [event]


def _open(url: str, timeout: float) -> socket.socket:
    parts = urlsplit(url)
    is_tls = parts.scheme == "https"
    opened = socket.create_connection((parts.hostname, parts.port or (443 if is_tls else 80)), timeout)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not is_tls:
        return opened
    encrypted = _tls().wrap_socket(opened, server_hostname=parts.hostname)
    if encrypted.selected_alpn_protocol() != "h2":
        encrypted.close()
        raise ConnectionError("the server does not speak HTTP/2")
    return encrypted


@cache
def _tls() -> ssl.SSLContext:
    """The certificates are read for the first connection, so that a stack with Expo alone does not wait for them."""
    context = httpx.create_ssl_context()
    context.set_alpn_protocols(["h2"])
    return context


def outcome_without_answer(result: NoAnswer, stop: Outcome | None) -> Outcome:
    """The outcome of a request without a response. `stop`: of the request because of which the rest was not sent."""
    if not result.attempted:
        return not_attempted(stop or Outcome("retry", result.error))
    if result.maybe_handled:
        return request_outcome("maybe_sent", result.error)
    return request_outcome("retry", result.error)
