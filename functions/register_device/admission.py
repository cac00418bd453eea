"""What must hold before a request is looked into."""

from typing import Any

from chat_push.identity import TokenRefused
from failures import Failure

MAX_BODY_BYTES = 8 * 1024


def access_token(event: dict[str, Any]) -> str:
    """The bearer token of the Authorization header. Raises TokenRefused if there is none."""
    scheme, _, token = event["headers"].get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise TokenRefused("pass the Supabase session's access token: Authorization: Bearer <token>")
    return str(token).strip()


def refuse_unreadable(event: dict[str, Any]) -> None:
    """Raises Failure for a body that is too long, or not declared as JSON."""
    body = event.get("body") or ""
    # Base64 is four characters for three bytes.
    if len(body.encode()) * (3 / 4 if event.get("isBase64Encoded") else 1) > MAX_BODY_BYTES:
        raise Failure(413, "too_long", f"the body is longer than {MAX_BODY_BYTES} bytes")
    media_type = event["headers"].get("content-type", "").partition(";")[0].strip().lower()
    if body and media_type != "application/json":
        raise Failure(415, "not_json", "send the body as Content-Type: application/json")
