"""The one shape of every error of this API, and which exception becomes which answer."""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError
from aws_lambda_powertools.event_handler.openapi.types import OpenAPIResponse
from pydantic import BaseModel

from chat_push.database import (
    AccessTokenRefused,
    DatabaseRefused,
    DatabaseUnavailable,
    ProfileMissing,
    TooManyRegistrations,
)
from chat_push.identity import AuthUnavailable, TokenNotSignedIn, TokenRefused
from chat_push.observability import logger

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


class ErrorAnswer(BaseModel):
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
        self.answer = ErrorAnswer(error=Error(code=code, message=message, fields=list(fields) if fields else None))

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
    NotFoundError,
    ProfileMissing,
    RequestValidationError,
    TokenNotSignedIn,
    TokenRefused,
    TooManyRegistrations,
]

RESPONSES: dict[int, OpenAPIResponse] = {
    status: {"description": description, "content": {"application/json": {"model": ErrorAnswer}}}
    for status, description in {
        400: "The body is not JSON",
        401: "No valid access token",
        403: "Nobody is signed in with this access token, or the account has no profile",
        413: "The body is longer than 8 KB",
        415: "The body is not application/json",
        422: "Fields are missing or wrong",
        429: "Too many registrations",
        503: "The database or Auth does not answer",
    }.items()
}


def failure_of(error: Exception) -> Failure:
    """The answer to an exception of FAILURES."""
    match error:
        case Failure():
            return error
        case RequestValidationError():
            return _invalid(error.errors())
        case AccessTokenRefused():
            return failure_of(TokenRefused("the access token is not valid, or has expired"))
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
        case NotFoundError():
            return Failure(404, "not_found", "no such route")
        case DatabaseUnavailable() | AuthUnavailable() | DatabaseRefused():
            logger.error("request not served", error=str(error))
            return Failure(
                503, "unavailable", "try again in some seconds", headers={"Retry-After": str(RETRY_AFTER_SECONDS)}
            )
    raise error


def missing_device_id() -> NoReturn:
    """Neither the query nor the body names the phone."""
    raise Failure(
        422, "invalid", "fields are missing or wrong", [FieldError(field="device_id", message="Field required")]
    )


def _invalid(faults: Sequence[Mapping[str, Any]]) -> Failure:
    """400 for what is not JSON, otherwise 422 with each wrong field. `faults` are pydantic's; values are left out."""
    if any(fault["type"] == "json_invalid" for fault in faults):
        return Failure(400, "not_json", "the body is not JSON")
    fields = [
        FieldError(
            field=".".join(str(part) for part in fault["loc"][1:]) or str(fault["loc"][0]),
            message=str(fault["msg"]).removeprefix("Value error, "),
        )
        for fault in faults
    ]
    return Failure(422, "invalid", "fields are missing or wrong", fields)
