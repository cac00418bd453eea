"""HTTP requests to Expo: a session of httpx, in place of the SDK's own of requests."""

import gzip
from json import dumps
from typing import Any

import httpx
from exponent_server_sdk import PushServerError

from chat_push import https
from chat_push.outcome import parse_retry_after

GZIP_ABOVE_BYTES = 1024
CONNECT_TIMEOUT_SECONDS = 2.0


class Session:
    """The part of a requests session that the SDK uses: keep-alive, gzip, a timeout for each request, the access token.

    Without a token it sends no bearer: Expo refuses a wrong bearer even if it requires none.
    """

    def __init__(self, access_token: str | None, transport: httpx.BaseTransport | None) -> None:
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "gzip, deflate",
            "Content-Type": "application/json",
        }
        if access_token:
            headers["Authorization"] = f"Bearer {access_token}"
        self._client = httpx.Client(headers=headers, transport=transport or https.transport())

    def post(self, url: str, *, timeout: float, data: str | None = None, json: object = None) -> "Response":
        """The response to a body. The SDK passes messages as `data`, and a request for receipts as `json`."""
        body, headers = (data or dumps(json)).encode(), {}
        if len(body) > GZIP_ABOVE_BYTES:
            body, headers = gzip.compress(body, compresslevel=5), {"Content-Encoding": "gzip"}
        limits = httpx.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT_SECONDS))
        return Response(self._client.post(url, content=body, headers=headers, timeout=limits))


class Response:
    """The part of a response that the SDK uses. Every malformed body becomes the same error, PushServerError."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.status_code = response.status_code

    def json(self) -> dict[str, Any]:
        """The body. A `data` of another shape than requested is left out; the SDK then raises PushServerError."""
        try:
            body = self._response.json()
        except RecursionError:
            raise ValueError("nested too deeply") from None
        if not isinstance(body, dict):
            raise ValueError("not a JSON object")
        data = self._valid_data(body.pop("data", None))
        if data is not None:
            body["data"] = data
            # The SDK takes the mere key for an error, and drops the tickets.
            if not body.get("errors"):
                body.pop("errors", None)
        return body

    def _valid_data(self, data: object) -> list[Any] | dict[str, Any] | None:
        if self._response.url.path.endswith("/getReceipts"):
            # A receipt that cannot be read counts as missing.
            return (
                {key: value for key, value in data.items() if isinstance(value, dict)}
                if isinstance(data, dict)
                else None
            )
        if isinstance(data, dict):  # Expo's response to a single message outside of a list.
            data = [data]
        return data if isinstance(data, list) and all(isinstance(ticket, dict) for ticket in data) else None

    def raise_for_status(self) -> None:
        """Raises PushServerError for a status other than 2xx."""
        if not self._response.is_success:
            raise PushServerError("request failed", self)

    def error(self) -> dict[str, Any]:
        """The first error of the body, empty if there is none."""
        try:
            body = self.json()
        except ValueError:
            return {}
        if isinstance(body.get("error"), str):  # Expo reports a refused access token in this shape.
            return {"code": body["error"]}
        if "errors" not in body:
            return {}
        errors = body["errors"]
        return errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else {"code": None}

    def retry_after_seconds(self) -> float | None:
        """Retry-After in seconds, from 0 to MAX_RETRY_AFTER_SECONDS; None if absent or unreadable."""
        return parse_retry_after(self._response.headers.get("Retry-After", ""))
