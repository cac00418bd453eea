"""The two official clients behind one interface, so that both judge the stand-in by the same tests."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from realtime import AsyncRealtimeChannel, RealtimePostgresChangesListenEvent, RealtimeSubscribeStates

from local.packages import node
from local.types import Json
from supabase import AsyncClient, acreate_client

_PASSWORD = "correct horse"
_SECONDS = 5  # that an event may take


class Events:
    """What a client saw and no test has taken yet. `history`: also what was taken."""

    def __init__(self) -> None:
        self.history: list[dict[str, Any]] = []
        self._seen: list[dict[str, Any]] = []
        self._arrived = asyncio.Condition()

    async def put(self, event: dict[str, Any]) -> None:
        async with self._arrived:
            self.history.append(event)
            self._seen.append(event)
            self._arrived.notify_all()

    def all(self, kind: str) -> list[dict[str, Any]]:
        """The events of a kind that have arrived."""
        return [event for event in self._seen if event["kind"] == kind]

    async def until(self, kind: str, **values: object) -> dict[str, Any]:
        """Waits for an event with these values, and takes it."""

        def matching() -> dict[str, Any] | None:
            wanted = {"kind": kind, **values}
            return next((event for event in self._seen if event.items() >= wanted.items()), None)

        try:
            async with asyncio.timeout(_SECONDS), self._arrived:
                await self._arrived.wait_for(lambda: matching() is not None)
                event = matching()
                assert event
                self._seen.remove(event)
                return event
        except TimeoutError:
            raise TimeoutError(f"no {kind} with {values}; seen: {self._seen}") from None


class Client(Protocol):
    """An official client."""

    events: Events

    async def sign_up(self, email: str) -> str:
        """Signs up and in. Returns the access token."""

    async def join(self, topic: str, config: Json, rows: list[Json], presence: bool) -> None:
        """Begins to join a channel. Events tell how it goes."""

    async def send(self, topic: str, event: str, payload: Json) -> Json: ...

    async def http_send(self, topic: str, event: str, payload: Json, private: bool) -> None: ...

    async def track(self, topic: str, payload: Json) -> None: ...

    async def untrack(self, topic: str) -> None: ...

    async def leave(self, topic: str) -> None: ...

    async def set_auth(self, token: str) -> None: ...


class Node:
    """A process of client.mjs, and the clients in it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.clients: dict[int, JsClient] = {}
        self._process = process

    def write(self, message: Json) -> None:
        """Sends a command."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(message).encode() + b"\n")

    async def read(self) -> None:
        """Hands over what the clients print."""
        assert self._process.stdout
        async for line in self._process.stdout:
            event = json.loads(line)
            await self.clients[event.pop("client")].events.put(event)


class JsClient:
    """@supabase/supabase-js."""

    def __init__(self, node: Node, url: str, key: str, options: Json) -> None:
        self.events = Events()
        self._node = node
        self._number = len(node.clients)
        self._commands = 0
        node.clients[self._number] = self
        node.write({"client": self._number, "command": "open", "url": url, "key": key, "options": options})

    async def call(self, command: str, **parameters: Json) -> Json:
        """Runs a command of client.mjs."""
        self._commands += 1
        id = self._commands
        self._node.write({"client": self._number, "id": id, "command": command, **parameters})
        result = await self.events.until("result", id=id)
        assert "failure" not in result, result["failure"]
        return result["result"]

    async def sign_up(self, email: str) -> str:
        return str(await self.call("sign_up", email=email, password=_PASSWORD))

    async def join(self, topic: str, config: Json, rows: list[Json], presence: bool) -> None:
        await self.call("join", topic=topic, config=config, rows=rows, presence=presence)

    async def send(self, topic: str, event: str, payload: Json) -> Json:
        return await self.call("send", topic=topic, event=event, payload=payload)

    async def http_send(self, topic: str, event: str, payload: Json, private: bool) -> None:
        await self.call("http_send", topic=topic, event=event, payload=payload, private=private)

    async def track(self, topic: str, payload: Json) -> None:
        await self.call("track", topic=topic, payload=payload)

    async def untrack(self, topic: str) -> None:
        await self.call("untrack", topic=topic)

    async def leave(self, topic: str) -> None:
        await self.call("leave", topic=topic)

    async def set_auth(self, token: str) -> None:
        await self.call("set_auth", token=token)


class PythonClient:
    """`supabase` for Python, the async client."""

    def __init__(self, client: AsyncClient) -> None:
        self.events = Events()
        self._client = client
        self._channels: dict[str, AsyncRealtimeChannel] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    def _see(self, kind: str, **values: Any) -> None:
        self._background(self.events.put({"kind": kind, **values}))

    def _background(self, coroutine: Any) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def sign_up(self, email: str) -> str:
        answer = await self._client.auth.sign_up({"email": email, "password": _PASSWORD})
        assert answer.session
        await self._client.realtime.set_auth(answer.session.access_token)
        return answer.session.access_token

    async def join(self, topic: str, config: Json, rows: list[Json], presence: bool) -> None:
        channel = self._client.channel(topic, {"config": config})
        self._channels[topic] = channel
        for row in rows:
            chosen = {name: value for name, value in row.items() if name != "event"}
            channel.on_postgres_changes(
                RealtimePostgresChangesListenEvent(row["event"]),
                lambda payload: self._see(
                    "row",
                    topic=topic,
                    type=payload["data"]["type"].value,
                    new=payload["data"].get("record") or {},
                    old=payload["data"].get("old_record") or {},
                    errors=payload["data"]["errors"],
                    commit_timestamp=payload["data"]["commit_timestamp"],
                ),
                **chosen,
            )
        channel.on_broadcast(
            "*",
            lambda payload: self._see(
                "broadcast", topic=topic, event=payload["event"], payload=payload["payload"], meta=payload.get("meta")
            ),
        )
        channel.on_system(lambda payload: self._see("system", topic=topic, **payload.model_dump()))
        if presence:
            state = channel.presence_state
            channel.on_presence_sync(lambda: self._see("presence", topic=topic, event="sync", state=dict(state())))
            channel.on_presence_join(lambda key, *_: self._see("presence", topic=topic, event="join", key=key))
            channel.on_presence_leave(lambda key, *_: self._see("presence", topic=topic, event="leave", key=key))

        def status(status: RealtimeSubscribeStates, error: Exception | None) -> None:
            self._see("status", topic=topic, status=status.value, error=str(error) if error else None)
            if "extension" in str(error):  # The client reports a system error only here.
                self._see("system", topic=topic, **json.loads(str(error)))

        self._background(channel.subscribe(status))

    async def send(self, topic: str, event: str, payload: Json) -> Json:
        await self._channels[topic].send_broadcast(event, payload)

    async def http_send(self, topic: str, event: str, payload: Json, private: bool) -> None:
        await self._client.channel(topic, {"config": {"private": private}}).http_send(event, payload)  # type: ignore[arg-type]

    async def track(self, topic: str, payload: Json) -> None:
        await self._channels[topic].track(payload)

    async def untrack(self, topic: str) -> None:
        await self._channels[topic].untrack()

    async def leave(self, topic: str) -> None:
        await self._client.remove_channel(self._channels[topic])

    async def set_auth(self, token: str) -> None:
        await self._client.realtime.set_auth(token)


@asynccontextmanager
async def node_process() -> AsyncIterator[Node]:
    """A process for clients of supabase-js."""
    process = await asyncio.create_subprocess_exec(
        node(), Path(__file__).with_name("client.mjs"), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    running = Node(process)
    reader = asyncio.create_task(running.read())
    try:
        yield running
    finally:
        assert process.stdin
        process.stdin.close()
        await process.wait()
        await reader


@asynccontextmanager
async def js_client(node: Node, url: str, key: str, **options: Json) -> AsyncIterator[JsClient]:
    """A client with the options of createClient."""
    client = JsClient(node, url, key, options)
    try:
        yield client
    finally:
        await client.call("close")


@asynccontextmanager
async def python_client(url: str, key: str) -> AsyncIterator[PythonClient]:
    """A client with its default options."""
    client = await acreate_client(url, key)
    try:
        yield PythonClient(client)
    finally:
        await client.realtime.close()
        await client.auth.close()
