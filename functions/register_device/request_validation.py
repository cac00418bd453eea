"""Checks a request before Powertools parses it: route, method, size, content type and JSON."""

import base64
import json
from typing import Any

from chat_push.devices import Unregistration
from pydantic import ValidationError

from failures import Failure, invalid

type Event = dict[str, Any]

METHODS = {"/api/push/register": "POST", "/api/push/unregister": "DELETE", "/api/push/devices": "GET"}
MAX_BODY_BYTES = 8 * 1024


def access_token(event: Event) -> str:
    """The bearer token of the Authorization header. Raises Failure if there is none."""
    scheme, _, token = _header(event, "authorization").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        advice = "pass the Supabase session's access token: Authorization: Bearer <token>"
        raise Failure(401, "unauthorized", advice, headers={"WWW-Authenticate": "Bearer"})
    return token.strip()


def validate_and_normalize(event: Event) -> Event:
    """The event with its body decoded and its content type normalized, as Powertools expects it. Raises Failure."""
    allowed = METHODS.get(event["rawPath"])
    if allowed is None:
        raise Failure(404, "not_found", f"no such route; routes: {', '.join(METHODS)}")
    if event["requestContext"]["http"]["method"] != allowed:
        raise Failure(405, "method_not_allowed", f"use {allowed}", headers={"Allow": allowed})
    body = _body(event)
    normalized = {
        **event,
        "headers": {**(event.get("headers") or {}), "content-type": "application/json"},
        "body": None if body is None else json.dumps(body),
        "isBase64Encoded": False,
    }
    return normalized if body is None or allowed != "DELETE" else _with_body_as_query(normalized, body)


def _header(event: Event, name: str) -> str:
    """The value of a header, empty if there is none."""
    return str((event.get("headers") or {}).get(name) or "")


def _body(event: Event) -> dict[str, Any] | None:
    text = event.get("body") or ""
    body = base64.b64decode(text) if event.get("isBase64Encoded") else text.encode(errors="surrogatepass")
    if not body:
        return None
    if len(body) > MAX_BODY_BYTES:
        raise Failure(413, "too_long", f"the body has {len(body)} bytes; at most {MAX_BODY_BYTES} are allowed")
    if _header(event, "content-type").partition(";")[0].strip().lower() != "application/json":
        raise Failure(415, "wrong_content_type", "send the body as Content-Type: application/json")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise Failure(400, "not_json", "the body is not JSON") from None
    if not isinstance(value, dict):  # Powertools would accept a list, and use its first item.
        raise invalid([{"loc": (), "msg": "Input should be an object"}])
    return value


def _with_body_as_query(event: Event, body: dict[str, Any]) -> Event:
    """Moves device_id from the body of a DELETE to the query. OpenAPI allows no body, but some clients send one."""
    try:
        query = Unregistration.model_validate(body).model_dump()
    except ValidationError as error:
        raise invalid(error.errors()) from None
    return {**event, "body": None, "rawQueryString": "", "queryStringParameters": query}
