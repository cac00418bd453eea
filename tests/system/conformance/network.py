"""The network of one phone: it passes requests and live connections on, counts them, and has scripted faults."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import WSMsgType, hdrs, web

from local.http_server import serving

_HOP_BY_HOP = {hdrs.CONNECTION, hdrs.HOST, hdrs.KEEP_ALIVE, hdrs.TRANSFER_ENCODING, hdrs.CONTENT_LENGTH}
_API = "/rest/v1/"
_LIVE = "/realtime/v1/websocket"


class Network:
    """A fault holds until it is ended. `changed` is called after each request.

    The kind of a request of the Data API is its method and path, such as `POST chat_messages`, or `POST rpc/NAME`.
    """

    def __init__(self, http: aiohttp.ClientSession, api: str, live: str, changed: Callable[[], None]) -> None:
        self.url = ""
        self.requests: Counter[str] = Counter()
        self.to_lose: Counter[str] = Counter()  # answers by kind; the server has done its work
        self.failing: dict[str, tuple[int, str]] = {}  # a text in a request; status and code of the answer
        self._http = http
        self._api = api
        self._live = live
        self._changed = changed
        self._offline = False
        self._rejects_token = False
        self._ended = False
        self._transports: set[asyncio.Transport] = set()

    def go_offline(self) -> None:
        """Cuts the live connections, and lets no request through."""
        self._offline = True
        for transport in self._transports:
            transport.abort()

    def go_online(self) -> None:
        """Lets requests through again."""
        self._offline = False

    def reject_token(self) -> None:
        """Answers the Data API's requests as if the token had expired, until Auth issues another one."""
        self._rejects_token = True

    def end_session(self) -> None:
        """As `reject_token`; the session cannot be renewed either. The next sign-in starts another one."""
        self.reject_token()
        self._ended = True

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        assert isinstance(request.transport, asyncio.Transport)
        if self._offline:
            return _no_answer(request)
        kind = f"{request.method} {request.path.removeprefix(_API)}"
        self.requests[kind] += 1
        self._changed()
        if request.path == _LIVE:
            return await self._connect(request, request.transport)
        body = await request.read()
        if request.query.get("grant_type") == "refresh_token":
            await asyncio.sleep(1 - time.time() % 1)  # Auth issues the same token twice within a second
        if (refusal := self._refusal(request, body)) is not None:
            return refusal
        headers = [(name, value) for name, value in request.headers.items() if name.title() not in _HOP_BY_HOP]
        url = f"{self._api}{request.raw_path}"
        async with self._http.request(request.method, url, headers=headers, data=body) as answer:
            content = await answer.read()
        if self._offline or self.to_lose[kind]:
            self.to_lose[kind] -= not self._offline
            return _no_answer(request)
        passed_on = [(name, value) for name, value in answer.headers.items() if name.title() not in _HOP_BY_HOP]
        return web.Response(body=content, status=answer.status, headers=passed_on)

    def _refusal(self, request: web.Request, body: bytes) -> web.Response | None:
        for text, (status, code) in self.failing.items():
            if text.encode() in body:
                return web.json_response({"code": code, "message": "a scripted fault"}, status=status)
        if request.path == "/auth/v1/token":
            if request.query["grant_type"] == "password":
                self._ended = False
            elif self._ended:
                error = {"code": "refresh_token_not_found", "message": "Invalid Refresh Token"}
                return web.json_response(error, status=400)
            self._rejects_token = False
        elif self._rejects_token and request.path.startswith(_API):
            return web.json_response({"code": "PGRST303", "message": "JWT expired"}, status=401)
        return None

    async def _connect(self, request: web.Request, transport: asyncio.Transport) -> web.StreamResponse:
        timeout = aiohttp.ClientWSTimeout(ws_close=0.1)  # one that is silent does not say goodbye
        url = f"{self._live}{request.raw_path}"
        try:
            async with self._http.ws_connect(url, autoping=False, max_msg_size=0, timeout=timeout) as upstream:
                socket = web.WebSocketResponse(autoping=False, max_msg_size=0, compress=False)
                await socket.prepare(request)
                self._transports.add(transport)
                await _first_of(_pass_on(socket, upstream), _pass_on(upstream, socket))
                return socket
        except aiohttp.WSServerHandshakeError as error:
            return web.Response(status=error.status)
        except aiohttp.ClientError:
            return _no_answer(request)
        finally:
            if transport in self._transports:
                self._transports.discard(transport)
                transport.abort()


type _Socket = web.WebSocketResponse | aiohttp.ClientWebSocketResponse


async def _pass_on(source: _Socket, target: _Socket) -> None:
    """Passes frames on until one side ends."""
    try:
        async for message in source:
            if message.type is WSMsgType.TEXT:
                await target.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await target.send_bytes(message.data)
            elif message.type is WSMsgType.PING:
                await target.ping(message.data)
            elif message.type is WSMsgType.PONG:
                await target.pong(message.data)
    except ConnectionError:
        return


async def _first_of(*ways: Coroutine[None, None, None]) -> None:
    """Runs all until one ends."""
    tasks = [asyncio.create_task(way) for way in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def _no_answer(request: web.Request) -> web.Response:
    if request.transport:
        request.transport.abort()
    return web.Response()


@asynccontextmanager
async def network(api: str, live: str, changed: Callable[[], None]) -> AsyncIterator[Network]:
    """A network to a project: the Data API and Auth at `api`, and Realtime at `live`."""
    async with aiohttp.ClientSession(auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()) as http:
        phone = Network(http, api, live, changed)
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", phone._answer)
        async with serving(app, shutdown_timeout=1) as phone.url:
            yield phone
            phone.go_offline()
