"""A websocket connection and its channels, as Phoenix.Socket (https://hexdocs.pm/phoenix/Phoenix.Socket.html)."""

import asyncio
from contextlib import suppress

from aiohttp import WSMsgType, web

from local.supabase.realtime.channel import Channel
from local.supabase.realtime.frames import Frame, MalformedFrame, Version, decode, encode
from local.supabase.realtime.hub import Hub
from local.types import Json

_INTERNAL_ERROR = 1011


class Connection:
    """An open connection of a client."""

    def __init__(self, hub: Hub, socket: web.WebSocketResponse, request: web.Request, claims: Json) -> None:
        self.silent = False  # a fault: nothing is received or sent any more, and nothing is closed
        self.channels: dict[str, tuple[Channel, asyncio.Task[None]]] = {}
        self._hub = hub
        self._socket = socket
        self._request = request
        self._claims = claims
        self._version: Version = "2.0.0" if request.query.get("vsn") == "2.0.0" else "1.0.0"
        self._queue: asyncio.Queue[tuple[float, Frame]] = asyncio.Queue()

    async def run(self) -> None:
        """Serves the client until the connection ends."""
        writer = asyncio.create_task(self._write())
        try:
            await self._read()
        finally:
            tasks = [writer, *(task for _, task in self.channels.values())]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def cut(self) -> None:
        """Ends the connection without a closing frame, as a lost network does."""
        if self._request.transport:
            self._request.transport.abort()

    def send(self, frame: Frame) -> None:
        """Sends a frame after those before it."""
        if not self._hub.loses(frame):
            self._queue.put_nowait((asyncio.get_running_loop().time() + self._hub.faults.late, frame))

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, frame = await self._queue.get()
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            data = None if self.silent else encode(frame, self._version)
            with suppress(ConnectionError):  # The reader notices it, too.
                if isinstance(data, bytes):
                    await self._socket.send_bytes(data)
                elif data is not None:
                    await self._socket.send_str(data)
            self._queue.task_done()

    async def _read(self) -> None:
        while True:
            try:
                message = await self._socket.receive(self._hub.delays.silent_client)
            except TimeoutError:
                await self._socket.close()
                return
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.PING, WSMsgType.PONG):
                return
            if self.silent or message.type == WSMsgType.PONG:
                continue
            if message.type == WSMsgType.PING:
                await self._socket.pong(message.data)
                continue
            try:
                frame = decode(message.data, self._version)
            except MalformedFrame:
                await self._socket.close(code=_INTERNAL_ERROR)  # The process of a real connection fails.
                return
            if not await self._receive(frame):
                await self._queue.join()  # The client receives the reason first.
                await self._socket.close()
                return

    async def _receive(self, frame: Frame) -> bool:
        """Handles a frame. Returns whether the connection stays."""
        channel, task = self.channels.get(frame.topic, (None, None))
        if frame.topic == "phoenix":
            if frame.event == "heartbeat":
                self._reply(frame, "ok", {})
        elif frame.event == "phx_join":
            if channel and task:  # A second join replaces the first.
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                self.send(Frame(frame.topic, "phx_close", {}, channel.join.join_ref, channel.join.join_ref))
            return await self._join(frame)
        elif channel is None:
            # Phoenix answers a leave of a topic that is not joined with ok.
            left = frame.event == "phx_leave"
            self._reply(frame, *(("ok", {}) if left else ("error", {"reason": "unmatched topic"})))
        elif frame.join_ref in (None, channel.join.join_ref):
            channel.inbox.put_nowait(frame)
        return True

    async def _join(self, frame: Frame) -> bool:
        if not frame.topic.startswith("realtime:"):
            self._reply(frame, "error", {"reason": "unmatched topic"})
            return True
        # As in Phoenix, the connection handles no other frame while it waits to reject a join.
        if not self._hub.joins.allows():
            await asyncio.sleep(self._hub.delays.rejected_join)
            self._reply(frame, "error", {"reason": "ClientJoinRateLimitReached: Too many joins per second"})
            return False
        if len(self.channels) >= self._hub.limits.channels:
            await asyncio.sleep(self._hub.delays.rejected_join)
            self._reply(frame, "error", {"reason": "ChannelRateLimitReached: Too many channels"})
            return True
        channel = Channel(self._hub, self.send, self._claims, frame)
        task = asyncio.create_task(channel.run())
        self.channels[frame.topic] = (channel, task)
        task.add_done_callback(lambda ended: self._ended(frame.topic, ended))
        return True

    def _ended(self, topic: str, task: asyncio.Task[None]) -> None:
        if topic in self.channels and self.channels[topic][1] is task:
            del self.channels[topic]

    def _reply(self, frame: Frame, status: str, response: Json) -> None:
        payload = {"status": status, "response": response}
        self.send(Frame(frame.topic, "phx_reply", payload, frame.ref, frame.join_ref))
