"""HTTP/1.1 and HTTP/2 on one port, with or without TLS, on connections that can fail on command.

aiohttp serves HTTP/1.1. HTTP/2 is written on the `h2` package, because no server offers GOAWAY frames with a chosen
last stream.
"""

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Literal, Protocol

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
from aiohttp import web
from hyperframe.frame import GoAwayFrame

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# The last stream that a GOAWAY frame names, and what follows.
# zero: stream 0. The connection closes at once.
# earlier: the stream before the request, which is not handled. The connection closes after the answers to earlier ones.
# this: the stream of the request, after the answer to it. The connection closes after the answers to earlier ones.
# unanswered: the stream of the request. The connection closes at once.
type LastStream = Literal["zero", "earlier", "this", "unanswered"]


@dataclass(frozen=True)
class Request:
    """A request, whatever its version of HTTP. The names of the headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: "Connection"
    stream_id: int  # 0 in HTTP/1.1


@dataclass(frozen=True)
class Response:
    """An answer, whatever the version of HTTP."""

    status: int
    headers: dict[str, str]
    body: bytes


# Returns None: the request gets no answer, because its connection was ended.
type Answer = Callable[[Request], Awaitable[Response | None]]


class _Inner(Protocol):
    """What a connection needs of the protocol of its version of HTTP."""

    transport: asyncio.Transport | None

    def connection_made(self, transport: asyncio.Transport) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def connection_lost(self, error: Exception | None) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class Connection(asyncio.Protocol):
    """A connection of a client. Its first bytes say which version of HTTP it speaks."""

    version: Literal["HTTP/1.1", "HTTP/2"] = "HTTP/1.1"
    _transport: asyncio.Transport
    _inner: _Inner | None = None
    _is_silent = False

    def __init__(self, server: "Server", number: int) -> None:
        self._server = server
        self.number = number
        self._start = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.connections[transport] = self

    def data_received(self, data: bytes) -> None:
        if self._is_silent:
            return
        if self._inner is not None:
            self._inner.data_received(data)
            return
        if not self._start:
            # A connection that is reset earlier may be, for the client, one that could not be opened.
            self._server.on_connect(self)
            if self._is_silent or not self.is_open:
                return
        self._start += data
        if len(self._start) < len(_PREFACE) and _PREFACE.startswith(self._start):
            return
        if self._start.startswith(_PREFACE):
            self.version = "HTTP/2"
            self._inner = _Http2(self, self._server.answer)
        else:
            self._inner = self._server.http1()
        self._inner.connection_made(self._transport)
        self._inner.data_received(self._start)

    def connection_lost(self, error: Exception | None) -> None:
        del self._server.connections[self._transport]
        if self._inner is not None and not self._is_silent:
            self._inner.connection_lost(error)

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()

    @property
    def is_open(self) -> bool:
        """Whether the client can still write to it. A silent connection is open."""
        return not self._transport.is_closing()

    def reset(self) -> None:
        """Ends the connection with a TCP reset, which a linger time of 0 causes. Open requests get no answer."""
        if self.is_open:
            linger = struct.pack("ii", 1, 0)
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._transport.abort()

    def close(self) -> None:
        """Ends the connection in order. Open requests get no answer."""
        self._transport.close()

    def silence(self) -> None:
        """Keeps the connection open, ignores what it receives, and answers nothing."""
        if self._inner is not None and not self._is_silent:
            self._inner.transport = None  # so that it does not close the connection
            self._inner.connection_lost(None)
        self._is_silent = True

    def go_away(self, stream_id: int, last: LastStream, reason: str) -> None:
        """Sends GOAWAY, with `reason` as JSON. HTTP/1.1 has no such frame: a request without answer ends there."""
        if isinstance(self._inner, _Http2):
            self._inner.go_away(stream_id, last, reason)
        elif last != "this":
            self.close()


class _Http2:
    """The HTTP/2 of one connection. It allows the 100 concurrent streams that are the default of `h2`."""

    def __init__(self, connection: Connection, answer: Answer) -> None:
        self._connection = connection
        self._answer = answer
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self._headers: dict[int, dict[str, str]] = {}  # of requests that are not complete, by stream
        self._bodies: dict[int, bytearray] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}  # the answers to complete requests, by stream
        self._window = asyncio.Event()
        self._last_stream: int | None = None  # that GOAWAY named; later ones are not handled
        self._farewells: dict[int, str] = {}  # the reasons of GOAWAY frames that follow an answer, by its stream

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport: asyncio.Transport | None = transport
        self._h2.initiate_connection()
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        for task in self._tasks.values():
            task.cancel()

    def pause_writing(self) -> None:
        """Answers are small: those that the client does not read stay in memory."""

    def resume_writing(self) -> None:
        """See pause_writing."""

    def data_received(self, data: bytes) -> None:
        try:
            events = self._h2.receive_data(data)
        except h2.exceptions.TooManyStreamsError:
            # FCM says so: https://github.com/firebase/firebase-admin-node/issues/2943
            self._send_go_away(max(self._tasks, default=0), "exceeded_max_concurrent_streams")
            self._end()
            return
        except h2.exceptions.ProtocolError:
            self._flush()
            self._end()
            return
        for event in events:
            self._handle(event)
        self._flush()

    def _handle(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived(stream_id=int(stream_id), headers=list(headers)):
                self._headers[stream_id] = {str(name): str(value) for name, value in headers}
                self._bodies[stream_id] = bytearray()
            case h2.events.DataReceived(stream_id=int(stream_id), data=bytes(data), flow_controlled_length=int(size)):
                self._bodies[stream_id] += data
                self._h2.acknowledge_received_data(size, stream_id)
            case h2.events.StreamEnded(stream_id=int(stream_id)):
                request = self._headers.pop(stream_id), bytes(self._bodies.pop(stream_id))
                if self._last_stream is None or stream_id <= self._last_stream:
                    self._tasks[stream_id] = asyncio.create_task(self._respond(stream_id, *request))
            case h2.events.StreamReset(stream_id=int(stream_id)):
                self._bodies.pop(stream_id, None)
                if task := self._tasks.pop(stream_id, None):
                    task.cancel()
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                self._window.set()
            case h2.events.ConnectionTerminated():
                self._end()

    async def _respond(self, stream_id: int, headers: dict[str, str], body: bytes) -> None:
        # A request may begin only after GOAWAY, although it was complete before.
        if self._last_stream is not None and stream_id > self._last_stream:
            return
        path, method = headers.pop(":path"), headers.pop(":method")
        response = await self._answer(Request(method, path, headers, body, self._connection, stream_id))
        if response is not None:
            size = {"content-length": str(len(response.body))}
            fields = [(name.lower(), value) for name, value in (response.headers | size).items()]
            self._h2.send_headers(stream_id, [(":status", str(response.status)), *fields], end_stream=not response.body)
            await self._send_body(stream_id, response.body)
            self._flush()
        if reason := self._farewells.pop(stream_id, None):
            self._send_go_away(stream_id, reason)
        self._tasks.pop(stream_id, None)
        if self._last_stream is not None and not self._tasks:
            self._end()

    async def _send_body(self, stream_id: int, body: bytes) -> None:
        while body:
            size = min(self._h2.local_flow_control_window(stream_id), self._h2.max_outbound_frame_size)
            if size == 0:
                self._window.clear()
                self._flush()
                await self._window.wait()
                continue
            self._h2.send_data(stream_id, body[:size], end_stream=size >= len(body))
            body = body[size:]

    def go_away(self, stream_id: int, last: LastStream, reason: str) -> None:
        """Sends GOAWAY for the request of a stream; see LastStream."""
        if last == "this":
            self._farewells[stream_id] = reason
            return
        # Clients have odd stream ids.
        self._send_go_away({"zero": 0, "earlier": max(stream_id - 2, 0), "unanswered": stream_id}[last], reason)
        if last != "earlier":
            self._end()

    def _send_go_away(self, last_stream: int, reason: str) -> None:
        self._last_stream = last_stream
        # H2Connection.close_connection would forbid the answers to open streams.
        frame = GoAwayFrame(
            last_stream_id=last_stream,
            error_code=h2.errors.ErrorCodes.NO_ERROR,
            additional_data=json.dumps({"reason": reason}).encode(),
        )
        self._write(frame.serialize())

    def _flush(self) -> None:
        self._write(self._h2.data_to_send())

    def _write(self, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def _end(self) -> None:
        self._connection.close()


class Server:
    """What the connections of a server share."""

    def __init__(self, answer: Answer, on_connect: Callable[[Connection], None]) -> None:
        self.answer = answer
        self.on_connect = on_connect
        self.connections: dict[asyncio.Transport, Connection] = {}  # the open ones, oldest first
        self._numbers = count(1)
        self.http1: Callable[[], _Inner]  # set while it is served

    @asynccontextmanager
    async def serving(self, port: int, tls: ssl.SSLContext | None) -> AsyncIterator[int]:
        """Serves on 127.0.0.1 while the context is open; port 0 takes a free one. Gives the port.

        Raises OSError: the port is taken.
        """
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer_http1)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        assert runner.server is not None
        self.http1 = runner.server
        listener = await asyncio.get_running_loop().create_server(
            lambda: Connection(self, next(self._numbers)), "127.0.0.1", port, ssl=tls
        )
        try:
            yield listener.sockets[0].getsockname()[1]
        finally:
            listener.close()
            for connection in list(self.connections.values()):
                connection.reset()
            await listener.wait_closed()
            await runner.cleanup()

    async def _answer_http1(self, request: web.Request) -> web.Response:
        assert isinstance(request.transport, asyncio.Transport)
        connection = self.connections[request.transport]
        headers = {name.lower(): value for name, value in request.headers.items()}
        response = await self.answer(
            Request(request.method, request.path_qs, headers, await request.read(), connection, 0)
        )
        if response is None:
            return web.Response()  # aiohttp needs a return value; nothing is written to an ended connection
        return web.Response(status=response.status, headers=response.headers, body=response.body)
