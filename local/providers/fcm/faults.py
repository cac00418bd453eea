"""The faults that a script can inject into FCM and the token endpoint: what the sender sees, and when a fault strikes.

`accepted` says whether the phone received the notification. A sender cannot see this: after a 503, a 504 or a reset,
the notification may have been delivered.
"""

import asyncio
import json
from abc import abstractmethod
from datetime import UTC
from email.utils import format_datetime
from http.client import responses
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from local.providers import scripts
from local.providers.fcm.accounts import oauth_error
from local.providers.fcm.connections import Connection, LastStream, Request, Response
from local.providers.fcm.protocol import ERRORS, RefusedError

type Endpoint = Literal["connect", "send", "token"]

type ErrorName = Literal[
    "UNREGISTERED",
    "NOT_FOUND",
    "INVALID_TOKEN",
    "INVALID_TOKEN_FIELD",
    "INVALID_FIELD",
    "INVALID_PAYLOAD",
    "TOO_BIG",
    "SENDER_ID_MISMATCH",
    "PERMISSION_DENIED",
    "SERVICE_DISABLED",
    "THIRD_PARTY_AUTH_ERROR",
    "APNS_AUTH_ERROR",
    "UNAUTHENTICATED",
    "QUOTA_EXCEEDED",
    "INTERNAL",
    "UNAVAILABLE",
    "UNSPECIFIED_ERROR",
]


def refused(error: RefusedError, headers: dict[str, str] | None = None) -> Response:
    """The answer to a request that is rejected."""
    body = json.dumps(error.body).encode()
    return Response(error.status, {"Content-Type": "application/json; charset=UTF-8", **(headers or {})}, body)


class Fault(BaseModel):
    """Strikes a request."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    accepted: bool = False

    @abstractmethod
    async def respond(self, request: Request, answer: Response | None) -> Response | None:
        """The response in place of `answer` (None: nothing was accepted). Returns None: there is no response."""


class ConnectionFault(Fault):
    """Strikes a request, or on `connect` a new connection, before any request."""

    @abstractmethod
    def strike_connection(self, connection: Connection) -> None:
        """Strikes a new connection."""


class FcmError(Fault):
    """A row of FCM's table of errors. `protocol.ERRORS` has the answers."""

    kind: Literal["fcm_error"] = "fcm_error"
    error: ErrorName
    retry_after: Annotated[int, Field(strict=True, ge=0)] | AwareDatetime | None = None

    async def respond(self, request: Request, answer: Response | None) -> Response:
        match self.retry_after:
            case None:
                headers = {}
            case int(seconds):
                headers = {"Retry-After": str(seconds)}
            case date:
                headers = {"Retry-After": format_datetime(date.astimezone(UTC), usegmt=True)}
        return refused(ERRORS[self.error](), headers)


class OAuthError(Fault):
    """An error of the token endpoint."""

    kind: Literal["oauth_error"] = "oauth_error"
    accepted: Literal[False] = False
    error: str = "invalid_grant"
    description: str = "Invalid JWT Signature."
    status: Annotated[int, Field(ge=400, le=599)] = 400

    async def respond(self, request: Request, answer: Response | None) -> Response:
        return refused(oauth_error(self.error, self.description, self.status))


class HtmlError(Fault):
    """The HTML page of a gateway."""

    kind: Literal["html_error"] = "html_error"
    status: Annotated[int, Field(ge=400, le=599)] = 502

    async def respond(self, request: Request, answer: Response | None) -> Response:
        return self.page()

    def page(self) -> Response:
        """The page, with its status."""
        title = f"{self.status} {responses.get(self.status, 'Error')}"
        text = f"<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>"
        return Response(self.status, {"Content-Type": "text/html; charset=UTF-8"}, text.encode())


class Reset(ConnectionFault):
    """Resets the connection, after the request was read. In HTTP/2, all requests of the connection fail."""

    kind: Literal["reset"] = "reset"

    async def respond(self, request: Request, answer: Response | None) -> None:
        request.connection.reset()

    def strike_connection(self, connection: Connection) -> None:
        connection.reset()


class Hang(ConnectionFault):
    """Never answers the request. On `connect`, never answers the connection."""

    kind: Literal["hang"] = "hang"

    async def respond(self, request: Request, answer: Response | None) -> None:
        await asyncio.Event().wait()  # until the client gives up

    def strike_connection(self, connection: Connection) -> None:
        connection.silence()


class Slow(Fault):
    """The right answer, after some seconds. The phone receives the notification at once."""

    kind: Literal["slow"] = "slow"
    accepted: Literal[True] = True
    seconds: Annotated[float, Field(ge=0)]

    async def respond(self, request: Request, answer: Response | None) -> Response:
        assert answer is not None
        await asyncio.sleep(self.seconds)
        return answer


class GoAway(Fault):
    """Ends an HTTP/2 connection with GOAWAY. HTTP/1.1 has no such frame: a request without answer ends there."""

    kind: Literal["go_away"] = "go_away"
    last_stream: LastStream
    reason: str = "session_timed_out"

    @model_validator(mode="before")
    @classmethod
    def _accepts_what_goaway_names(cls, fields: dict[str, object]) -> dict[str, object]:
        return {"accepted": fields.get("last_stream") in ("this", "unanswered"), **fields}

    async def respond(self, request: Request, answer: Response | None) -> Response | None:
        request.connection.go_away(request.stream_id, self.last_stream, self.reason)
        return answer if self.last_stream == "this" else None


type AnyFault = FcmError | OAuthError | HtmlError | Reset | Hang | Slow | GoAway


class Script(scripts.Script[Annotated[AnyFault, Field(discriminator="kind")], Endpoint]):
    """A fault for the next `times` requests to an endpoint, or for the next that concern `token`."""

    on: Endpoint = "send"

    @model_validator(mode="after")
    def _fault_fits_endpoint(self) -> Self:
        fits = {
            "connect": isinstance(self.fault, ConnectionFault),
            "send": not isinstance(self.fault, OAuthError),
            "token": not isinstance(self.fault, FcmError),
        }
        if not fits[self.on]:
            raise ValueError(f"{self.fault.kind} cannot strike on {self.on}")
        if self.token is not None and self.on != "send":
            raise ValueError(f"only a script for send can have a token, not one for {self.on}")
        return self
