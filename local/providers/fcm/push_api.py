"""The two endpoints: the sends of FCM, and the grants of Google's token endpoint."""

import asyncio
import json
import re
from collections.abc import Callable
from datetime import timedelta
from urllib.parse import parse_qsl, urlsplit

from local.providers.fcm.accounts import TOKEN_PATH, oauth_error
from local.providers.fcm.connections import Request, Response
from local.providers.fcm.faults import HtmlError, refused
from local.providers.fcm.protocol import Json, RefusedError, read_request
from local.providers.fcm.state import FcmService, LoggedRequest

_SEND_PATH = re.compile(r"/v1/projects/([^/]+)/messages:send")

type _Perform = Callable[[], Json]  # performs a valid request and returns the answer


async def answer(fcm: FcmService, request: Request) -> Response | None:
    """The response to a request. Returns None: the request gets no response, because a fault has struck."""
    path = urlsplit(request.path).path
    sends = _SEND_PATH.fullmatch(path)
    if request.method != "POST" or not (sends or path == TOKEN_PATH):
        return HtmlError(status=404).page()
    logged = LoggedRequest(
        at=fcm.now(),
        endpoint="send" if sends else "token",
        http_version=request.connection.version,
        connection=request.connection.number,
        stream=request.stream_id,
        headers=_headers_without_secret(request),
    )
    fcm.requests.append(logged)
    try:
        perform = _read_send(fcm, request, sends[1], logged) if sends else _read_grant(fcm, request)
        response = await _perform(fcm, request, perform, logged)
    except RefusedError as refusal:
        response = refused(refusal)
    await asyncio.sleep(fcm.settings.latency_seconds)
    logged.status = None if response is None else response.status
    fcm.changed()
    return response


async def _perform(fcm: FcmService, request: Request, perform: _Perform, logged: LoggedRequest) -> Response | None:
    fault = fcm.faults.take(logged.endpoint, logged.token)
    if fault is None:
        return _json(perform())
    logged.fault = fault.kind
    response = _json(perform()) if fault.accepted else None
    fcm.changed()
    return await fault.respond(request, response)


def _read_send(fcm: FcmService, request: Request, project: str, logged: LoggedRequest) -> _Perform:
    fcm.check(_bearer(request), project)
    body = read_request(request.body)
    logged.token, logged.validate_only = body.message.device or None, body.validate_only
    return lambda: {"name": fcm.send(body.message, project, validate_only=body.validate_only)}


def _read_grant(fcm: FcmService, request: Request) -> _Perform:
    if request.headers.get("content-type", "").split(";")[0] != "application/x-www-form-urlencoded":
        raise oauth_error("invalid_request", "The content type must be application/x-www-form-urlencoded")
    form = dict(parse_qsl(request.body.decode(errors="replace")))
    lifetime = timedelta(seconds=fcm.settings.token_seconds)
    return lambda: fcm.accounts.grant(form, fcm.now(), lifetime)


def _bearer(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else None


def _json(body: Json) -> Response:
    return Response(200, {"Content-Type": "application/json; charset=UTF-8"}, json.dumps(body).encode())


def _headers_without_secret(request: Request) -> dict[str, str]:
    return request.headers | ({"authorization": "(left out)"} if "authorization" in request.headers else {})
