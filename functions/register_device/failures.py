"""Error responses of this API: their one JSON shape, and the response to each exception."""

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
    RegistrationInvalid,
    TooManyRegistrations,
)
from chat_push.identity import AuthUnavailable, TokenNotSignedIn, TokenRefused
from chat_push.observability import logger
from chat_push.secrets import SecretUnavailable
from chat_push.validation import field_errors
from pydantic import BaseModel

RETRY_AFTER_SECONDS = 5


class FieldError(BaseModel):
    """One wrong field: its path in the body or its name in the query, and its error."""

    field: str
    message: str


class Error(BaseModel):
    """The error: `code` for programs, `message` for developers."""

    code: str
    message: str
    fields: list[FieldError] | None = None


class ErrorResponse(BaseModel):
    """The body of every response with a status of 400 or more."""

    error: Error


class Failure(Exception):
    """An error response. The caller receives its text: it must contain no token and no internal error."""

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
        self.error_response = ErrorResponse(
            error=Error(code=code, message=message, fields=list(fields) if fields else None)
        )

    def response(self) -> Response[str]:
        """The error response, as a route returns it."""
        return Response(self.status, body=self.body(), headers=self.headers)

    def proxy_response(self) -> dict[str, Any]:
        """The error response, as the function returns it (payload format 2.0)."""
        return {"statusCode": self.status, "headers": self.headers, "body": self.body()}

    def body(self) -> str:
        """The error as JSON."""
        return self.error_response.model_dump_json(exclude_none=True)


HANDLED_ERRORS: list[type[Exception]] = [
    AccessTokenRefused,
    AuthUnavailable,
    DatabaseRefused,
    DatabaseUnavailable,
    Failure,
    ProfileMissing,
    RegistrationInvalid,
    RequestValidationError,
    SecretUnavailable,
    TokenNotSignedIn,
    TokenRefused,
    TooManyRegistrations,
]


def failure_from(error: Exception) -> Failure:
    """The error response to an exception of HANDLED_ERRORS."""
    match error:
        case Failure():
            return error
        case RequestValidationError():
            # The path of each field begins with body or query.
            return invalid([{**wrong, "loc": wrong["loc"][1:]} for wrong in error.errors()])
        case AccessTokenRefused():
            return failure_from(TokenRefused(str(error)))
        case TokenRefused():
            challenge = f'Bearer error="invalid_token", error_description="{error}"'
            return Failure(401, "unauthorized", str(error), headers={"WWW-Authenticate": challenge})
        case TokenNotSignedIn():
            return Failure(403, "not_signed_in", str(error))
        case ProfileMissing():
            return Failure(403, "no_profile", "the account has no row in users yet: create its profile first")
        case RegistrationInvalid():
            return invalid([{"loc": (error.field,), "msg": error.rule}])
        case TooManyRegistrations():
            wait = {"Retry-After": str(error.retry_after_seconds)}
            return Failure(429, "too_many_registrations", "too many registrations: retry later", headers=wait)
        case DatabaseUnavailable() | AuthUnavailable() | DatabaseRefused() | SecretUnavailable():
            logger.error("request not served", error=str(error))
            wait = {"Retry-After": str(RETRY_AFTER_SECONDS)}
            return Failure(503, "unavailable", "retry after some seconds", headers=wait)
    raise error


def invalid(errors: Sequence[Mapping[str, Any]]) -> Failure:
    """422 with each wrong field. `errors` are pydantic's."""
    fields = [FieldError(field=field or "body", message=message) for field, message in field_errors(errors)]
    return Failure(422, "invalid", "fields are missing or wrong", fields)


_DESCRIPTIONS = {
    400: "The body is not JSON",
    401: "No access token, or a token that is not valid for this project",
    403: "The access token does not belong to a signed-in user, or the account has no row in users",
    413: "The body is longer than 8 KB",
    415: "The body is not application/json",
    422: "Fields are missing or wrong; `fields` names each",
    429: "Too many registrations",
    503: "The database or Auth does not respond, or the function cannot read its secret",
}
_HEADERS = {401: "WWW-Authenticate", 429: "Retry-After", 503: "Retry-After"}


def document_errors(*statuses: int) -> dict[int, OpenAPIResponse]:
    """The responses with these statuses, for the OpenAPI document."""
    documents: dict[int, OpenAPIResponse] = {}
    for status in statuses:
        content: OpenAPIResponseContentModel = {"model": ErrorResponse}
        documents[status] = {"description": _DESCRIPTIONS[status], "content": {"application/json": content}}
        if header := _HEADERS.get(status):
            documents[status]["headers"] = {header: {"schema": {"type": "string"}}}
    return documents
