"""A fake HTTP/2 server for the clients of FCM and APNs: each request is answered by a script, on a socket pair."""

import json
import socket
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Thread
from typing import Any

import pytest
from chat_push import http2
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived, StreamEnded
from h2.settings import SettingCodes, Settings


@contextmanager
def trusted(authority: str) -> Iterator[None]:
    """HTTP/2 connections that are opened meanwhile trust this authority, a PEM file, alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", authority)
        http2._tls.cache_clear()
        yield
    http2._tls.cache_clear()


@dataclass(frozen=True)
class Reply:
    """An answer. A body of text is sent as it is, any other as JSON."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class GoAway:
    """GOAWAY with this reason. handled: the stream of this request counts as taken. Then the connection closes."""

    reason: str = "Shutdown"
    handled: bool = False
    replies_first: bool = False  # to all requests that are held


@dataclass(frozen=True)
class Reset:
    """RST_STREAM."""

    code: ErrorCodes = ErrorCodes.REFUSED_STREAM


class Hang:
    """No answer."""


class Close:
    """The connection closes."""


type Action = Reply | GoAway | Reset | Hang | Close


@dataclass(frozen=True)
class Received:
    """A request, the number of its connection, and how many requests were open there, including it."""

    headers: dict[str, str]
    body: dict[str, Any]
    connection: int
    open: int


class Http2Server:
    """Answers by `script` in the order of the requests, then by `default`.

    hold: answers are kept back until so many requests are open, so that a test sees what is sent at once.
    """

    def __init__(
        self,
        *script: Action,
        default: Callable[[Received], Action] = lambda request: Reply(),
        hold: int = 1,
        max_streams: int = 1000,
    ) -> None:
        self.script = deque(script)
        self.default = default
        self.hold = hold
        self.max_streams = max_streams
        self.requests: list[Received] = []
        self.connections: list[socket.socket] = []
        self.connect_fault: Exception | None = None
        self.answers_ping = True

    def connect(self, timeout: float) -> socket.socket:
        """The client's end of another connection."""
        if self.connect_fault:
            raise self.connect_fault
        client, server = socket.socketpair()
        self.connections.append(server)
        Thread(target=self._serve, args=(server, len(self.connections)), daemon=True).start()
        return client

    def drop_connections(self) -> None:
        """Closes all connections, as a server does while the client is frozen."""
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _serve(self, connected: socket.socket, number: int) -> None:
        protocol = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        limit = {SettingCodes.MAX_CONCURRENT_STREAMS: self.max_streams}
        protocol.local_settings = Settings(client=False, initial_values=limit)
        protocol.initiate_connection()
        headers: dict[int, dict[str, str]] = {}
        bodies: dict[int, bytes] = {}
        open_streams: dict[int, Action] = {}
        with connected, suppress(OSError):
            connected.sendall(protocol.data_to_send())
            while data := connected.recv(65536):
                is_closed = False
                for event in protocol.receive_data(data):
                    match event:
                        case RequestReceived():
                            headers[event.stream_id] = {str(k): str(v) for k, v in event.headers or ()}
                        case DataReceived():
                            bodies[event.stream_id] = bodies.get(event.stream_id, b"") + (event.data or b"")
                            protocol.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
                        case StreamEnded():
                            stream = event.stream_id
                            body = json.loads(bodies[stream])
                            request = Received(headers[stream], body, number, len(open_streams) + 1)
                            self.requests.append(request)
                            action = self.script.popleft() if self.script else self.default(request)
                            open_streams[stream] = action
                            if is_closed := self._act(protocol, open_streams, stream):
                                break
                if self.answers_ping:
                    connected.sendall(protocol.data_to_send())
                if is_closed:
                    return

    def _act(self, protocol: H2Connection, open_streams: dict[int, Action], last: int) -> bool:
        """Does what is due. Returns whether the connection closes."""
        action = open_streams[last]
        if isinstance(action, Close):
            return True
        if isinstance(action, GoAway):
            if action.replies_first:
                self._reply_to_all(protocol, open_streams)
            protocol.close_connection(
                ErrorCodes.NO_ERROR,
                json.dumps({"reason": action.reason}).encode(),
                last if action.handled else last - 2 if last > 1 else 0,
            )
            return True
        is_first = len(open_streams) == 1 and last == 1
        if is_first or len(open_streams) >= self.hold:
            self._reply_to_all(protocol, open_streams)
        return False

    def _reply_to_all(self, protocol: H2Connection, open_streams: dict[int, Action]) -> None:
        for stream, action in list(open_streams.items()):
            if isinstance(action, Reply):
                text = action.body if isinstance(action.body, str) else json.dumps(action.body or {})
                protocol.send_headers(stream, [(":status", str(action.status)), *action.headers.items()])
                protocol.send_data(stream, text.encode(), end_stream=True)
                del open_streams[stream]
            elif isinstance(action, Reset):
                protocol.reset_stream(stream, action.code)
                del open_streams[stream]
