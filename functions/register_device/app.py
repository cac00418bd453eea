"""HTTP API for an app's devices: register after each login, unregister at logout, list."""

from functools import lru_cache
from typing import Annotated, Any

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.openapi.params import Body, Query
from aws_lambda_powertools.event_handler.openapi.types import OpenAPIResponse
from aws_lambda_powertools.logging import correlation_paths
from aws_lambda_powertools.utilities.typing import LambdaContext
from chat_push.database import DeviceRegistry
from chat_push.devices import Device, DeviceId, Registration
from chat_push.identity import Auth
from chat_push.observability import count, logger, metrics
from chat_push.secrets import read_secret
from chat_push.settings import read_settings
from pydantic import BaseModel, Field, SecretStr

from failures import FAILURES, document_errors, failure_from
from request_validation import access_token, validate_and_normalize


class Settings(BaseModel):
    supabase_url: str
    app_secret_id: str


class AppSecret(BaseModel):
    """What every copy of the app holds too."""

    supabase_publishable_key: SecretStr = Field(min_length=1)


settings = read_settings(Settings)
app = APIGatewayHttpResolver(enable_validation=True)


def _one_device(description: str) -> OpenAPIResponse:
    return {"description": description, "content": {"application/json": {"model": Device}}}


@app.post(
    "/api/push/register",
    summary="Register a phone",
    description="After each login, and when the push token changes. Its former account gets no more pushes on it.",
    operation_id="registerDevice",
    responses={
        200: _one_device("Registered before; now seen again, and active"),
        201: _one_device("Registered for the first time"),
        **document_errors(400, 401, 403, 413, 415, 422, 429, 503),
    },
)
def register(registration: Annotated[Registration, Body()]) -> Response[Device]:
    registered = _registry(_key()).register(app.context["access_token"], registration)
    count("DeviceRegistered")
    return Response(201 if registered.created else 200, "application/json", registered.device)


@app.delete(
    "/api/push/unregister",
    summary="Unregister a phone",
    description="Before logout. Only the caller's own: a phone that another account has registered since stays theirs. "
    'A JSON body {"device_id": ...} does instead of the query.',
    operation_id="unregisterDevice",
    responses={
        204: {"description": "The phone is not registered, or no longer", "content": {}},
        **document_errors(401, 403, 422, 503),
    },
)
def unregister(device_id: Annotated[DeviceId, Query()]) -> Response[None]:
    _registry(_key()).unregister(app.context["access_token"], device_id)
    count("DeviceUnregistered")
    return Response(204)


@app.get(
    "/api/push/devices",
    summary="List the caller's phones",
    description="Also those that are switched off. Push tokens are shortened.",
    operation_id="listDevices",
    responses={
        200: {
            "description": "The phones, the one that was seen last first",
            "content": {"application/json": {"model": list[Device]}},
        },
        **document_errors(401, 403, 503),
    },
)
def devices() -> list[Device]:
    return _registry(_key()).devices(app.context["access_token"])


@app.exception_handler(FAILURES)  # type: ignore[untyped-decorator]  # Powertools leaves it so.
def handle_failure(error: Exception) -> Response[Any]:
    """The error's answer, in the one shape of this API."""
    return failure_from(error).response()


@metrics.log_metrics
@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_HTTP, clear_state=True)
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Who is calling comes first: a stranger learns nothing of what a right request looks like."""
    try:
        token = access_token(event)
        logger.append_keys(user_id=str(_auth(_key()).user_id(token)))
        request = validate_and_normalize(event)
    except tuple(FAILURES) as error:
        return failure_from(error).proxy_response()
    app.context["access_token"] = token
    return app.resolve(request, context)


def _key() -> str:
    return read_secret(settings.app_secret_id, AppSecret).supabase_publishable_key.get_secret_value()


@lru_cache(maxsize=1)
def _auth(publishable_key: str) -> Auth:
    return Auth(settings.supabase_url, publishable_key)


@lru_cache(maxsize=1)
def _registry(publishable_key: str) -> DeviceRegistry:
    return DeviceRegistry(settings.supabase_url, publishable_key)
