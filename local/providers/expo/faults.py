"""The faults that a script can inject into the Expo push service: what the sender sees, and when a fault strikes.

`accepted` says whether the phones received the notifications. A sender cannot see this: after a 504 or a reset,
the notification may have been delivered.
"""

import asyncio
from abc import abstractmethod
from collections.abc import Collection
from datetime import UTC
from email.utils import format_datetime
from http.client import responses
from typing import Annotated, Literal, Self

from aiohttp import web
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, model_validator

from local.providers import scripts
from local.providers.expo import protocol as expo_protocol
from local.providers.expo.protocol import Json, errors_body

type Endpoint = Literal["send", "receipts"]


class _Fault(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RequestFault(_Fault):
    """Strikes a whole request."""

    kind: str
    accepted: bool = False

    @abstractmethod
    async def respond(self, answer: Json | None) -> web.Response | None:
        """The response in place of `answer` (None: nothing was accepted). Returns None for a reset."""


class HttpError(RequestFault):
    """An error status. The body is Expo's JSON, the HTML of a gateway, or empty."""

    kind: Literal["http_error"] = "http_error"
    status: Annotated[int, Field(ge=400, le=599)]
    body: Literal["json", "html", "empty"] = "json"
    retry_after: Annotated[int, Field(strict=True, ge=0)] | AwareDatetime | None = None

    async def respond(self, answer: Json | None) -> web.Response:
        headers = self._headers()
        match self.body:
            case "json":
                return web.json_response(self._json_body(), status=self.status, headers=headers)
            case "html":
                title = f"{self.status} {responses.get(self.status, 'Error')}"
                text = f"<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>"
                return web.Response(text=text, status=self.status, headers=headers, content_type="text/html")
            case "empty":
                return web.Response(status=self.status, headers=headers)

    def _headers(self) -> dict[str, str]:
        match self.retry_after:
            case None:
                return {}
            case int(seconds):
                return {"Retry-After": str(seconds)}
            case date:
                return {"Retry-After": format_datetime(date.astimezone(UTC), usegmt=True)}

    def _json_body(self) -> Json:
        match self.status:
            case 401:
                return expo_protocol.invalid_token().body
            case 403:
                return expo_protocol.unauthorized().body
            case 429:
                return expo_protocol.too_many_requests(600).body
            case status if status >= 500:
                return errors_body("INTERNAL_SERVER_ERROR", "An unknown error occurred.")
            case _:
                return errors_body("API_ERROR", "The request was rejected.")


class ProjectConflict(RequestFault):
    """PUSH_TOO_MANY_EXPERIENCE_IDS with these `details`. With a single project the sender cannot split the request."""

    kind: Literal["project_conflict"] = "project_conflict"
    accepted: Literal[False] = False
    projects: dict[str, list[str]]

    async def respond(self, answer: Json | None) -> web.Response:
        refusal = expo_protocol.mixed_projects(self.projects)
        return web.json_response(refusal.body, status=refusal.status)


class Reset(RequestFault):
    """Resets the connection after the request was read."""

    kind: Literal["reset"] = "reset"

    async def respond(self, answer: Json | None) -> None:
        return None


class Hang(RequestFault):
    """No answer for some seconds, then a reset."""

    kind: Literal["hang"] = "hang"
    seconds: Annotated[float, Field(ge=0)]

    async def respond(self, answer: Json | None) -> None:
        await asyncio.sleep(self.seconds)


_ODD_BODIES = {
    "truncated": '{"data":[{"status":"ok","id":"019b9339-aa4e',
    "null": "null",
    "no_data": "{}",
    "errors": '{"errors":[{"code":"INTERNAL_SERVER_ERROR","message":"An unknown error occurred."}]}',
}


class OddAnswer(RequestFault):
    """Status 200 without a result: truncated JSON, `null`, an object without `data`, or `errors`."""

    kind: Literal["odd_answer"] = "odd_answer"
    accepted: bool = True
    body: Literal["truncated", "null", "no_data", "errors"]

    async def respond(self, answer: Json | None) -> web.Response:
        return web.Response(text=_ODD_BODIES[self.body], content_type="application/json")


class TicketCount(RequestFault):
    """Status 200 with a number of tickets that differs from the number of recipients."""

    kind: Literal["ticket_count"] = "ticket_count"
    accepted: Literal[True] = True
    tickets: Annotated[int, Field(ge=0)]

    async def respond(self, answer: Json | None) -> web.Response:
        assert answer is not None
        match answer["data"]:
            case list(sent):
                given = sent
            case one:
                given = [one]
        # Surplus tickets repeat the last one.
        return web.json_response({"data": (given + given[-1:] * self.tickets)[: self.tickets]})


class RecipientFault(_Fault):
    """Strikes the recipient with the script's token, or all recipients of the request. Their phones receive nothing."""

    kind: str
    error: str | None  # details.error; None: an outcome without details
    message: str = "The notification could not be sent."
    details: dict[str, JsonValue] = {}  # beside `error`, for example {"fcm": {"error": "MismatchSenderId"}}

    def outcome(self) -> Json:
        return expo_protocol.error_outcome(self.message, self.error, **self.details)


class TicketError(RecipientFault):
    """An error ticket."""

    kind: Literal["ticket_error"] = "ticket_error"
    id: str | None = None  # some error tickets carry one, so a sender must decide by `status`

    def outcome(self) -> Json:
        return super().outcome() | ({} if self.id is None else {"id": self.id})


class ReceiptError(RecipientFault):
    """An ok ticket and, later, an error receipt."""

    kind: Literal["receipt_error"] = "receipt_error"


type Fault = HttpError | ProjectConflict | Reset | Hang | OddAnswer | TicketCount | TicketError | ReceiptError


class Script(scripts.Script[Annotated[Fault, Field(discriminator="kind")], Endpoint]):
    """A fault for the next `times` requests to an endpoint, or for the next that concern `token`."""

    on: Endpoint = "send"

    @model_validator(mode="after")
    def _only_sends_have_tickets(self) -> Self:
        if self.on == "receipts" and isinstance(self.fault, ProjectConflict | TicketCount | RecipientFault):
            raise ValueError(f"{self.fault.kind} can only strike a send")
        return self


class ScriptedFaults(scripts.ScriptedFaults[Fault, Endpoint]):
    """The scripts that have not struck yet, in order. At most one strikes a request, and one each recipient."""

    def take_request_fault(self, endpoint: Endpoint, tokens: Collection[str]) -> RequestFault | None:
        """The fault that strikes this request, or None. Decrements its count."""
        for script in self.matching(endpoint, tokens):
            if isinstance(script.fault, RequestFault):
                self.use_up(script)
                return script.fault
        return None

    def take_recipient_faults(self, tokens: Collection[str]) -> dict[str, RecipientFault]:
        """The faults by recipient. A request decrements the count of a script once, for one or many recipients."""
        struck: dict[str, RecipientFault] = {}
        for script in self.matching("send", tokens):
            targets = tokens if script.token is None else [script.token]
            spared = [token for token in targets if token not in struck]
            if isinstance(script.fault, RecipientFault) and spared:
                struck |= dict.fromkeys(spared, script.fault)
                self.use_up(script)
        return struck
