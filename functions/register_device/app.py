"""HTTP API for apps: register a device after each login, unregister it at logout, list the devices of the caller."""

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
from chat_push.observability import count, log_start, logger, metrics
from chat_push.secrets import AppSecret, read_secret
from chat_push.settings import read_settings
from pydantic import BaseModel

from failures import HANDLED_ERRORS, document_errors, failure_from
from request_validation import METHODS, access_token, validate_and_normalize


class Settings(BaseModel):
    """The environment of this function."""

    supabase_url: str
    app_secret_id: str


# The app may be a page of any site. Its requests carry an access token and no cookie, so the origin proves nothing.
CORS = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "Retry-After"}
PREFLIGHT = {
    "Access-Control-Allow-Methods": ", ".join(METHODS.values()),
    "Access-Control-Allow-Headers": "Authorization, Content-Type",
    "Access-Control-Max-Age": "7200",  # seconds; browsers keep it no longer
}

settings = read_settings(Settings)
app = APIGatewayHttpResolver(enable_validation=True)
log_start()


def _one_device(description: str) -> OpenAPIResponse:
    return {"description": description, "content": {"application/json": {"model": Device}}}


@app.post(
    "/api/push/register",
    summary="Register a device",
    description="After each login, and when the push token changes. Its former account receives no more pushes on it.",
    operation_id="registerDevice",
    responses={
        200: _one_device("The device was registered before. It is active, and its data are updated"),
        201: _one_device("The device is registered for the first time"),
        **document_errors(400, 401, 403, 413, 415, 422, 429, 503),
    },
)
def register(registration: Annotated[Registration, Body()]) -> Response[Device]:
    """201 with the device if it is new for the caller, else 200. As all routes, raises an error of HANDLED_ERRORS."""
    registered = _registry(_key()).register(app.context["access_token"], registration)
    count("DeviceRegistered")
    return Response(201 if registered.created else 200, "application/json", registered.device)


@app.delete(
    "/api/push/unregister",
    summary="Unregister a device",
    description="Before logout. It removes only the caller's registration: if another account has registered the "
    'device since, that registration stays. A JSON body {"device_id": ...} is accepted instead of the query.',
    operation_id="unregisterDevice",
    responses={
        204: {"description": "The device is not registered for the caller any more, or never was", "content": {}},
        **document_errors(401, 403, 422, 503),
    },
)
def unregister(device_id: Annotated[DeviceId, Query()]) -> Response[None]:
    """204, whether the device was registered or not."""
    _registry(_key()).unregister(app.context["access_token"], device_id)
    count("DeviceUnregistered")
    return Response(204)


@app.get(
    "/api/push/devices",
    summary="List the caller's devices",
    description="Deactivated devices are included. Push tokens are shortened.",
    operation_id="listDevices",
    responses={
        200: {
            "description": "The devices. The device that was seen last comes first",
            "content": {"application/json": {"model": list[Device]}},
        },
        **document_errors(401, 403, 503),
    },
)
def devices() -> list[Device]:
    """The devices of the caller."""
    return _registry(_key()).devices(app.context["access_token"])


@app.exception_handler(HANDLED_ERRORS)  # type: ignore[untyped-decorator]  # Powertools has no type for it.
def handle_failure(error: Exception) -> Response[Any]:
    """The response to an exception of a route."""
    return failure_from(error).response()


@metrics.log_metrics
@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_HTTP, clear_state=True)
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """The response for API Gateway, which also a browser may read."""
    if event["requestContext"]["http"]["method"] == "OPTIONS":
        return {"statusCode": 204, "headers": {**CORS, **PREFLIGHT}}
    answer = _answer(event, context)
    return {**answer, "headers": {**answer["headers"], **CORS}}


def _answer(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """The access token is verified first: without a valid one, every request gets 401."""
    try:
        token = access_token(event)
        logger.append_keys(user_id=str(_auth(_key()).user_id(token)))
        request = validate_and_normalize(event)
    except tuple(HANDLED_ERRORS) as error:
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
