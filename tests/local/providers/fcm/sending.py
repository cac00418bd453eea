"""A clock, registration tokens and a sender that checks nothing, for the tests of the fake FCM."""

import ssl
import time
from dataclasses import dataclass
from typing import Any

import httpx
import jwt
from pydantic import JsonValue

from local.providers.fcm.accounts import AUDIENCE, GRANT_TYPE, SCOPES
from local.providers.fcm.state import FcmService, registration_token

PIXEL, BROWSER, IPHONE, FOREIGN, STRANGER = map(registration_token, ("pixel", "browser", "iphone", "foreign", "none"))
FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"


def client(fcm: FcmService, *, http2: bool = True) -> httpx.AsyncClient:
    """A client of the service, for one version of HTTP. A request that gets no answer fails after 30 seconds."""
    verify = ssl.create_default_context(cafile=fcm.ca_file) if fcm.ca_file else False
    limits = httpx.Limits(max_connections=None if http2 else 10)
    return httpx.AsyncClient(base_url=fcm.url, http1=not http2, http2=http2, verify=verify, timeout=30, limits=limits)


def claims(account: dict[str, str], **changes: Any) -> dict[str, Any]:
    now = int(time.time())
    return {
        "iss": account["client_email"],
        "scope": SCOPES[0],
        "aud": AUDIENCE,
        "iat": now,
        "exp": now + 3600,
        **changes,
    }


def form(assertion: str, grant_type: str = GRANT_TYPE) -> dict[str, str]:
    return {"grant_type": grant_type, "assertion": assertion}


def signed(account: dict[str, str], **changes: Any) -> str:
    """The JWT of an account, with some claims changed."""
    headers = {"kid": account["private_key_id"]}
    return jwt.encode(claims(account, **changes), account["private_key"], "RS256", headers=headers)


@dataclass
class Sender:
    """Posts any message, valid or not."""

    http: httpx.AsyncClient
    fcm: FcmService
    access_token: str = ""

    async def log_in(self, account: dict[str, str] | None = None, **changes: Any) -> httpx.Response:
        """Gets an access token for a new account, or for this one; returns the answer."""
        account = account or self.fcm.service_account()
        response = await self.http.post("/token", data=form(signed(account, **changes)))
        self.access_token = response.json().get("access_token", "")
        return response

    async def post(self, body: object, project: str = "chat-push") -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.access_token}"}
        return await self.http.post(f"/v1/projects/{project}/messages:send", json=body, headers=headers)

    async def send(self, token: str = PIXEL, **fields: JsonValue) -> httpx.Response:
        return await self.post({"message": {"token": token, "notification": {"title": "Ana", "body": "Hi"}, **fields}})


def error_of(response: httpx.Response) -> tuple[int, str, str | None, str | None]:
    """The status, its name, the code of the FcmError, and the field of the BadRequest."""
    error = response.json()["error"]
    assert error["code"] == response.status_code
    details = {detail["@type"]: detail for detail in error.get("details", [])}
    code = details.get(FCM_ERROR, {}).get("errorCode")
    fields = [each["field"] for each in details.get(BAD_REQUEST, {}).get("fieldViolations", [])]
    return response.status_code, error["status"], code, fields[0] if fields else None
