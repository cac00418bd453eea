"""The address of a local Supabase project as apps know it: Realtime, and all else from Supabase Lite."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import hdrs, web

from local.http_server import serving
from local.supabase.postgres import SUPERUSER, Postgres
from local.supabase.project import Supabase
from local.supabase.realtime.authorization import may_write
from local.supabase.realtime.connection import Connection
from local.supabase.realtime.frames import Broadcast
from local.supabase.realtime.hub import Clock, Delays, Faults, Hub, Limits, Topic
from local.supabase.realtime.messages import InvalidKeeping, seconds_to_keep, store
from local.supabase.realtime.tokens import Keys, Rejected
from local.types import Json

_LARGEST_FRAME = 5_000_000  # bytes
_HOP_BY_HOP = {
    *(hdrs.CONNECTION, hdrs.KEEP_ALIVE, hdrs.TRANSFER_ENCODING, hdrs.UPGRADE, hdrs.TE, hdrs.TRAILER),
    *(hdrs.PROXY_AUTHENTICATE, hdrs.PROXY_AUTHORIZATION),
}


class Realtime:
    """The running server, and its faults."""

    def __init__(self, hub: Hub, lite_url: str) -> None:
        self.url = ""  # of the whole project, for the clients of Supabase
        self.connections: set[Connection] = set()
        self.refused = asyncio.Event()  # a connection was refused since `refuse`
        self._hub = hub
        self._lite_url = lite_url

    def cut(self) -> None:
        """Ends all connections without a closing frame."""
        for connection in self.connections:
            connection.cut()

    def silence(self) -> None:
        """Lets all connections die silently: they stay open, and nothing goes through. New connections work."""
        for connection in self.connections:
            connection.silent = True

    def refuse(self, status: int = 503) -> None:
        """Refuses new connections with this HTTP status until `accept`. 0: drops them without an answer."""
        self.refused.clear()
        self._hub.faults.refusal = status

    def accept(self) -> None:
        """Accepts new connections again."""
        self._hub.faults.refusal = None

    def delay(self, seconds: float) -> None:
        """Makes each frame to a client late by some seconds from now on. Their order stays."""
        self._hub.faults.late = seconds

    def lose(self, event: str, count: int = 1) -> None:
        """Drops the next frames with this event, such as postgres_changes, broadcast, system or phx_reply."""
        self._hub.faults.to_lose[event] += count

    def expire_tokens(self) -> None:
        """Makes each token that was issued in this second or earlier expired. The channels that use one close."""
        self._hub.faults.expired_before = int(time.time()) + 1
        for members in self._hub.members.values():
            for member in members:
                member.check_token()

    def reset(self) -> None:
        """Ends all faults, for example between two tests. Tokens that a fault made expired are accepted again."""
        self._hub.faults = Faults()

    def application(self) -> web.Application:
        """The HTTP server."""
        app = web.Application(client_max_size=_LARGEST_FRAME)
        app.add_routes(
            [
                web.get("/realtime/v1/websocket", self._connect),
                web.post("/realtime/v1/api/broadcast", self._broadcast_batch),
                web.post("/realtime/v1/api/broadcast/{topic}/events/{event}", self._broadcast_one),
                web.options("/{path:.*}", _preflight),
                web.route("*", "/{path:.*}", self._pass_on),
            ]
        )
        return app

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        refusal = self._hub.faults.refusal
        if refusal is not None:
            self.refused.set()
        if refusal == 0 and request.transport:
            request.transport.abort()
        if refusal is not None:
            return web.json_response({"error": "refused by a scripted fault"}, status=refusal or 503)
        try:
            claims = self._api_claims(request)
        except Rejected as error:
            await asyncio.sleep(self._hub.delays.rejected_connection)
            return web.json_response({"error": error.message}, status=401)
        if len(self.connections) >= self._hub.limits.connections:
            await asyncio.sleep(self._hub.delays.rejected_connection)
            return web.json_response({"error": "Too many connected users"}, status=429)
        # aiohttp rejects a frame of max_msg_size, too.
        socket = web.WebSocketResponse(autoping=False, max_msg_size=_LARGEST_FRAME + 1, compress=False)
        await socket.prepare(request)
        connection = Connection(self._hub, socket, request, claims)
        self.connections.add(connection)
        try:
            await connection.run()
        finally:
            self.connections.discard(connection)
        return socket

    def _api_claims(self, request: web.Request) -> Json:
        key = request.headers.get("x-api-key") or request.headers.get("apikey") or request.query.get("apikey")
        if not key:
            raise Rejected("InvalidJWTToken", "No API key found in request")
        return self._hub.keys.of_api_key(key)

    def _claims(self, request: web.Request) -> Json:
        """The claims of the caller of the REST API. Raises Rejected."""
        api_claims = self._api_claims(request)
        token = request.headers.get(hdrs.AUTHORIZATION, "").removeprefix("Bearer ").strip()
        return self._hub.claims(token) if token and not token.startswith("sb_") else api_claims

    async def _broadcast_batch(self, request: web.Request) -> web.Response:
        try:
            body = await request.json()
            messages = [
                (Topic(message["topic"], private=message.get("private") is True), _broadcast(message))
                for message in body["messages"]
            ]
        except (ValueError, KeyError, TypeError, AttributeError):
            return web.json_response({"errors": {"messages": ["can't be blank"]}}, status=422)
        return await self._send(request, messages)

    async def _broadcast_one(self, request: web.Request) -> web.Response:
        body = await request.read()
        content: Json | bytes = body
        if request.content_type != "application/octet-stream":
            try:
                content = json.loads(body)
            except ValueError:
                return web.json_response({"errors": {"payload": ["is invalid"]}}, status=422)
        topic = Topic(request.match_info["topic"], private=request.query.get("private") == "true")
        ttl = request.query.get("persist[ttl]")
        persist = request.query.get("persist") if ttl is None else {"ttl": ttl}
        try:
            kept = seconds_to_keep(persist) is not None
        except InvalidKeeping as error:
            return web.json_response({"errors": {"persist": [str(error)]}}, status=422)
        if kept and not topic.private:
            return web.json_response({"errors": {"persist": ["can only be used on private channels"]}}, status=422)
        return await self._send(request, [(topic, Broadcast(request.match_info["event"], content, persist=persist))])

    async def _send(self, request: web.Request, messages: list[tuple[Topic, Broadcast]]) -> web.Response:
        hub = self._hub
        try:
            claims = self._claims(request)
        except Rejected as error:
            return web.json_response({"message": error.message}, status=401)
        if not hub.messages.allows(len(messages)):
            return web.json_response({"message": "You have exceeded your rate limit"}, status=429)
        if any(message.size > hub.limits.broadcast_bytes for _, message in messages):
            errors = {"payload": ["Payload size exceeds tenant limit"]}
            return web.json_response({"errors": errors}, status=422)
        for topic, message in messages:
            if not topic.private:
                hub.broadcast(topic, message)
                continue
            # As on the real server, a message that RLS forbids is dropped, and the answer is the same.
            rights = await may_write(hub.session, topic.name, claims)
            if rights.broadcast:
                hub.broadcast(topic, message)
            seconds = seconds_to_keep(message.persist)
            if seconds and rights.broadcast and rights.persistence:
                await store(hub.session, topic.name, message, seconds)
        return web.Response(status=202)

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        """Passes a request on to Supabase Lite, as the hosted gateway does to Auth and the Data API."""
        headers = [(name, value) for name, value in request.headers.items() if name not in _HOP_BY_HOP]
        try:
            async with self._http.request(
                request.method,
                f"{self._lite_url}{request.raw_path}",
                headers=headers,
                data=request.content if request.can_read_body else None,
                allow_redirects=False,
            ) as answer:
                response = web.StreamResponse(status=answer.status, reason=answer.reason)
                for name, value in answer.headers.items():
                    if name not in _HOP_BY_HOP:
                        response.headers.add(name, value)
                response.headers.setdefault(hdrs.ACCESS_CONTROL_ALLOW_ORIGIN, "*")  # Lite's Auth sends none
                await response.prepare(request)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
                return response
        except aiohttp.ClientConnectionError as error:
            # A stopped project answers nothing.
            if request.transport:
                request.transport.abort()
            raise web.HTTPBadGateway from error

    @asynccontextmanager
    async def serving(self, port: int) -> AsyncIterator[None]:
        """Serves while the context is open."""
        async with (
            aiohttp.ClientSession(auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()) as self._http,
            serving(self.application(), port, shutdown_timeout=0.1) as self.url,
        ):
            yield


async def _preflight(request: web.Request) -> web.Response:
    """Lets web apps of any origin send any header, as the hosted gateway does. Lite's Auth allows none."""
    return web.Response(
        status=204,
        headers={
            hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: "*",
            hdrs.ACCESS_CONTROL_ALLOW_METHODS: "GET,HEAD,PUT,PATCH,POST,DELETE",
            hdrs.ACCESS_CONTROL_ALLOW_HEADERS: request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, "*"),
            hdrs.ACCESS_CONTROL_MAX_AGE: "3600",
        },
    )


def _broadcast(message: Json) -> Broadcast:
    if not isinstance(message["topic"], str) or not isinstance(message["event"], str):
        raise TypeError("topic and event of a message are strings")
    return Broadcast(message["event"], message["payload"])


@asynccontextmanager
async def realtime(
    server: Postgres,
    project: Supabase,
    *,
    delays: Delays | None = None,
    limits: Limits | None = None,
    clock: Clock = time.monotonic,
    port: int = 0,
) -> AsyncIterator[Realtime]:
    """The project with Realtime, at `Realtime.url`. Reads the database only while a client has joined a channel.

    The clock is that of the limits in a time.
    """
    keys = Keys(project.publishable_key, project.secret_key, project.jwt_secret)
    hub = Hub(server.dsn(role=SUPERUSER), keys, delays or Delays(), limits or Limits(), clock)
    running = Realtime(hub, project.url)
    try:
        async with running.serving(port):
            yield running
    finally:
        await hub.close()
