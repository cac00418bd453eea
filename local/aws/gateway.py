"""The HTTP API of the local cloud: what API Gateway does between a caller and a queue or a function.

Events (payload format 2.0), error bodies and limits are those of API Gateway:
https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
"""

import asyncio
import base64
import json
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import uuid4
from xml.sax.saxutils import escape  # which reads no XML  # nosec B406

from aiohttp import web
from botocore.exceptions import ClientError

from local.aws.account import ACCOUNT, REGION
from local.aws.lambda_runtime import FunctionError, LambdaFunction
from local.aws.template import Authorizer, LambdaIntegration, Route, SqsIntegration, Template
from local.http_server import serving
from local.processes import free_port
from local.types import Json

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

_API_ID = "local"
_MAX_BODY_BYTES = 10 * 1024**2
_MAX_MAPPED_BYTES = 100 * 1024  # of a body that parameter mapping looks at
_INTEGRATION_SECONDS = 30
_REST_OF_PATH = "{proxy+}"

logger = logging.getLogger(__name__)


class Gateway:
    """Answers the requests to the routes of a template."""

    def __init__(self, template: Template, functions: Mapping[str, LambdaFunction], sqs: "SQSClient") -> None:
        self._routes = {route.key: route for route in template.routes}
        self._queues = template.queues
        self._functions = functions
        self._sqs = sqs
        self._authorizations: dict[tuple[Authorizer, str], tuple[float, Json]] = {}  # with the time of their end

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Finds the route, invokes its authorizer, passes the request to its queue or function."""
        route = self._route(request.method, request.path)
        if route is None:
            return _message(404, "Not Found")
        authorization: Json = {}
        if route.authorizer is not None:
            identity = request.headers.get(route.authorizer.header)
            if not identity:
                return _message(401, "Unauthorized")
            try:
                authorization = await self._authorization(route, route.authorizer, identity, request)
            except (FunctionError, _MalformedAuthorization) as error:
                logger.warning("authorizer of %s: %s", route.path, error)
                return _message(500, "Internal Server Error")
            if not authorization["isAuthorized"]:
                return _message(403, "Forbidden")
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return _message(413, "Request Entity Too Large")
        match route.integration:
            case SqsIntegration() as integration:
                return await self._send(integration, body)
            case LambdaIntegration(function):
                event = _event(route, request, body, authorization.get("context"))
                return await self._invoke(self._functions[function], event)

    def _route(self, method: str, path: str) -> Route | None:
        """The most specific route: https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-routes.html"""
        folders = path.split("/")[:-1]
        paths = [path, *("/".join([*folders[:depth], _REST_OF_PATH]) for depth in range(len(folders), 0, -1))]
        keys = (f"{verb} {of_route}" for of_route in paths for verb in (method, "ANY"))
        return next((self._routes[key] for key in keys if key in self._routes), None)

    async def _authorization(self, route: Route, authorizer: Authorizer, identity: str, request: web.Request) -> Json:
        """The authorizer's answer, cached for its time to live for all requests with this identity.

        Concurrent requests on a cold cache each invoke the authorizer: API Gateway lets none wait for another. Those
        that the account throttles get 500, as for any function that could not be started:
        https://docs.aws.amazon.com/lambda/latest/dg/services-apigateway-errors.html
        """
        ends, answer = self._authorizations.get((authorizer, identity), (0.0, None))
        if time.monotonic() < ends:
            return answer
        event = _authorizer_event(route, request, identity)
        answer = await self._functions[authorizer.function].invoke(event)
        if not isinstance(answer, dict) or not isinstance(answer.get("isAuthorized"), bool):
            raise _MalformedAuthorization(f"no simple response: {answer!r}")
        ends = time.monotonic() + authorizer.time_to_live.total_seconds()
        self._authorizations[authorizer, identity] = ends, answer
        return answer

    async def _send(self, integration: SqsIntegration, body: bytes) -> web.Response:
        message = _mapped(integration.message_body, body)
        if message is None:
            # AWS does not document what API Gateway sends to SQS here; SQS rejects a message without a body.
            return _message(400, "Bad Request")
        url = self._queues[integration.queue].url
        try:
            sent = await asyncio.to_thread(self._sqs.send_message, QueueUrl=url, MessageBody=message)
        except ClientError as error:
            return _message(error.response["ResponseMetadata"]["HTTPStatusCode"], str(error))
        # The body is the answer of SQS. AWS does not document its form, so callers should read only the status.
        text = f"<SendMessageResponse><MessageId>{escape(sent['MessageId'])}</MessageId></SendMessageResponse>"
        return web.Response(status=integration.status, text=text, content_type="text/xml")

    async def _invoke(self, function: LambdaFunction, event: Json) -> web.Response:
        try:
            async with asyncio.timeout(_INTEGRATION_SECONDS):
                return _response(await function.invoke(event))
        except TimeoutError:
            return _message(503, "Service Unavailable")
        except FunctionError as error:
            logger.warning("%s", error)
            return _message(500, "Internal Server Error")


class _MalformedAuthorization(Exception):
    """The authorizer gave no simple response."""


@asynccontextmanager
async def gateway(template: Template, functions: Mapping[str, LambdaFunction], sqs: "SQSClient") -> AsyncIterator[str]:
    """Serves the routes of `template` while the context is open; gives the base URL."""
    app = web.Application(client_max_size=_MAX_BODY_BYTES)
    app.router.add_route("*", "/{path:.*}", Gateway(template, functions, sqs).handle)
    async with serving(app, free_port()) as url:
        yield url


def _message(status: int, message: str) -> web.Response:
    return web.json_response({"message": message}, status=status)


def _mapped(mapping: str, body: bytes) -> str | None:
    """The value of $request.body or of a path in it such as $request.body.record.id; None if it is missing.

    API Gateway reads a path only from the first 100 KB of the body.
    """
    _, *path = mapping.removeprefix("$request.").split(".")
    if not path:
        return body.decode(errors="replace") or None
    try:
        value = json.loads(body[:_MAX_MAPPED_BYTES])
    except (ValueError, RecursionError):
        return None
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    if value in (None, ""):
        return None
    return value if isinstance(value, str) else json.dumps(value)


def _event(route: Route, request: web.Request, body: bytes, context: Json) -> Json:
    """The event of payload format 2.0 for a function."""
    event = _request_fields(route, request)
    event["requestContext"]["authorizer"] = {"lambda": context} if route.authorizer else None
    if body:
        text = _is_text(request.content_type)
        event["body"] = body.decode(errors="replace") if text else base64.b64encode(body).decode()
    event["isBase64Encoded"] = bool(body) and not _is_text(request.content_type)
    return _without_none(event)


def _authorizer_event(route: Route, request: web.Request, identity: str) -> Json:
    """The event of payload format 2.0 for an authorizer; it has no body."""
    arn = f"arn:aws:execute-api:{REGION}:{ACCOUNT}:{_API_ID}/$default/{request.method}{request.path}"
    extra = {"type": "REQUEST", "routeArn": arn, "identitySource": [identity]}
    return _without_none(_request_fields(route, request) | extra)


def _request_fields(route: Route, request: web.Request) -> dict[str, Json]:
    now = datetime.now(UTC)
    headers = {name.lower(): ",".join(request.headers.getall(name)) for name in request.headers}
    cookies = headers.pop("cookie", None)
    below = route.path.removesuffix(_REST_OF_PATH)
    return {
        "version": "2.0",
        "routeKey": route.key,
        "rawPath": request.path,
        "rawQueryString": request.rel_url.raw_query_string,
        "cookies": cookies.split("; ") if cookies else None,
        "headers": headers,
        "queryStringParameters": {name: ",".join(request.query.getall(name)) for name in request.query} or None,
        "pathParameters": {"proxy": request.path.removeprefix(below)} if below != route.path else None,
        "requestContext": {
            "accountId": ACCOUNT,
            "apiId": _API_ID,
            "domainName": request.host,
            "domainPrefix": _API_ID,
            "http": {
                "method": request.method,
                "path": request.path,
                "protocol": "HTTP/1.1",
                "sourceIp": request.remote,
                "userAgent": request.headers.get("User-Agent", ""),
            },
            "requestId": str(uuid4()),
            "routeKey": route.key,
            "stage": "$default",
            "time": now.strftime("%d/%b/%Y:%H:%M:%S +0000"),
            "timeEpoch": int(now.timestamp() * 1000),
        },
    }


def _without_none(event: dict[str, Json]) -> dict[str, Json]:
    return {
        key: _without_none(value) if isinstance(value, dict) else value
        for key, value in event.items()
        if value is not None
    }


def _is_text(content_type: str) -> bool:
    return content_type.startswith("text/") or content_type in ("application/json", "application/xml")


def _response(answer: Json) -> web.Response:
    """The HTTP response for an answer: in format 2.0, or any other JSON value, which is a body with status 200."""
    if not isinstance(answer, dict) or "statusCode" not in answer:
        return web.json_response(answer)
    body = answer.get("body") or ""
    response = web.Response(
        status=int(answer["statusCode"]),
        body=base64.b64decode(body) if answer.get("isBase64Encoded") else body.encode(),
        headers={name: str(value) for name, value in answer.get("headers", {}).items()},
    )
    for cookie in answer.get("cookies", []):
        response.headers.add("Set-Cookie", cookie)
    return response
