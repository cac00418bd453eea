"""One HTTP/2 connection of the fake APNs, on h2 and asyncio: streams, their limit, and the faults of connections."""

import asyncio
import json
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, field

from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame

from local.providers.apns import faults, push_api
from local.providers.apns.protocol import CLOSING, Environment, Headers
from local.providers.apns.provider_tokens import TokensOfConnection
from local.providers.apns.push_api import Answer, Call
from local.providers.apns.state import ApnsService

# The values of the service, by https://github.com/jchambers/pushy/issues/878.
_MAX_HEADER_LIST_SIZE = 8000


@dataclass
class _Stream:
    headers: Headers
    body: bytearray = field(default_factory=bytearray)
    next_step: asyncio.Handle | None = None


class ApnsConnection(asyncio.Protocol):
    """A connection to the port of an environment. It needs no ALPN, because some clients send none."""

    _transport: asyncio.Transport

    def __init__(self, apns: ApnsService, port: Environment) -> None:
        self._apns = apns
        self._port = port
        apns.connection_count += 1
        self._number = apns.connection_count
        self._tokens = TokensOfConnection()
        # Until the first valid provider token, APNs allows one stream.
        self._stream_limit = 1
        self._is_authorized = False
        self._is_dead = False  # reads and writes nothing any more
        self._streams: dict[int, _Stream] = {}  # those that are not answered yet
        self._last_stream_id: int | None = None  # of the GOAWAY that was sent
        self._unsent: dict[int, bytes] = {}  # bodies that wait for the flow control of the client
        self._h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self._h2.local_settings = Settings(
            client=False, initial_values={SettingCodes.MAX_HEADER_LIST_SIZE: _MAX_HEADER_LIST_SIZE}
        )

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Sends the settings, unless a fault strikes."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._apns.connections.add(self)
        self._apns.changed()
        match self._apns.faults.take("connect"):
            case faults.DeadSocket():
                self._die()
                return
            case faults.Reset():
                self._reset()
                return
        self._h2.initiate_connection()
        # h2 enforces the limit when the client has acknowledged it, and then ends the connection. Before, `_open`
        # refuses the streams above it.
        self._h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: self._stream_limit})
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Reads frames."""
        if self._is_dead or self._transport.is_closing():
            return
        try:
            events = self._h2.receive_data(data)
        except ProtocolError:
            self._stop()
            self._flush()  # h2 has written a GOAWAY
            self._transport.close()
            return
        for event in events:
            self._on_event(event)
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        """Forgets the connection."""
        self._stop()
        self._apns.connections.discard(self)
        self._apns.changed()

    # Frames

    def _on_event(self, event: Event) -> None:
        match event:
            case RequestReceived(headers=headers, stream_id=stream_id):
                self._open(stream_id, [(str(name), str(value)) for name, value in headers])
            case DataReceived(stream_id=stream_id):
                self._h2.acknowledge_received_data(event.flow_controlled_length, stream_id)
                if stream_id in self._streams:
                    self._streams[stream_id].body += event.data
            case StreamEnded(stream_id=stream_id) if stream_id in self._streams:
                stream = self._streams[stream_id]
                # Not before all events are read: h2 already knows which streams the client has opened and cancelled.
                stream.next_step = asyncio.get_running_loop().call_soon(self._handle, stream_id, stream)
            case StreamReset(stream_id=stream_id):
                self._unsent.pop(stream_id, None)
                if stream_id in self._streams and (next_step := self._streams.pop(stream_id).next_step):
                    next_step.cancel()
            case WindowUpdated() | RemoteSettingsChanged():
                for stream_id in list(self._unsent):
                    self._send_body(stream_id)
            case ConnectionTerminated():
                # The client opens no further streams, but reads the answers to the open ones. h2 would not send them.
                self._h2.state_machine.state = ConnectionState.SERVER_OPEN
                self._last_stream_id = self._h2.highest_inbound_stream_id
                self._close_if_done()

    def _open(self, stream_id: int, headers: Headers) -> None:
        if self._last_stream_id is not None and stream_id > self._last_stream_id:
            return  # the GOAWAY says that this stream is not handled
        if len(self._streams) >= self._stream_limit:
            with suppress(ProtocolError):  # the client has already cancelled the stream or closed the connection
                self._h2.reset_stream(stream_id, ErrorCodes.REFUSED_STREAM)
            return
        self._streams[stream_id] = _Stream(headers)

    def _handle(self, stream_id: int, stream: _Stream) -> None:
        apns = self._apns
        call = push_api.handle(apns, self._number, self._port, self._tokens, stream.headers, bytes(stream.body))
        match call.fault:
            case faults.Slow(seconds=seconds):
                if call.fault.accepted:
                    self._deliver(call)
                answer = call.answer if call.fault.accepted else push_api.server_error(call)
                stream.next_step = asyncio.get_running_loop().call_later(seconds, self._answer, stream_id, call, answer)
                return
            case faults.DeadSocket() | faults.Reset() | faults.StreamReset():
                if call.fault.accepted:
                    self._deliver(call)
                self._break(stream_id, call.fault)
                return
            case faults.GoAway(variant="mid_flight", reason=reason):
                self._stop(stream_id)
                self._send_go_away(reason, stream_id)
            case faults.GoAway(variant=variant, reason=reason):
                if call.fault.accepted:
                    self._deliver(call)
                self._stop()
                self._send_go_away(reason, 0 if variant == "nothing_handled" else stream_id)
                if variant == "followed_by_close":
                    self._transport.close()
                return
        if apns.settings.latency_seconds:
            stream.next_step = asyncio.get_running_loop().call_later(
                apns.settings.latency_seconds, self._effect, stream_id, call
            )
        else:
            self._effect(stream_id, call)

    def _effect(self, stream_id: int, call: Call) -> None:
        if call.answer.status == 200:
            self._deliver(call)
        self._answer(stream_id, call, call.answer)

    def _answer(self, stream_id: int, call: Call, answer: Answer) -> None:
        """Ends a stream: HEADERS, and one DATA frame if there is a body."""
        del self._streams[stream_id]
        self._update_stream_limit(call, answer)
        headers = [(":status", str(answer.status)), *answer.headers]
        self._h2.send_headers(stream_id, headers, end_stream=not answer.body)
        if answer.body:
            self._unsent[stream_id] = answer.body
            self._send_body(stream_id)
        call.logged.status, call.logged.reason = answer.status, answer.reason
        self._apns.changed()
        if answer.reason in CLOSING:
            self.go_away(answer.reason)
        self._flush()
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._last_stream_id is not None and not self._streams:
            self._transport.close()

    def _send_body(self, stream_id: int) -> None:
        body = self._unsent[stream_id]
        if self._h2.local_flow_control_window(stream_id) >= len(body):
            del self._unsent[stream_id]
            self._h2.send_data(stream_id, body, end_stream=True)

    def _update_stream_limit(self, call: Call, answer: Answer) -> None:
        if isinstance(call.fault, faults.Rejection) and call.fault.stream_limit is not None:
            limit = call.fault.stream_limit
        elif answer.status == 200 or (call.is_authorized and not self._is_authorized):
            limit = self._apns.settings.streams
        else:
            return
        self._is_authorized |= call.is_authorized
        if limit != self._stream_limit:
            self._stream_limit = limit
            self._h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: limit})

    def _deliver(self, call: Call) -> None:
        assert call.notification is not None
        self._apns.deliver(call.notification)
        self._apns.changed()

    # Faults

    def go_away(self, reason: str | None) -> None:
        """Sends GOAWAY, and closes the connection without further answers."""
        self._stop()
        self._send_go_away(reason, self._h2.highest_inbound_stream_id)
        self._transport.close()

    def _send_go_away(self, reason: str | None, last_stream_id: int) -> None:
        self._flush()
        self._last_stream_id = last_stream_id
        # h2 would take the connection as closed after its own GOAWAY, and answer no stream any more.
        frame = GoAwayFrame(0, last_stream_id=last_stream_id, error_code=ErrorCodes.NO_ERROR)
        frame.additional_data = b"" if reason is None else json.dumps({"reason": reason}).encode()
        if not self._is_dead:
            self._transport.write(frame.serialize())

    def _break(self, stream_id: int, fault: faults.DeadSocket | faults.Reset | faults.StreamReset) -> None:
        match fault:
            case faults.DeadSocket():
                self._die()
            case faults.Reset():
                self._reset()
            case faults.StreamReset(code=code):
                del self._streams[stream_id]
                self._h2.reset_stream(stream_id, ErrorCodes[code])
                self._flush()

    def _die(self) -> None:
        self._stop()
        self._is_dead = True
        self._transport.pause_reading()

    def _reset(self) -> None:
        # With a linger time of 0, closing sends a TCP reset.
        linger = struct.pack("ii", 1, 0)
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.abort()

    def abort(self) -> None:
        """Closes the TCP connection at once."""
        self._transport.abort()

    def _stop(self, last_stream_id: int = 0) -> None:
        """Answers no stream above this one that is not answered yet."""
        for stream_id in [each for each in self._streams if each > last_stream_id]:
            if next_step := self._streams.pop(stream_id).next_step:
                next_step.cancel()

    def _flush(self) -> None:
        if (data := self._h2.data_to_send()) and not self._is_dead and not self._transport.is_closing():
            self._transport.write(data)
