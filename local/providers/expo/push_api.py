"""The two HTTP endpoints of the Expo push service: send and getReceipts."""

import asyncio
import json
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from aiohttp import web

from local.providers.expo import protocol as expo_protocol
from local.providers.expo.faults import Endpoint
from local.providers.expo.protocol import Json, RefusedError
from local.providers.expo.state import ExpoService, LoggedRequest


@dataclass(frozen=True)
class _Call:
    """A valid request: the recipients it concerns, and the function that performs it and returns the answer."""

    tokens: list[str]
    receipt_ids: list[str]
    perform: Callable[[], Json]


type _Read = Callable[[ExpoService, object], _Call]


def routes(expo: ExpoService) -> list[web.RouteDef]:
    """The endpoints under the paths of https://exp.host."""
    return [
        web.post("/--/api/v2/push/send", partial(_answer, expo, "send", _read_send)),
        web.post("/--/api/v2/push/getReceipts", partial(_answer, expo, "receipts", _read_receipts)),
    ]


def _read_send(expo: ExpoService, body: object) -> _Call:
    messages = expo_protocol.read_messages(body)
    tokens = [token for message in messages for token in message.to]
    expo.check_project(tokens)

    def perform() -> Json:
        tickets = expo.accept(messages)
        # Expo answers a single message object with a single ticket object, not with a list.
        return {"data": tickets[0] if isinstance(body, dict) and len(tickets) == 1 else list(tickets)}

    return _Call(tokens, [], perform)


def _read_receipts(expo: ExpoService, body: object) -> _Call:
    ids = expo_protocol.read_receipt_ids(body)
    return _Call(expo.tokens_of(ids), ids, lambda: {"data": expo.receipts(ids)})


async def _answer(expo: ExpoService, endpoint: Endpoint, read: _Read, request: web.Request) -> web.Response:
    logged = LoggedRequest(at=expo.now(), endpoint=endpoint, headers=_headers_without_secret(request))
    expo.requests.append(logged)
    try:
        _check_bearer(request, expo.settings.access_token)
        call = read(expo, await _json_body(request))
        logged.tokens, logged.receipt_ids = call.tokens, call.receipt_ids
        response = await _perform(expo, call, logged)
    except RefusedError as refusal:
        response = web.json_response(refusal.body, status=refusal.status)
    await asyncio.sleep(expo.settings.latency_seconds)
    logged.status = None if response is None else response.status
    expo.changed()
    if response is None:
        _reset_connection(request)
        return web.Response()  # aiohttp needs a return value; the connection is closed
    return response


async def _perform(expo: ExpoService, call: _Call, logged: LoggedRequest) -> web.Response | None:
    """The response; None: the connection is to be reset."""
    fault = expo.faults.take_request_fault(logged.endpoint, call.tokens)
    if fault is None:
        return web.json_response(call.perform())
    logged.fault = fault.kind
    answer = call.perform() if fault.accepted else None
    expo.changed()
    return await fault.respond(answer)


def _check_bearer(request: web.Request, access_token: str | None) -> None:
    authorization = request.headers.get("Authorization")
    if authorization is None and access_token is not None:
        raise expo_protocol.unauthorized()
    # Without an access token every bearer is unknown. This fake rejects it, as Expo may.
    if authorization is not None and (access_token is None or authorization != f"Bearer {access_token}"):
        raise expo_protocol.invalid_token()


async def _json_body(request: web.Request) -> object:
    """The body, which aiohttp has unzipped."""
    if request.content_type != "application/json":
        raise expo_protocol.bad_request("VALIDATION_ERROR", "The content-type must be application/json.")
    try:
        return json.loads(await request.read())
    except ValueError as error:
        raise expo_protocol.bad_request("VALIDATION_ERROR", f"The body is not JSON: {error}.") from error


def _headers_without_secret(request: web.Request) -> dict[str, str]:
    headers = {name.lower(): value for name, value in request.headers.items()}
    return headers | ({"authorization": "(left out)"} if "authorization" in headers else {})


def _reset_connection(request: web.Request) -> None:
    if request.transport is None:
        return  # the sender has closed the connection
    # With a linger time of 0, closing sends a TCP reset.
    request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()
