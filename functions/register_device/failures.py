"""The one shape of every error of this API, and which exception becomes which answer."""

from collections.abc import Mapping, Sequence
from typing import Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError
from aws_lambda_powertools.event_handler.openapi.types import OpenAPIResponse, OpenAPIResponseContentModel
from chat_push.database import (
    AccessTokenRefused,
    DatabaseRefused,
    DatabaseUnavailable,
    ProfileMissing,
    TooManyRegistrations,
)
from chat_push.identity import AuthUnavailable, TokenNotSignedIn, TokenRefused
from chat_push.observability import logger
from chat_push.secrets import SecretUnavailable
from pydantic import BaseModel

RETRY_AFTER_SECONDS = 5


class FieldError(BaseModel):
    """One wrong field: its path in the body or its name in the query, and what is wrong with it."""

    field: str
    message: str


class Error(BaseModel):
    """What went wrong: `code` for programs, `message` for people."""

    code: str
    message: str
    fields: list[FieldError] | None = None


class ErrorResponse(BaseModel):
    """The body of every answer from 400 up."""

    error: Error


class Failure(Exception):
    """An answer other than success. What it says is shown to the caller: never a token, never an inner error."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        fields: Sequence[FieldError] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code)
        self.status = status
        self.headers = {"Content-Type": "application/json", **(headers or {})}
        self.answer = ErrorResponse(error=Error(code=code, message=message, fields=list(fields) if fields else None))

    def response(self) -> Response[str]:
        """The answer of a route."""
        return Response(self.status, body=self.body(), headers=self.headers)

    def proxy_response(self) -> dict[str, Any]:
        """The answer of the function, in payload format 2.0."""
        return {"statusCode": self.status, "headers": self.headers, "body": self.body()}

    def body(self) -> str:
        """The error as JSON."""
        return self.answer.model_dump_json(exclude_none=True)


FAILURES: list[type[Exception]] = [
    AccessTokenRefused,
    AuthUnavailable,
    DatabaseRefused,
    DatabaseUnavailable,
    Failure,
    ProfileMissing,
    RequestValidationError,
    SecretUnavailable,
    TokenNotSignedIn,
    TokenRefused,
    TooManyRegistrations,
]


def failure_from(error: Exception) -> Failure:
    """The answer to an exception of FAILURES."""
    match error:
        case Failure():
            return error
        case RequestValidationError():
            # Where the field was, body or query, is in front of its path.
            return invalid([{**fault, "loc": fault["loc"][1:]} for fault in error.errors()])
        case AccessTokenRefused():
            return failure_from(TokenRefused("the access token is not valid, or has expired"))
        case TokenRefused():
            challenge = f'Bearer error="invalid_token", error_description="{error}"'
            return Failure(401, "unauthorized", str(error), headers={"WWW-Authenticate": challenge})
        case TokenNotSignedIn():
            return Failure(403, "not_signed_in", str(error))
        case ProfileMissing():
            return Failure(403, "no_profile", "the account has no row in users yet: create its profile first")
        case TooManyRegistrations():
            wait = {"Retry-After": str(error.retry_after_seconds)}
            return Failure(429, "too_many_registrations", "too many registrations: try again later", headers=wait)
        case DatabaseUnavailable() | AuthUnavailable() | DatabaseRefused() | SecretUnavailable():
            logger.error("request not served", error=str(error))
            wait = {"Retry-After": str(RETRY_AFTER_SECONDS)}
            return Failure(503, "unavailable", "try again in some seconds", headers=wait)
    raise error


def invalid(faults: Sequence[Mapping[str, Any]]) -> Failure:
    """422 with each wrong field. `faults` are pydantic's; of the values nothing is shown."""
    fields = [
        FieldError(
            field=".".join(map(str, fault["loc"])) or "body",
            message=str(fault["msg"]).removeprefix("Value error, "),
        )
        for fault in faults
    ]
    return Failure(422, "invalid", "fields are missing or wrong", fields)


_DESCRIPTIONS = {
    400: "The body is not JSON",
    401: "No access token, or one that is not valid here",
    403: "Nobody is signed in with this access token, or the account has no profile",
    413: "The body is longer than 8 KB",
    415: "The body is not application/json",
    422: "Fields are missing or wrong; `fields` names each",
    429: "Too many registrations",
    503: "The database or Auth does not answer, or the function cannot read its secret",
}
_HEADERS = {401: "WWW-Authenticate", 429: "Retry-After", 503: "Retry-After"}


def document_errors(*statuses: int) -> dict[int, OpenAPIResponse]:
    """What the OpenAPI document says of these errors."""
    documents: dict[int, OpenAPIResponse] = {}
    for status in statuses:
        content: OpenAPIResponseContentModel = {"model": ErrorResponse}
        documents[status] = {"description": _DESCRIPTIONS[status], "content": {"application/json": content}}
        if header := _HEADERS.get(status):
            documents[status]["headers"] = {header: {"schema": {"type": "string"}}}
    return documents
