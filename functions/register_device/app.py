"""HTTP API for an app's devices: register after each login, unregister at logout, list."""

from functools import lru_cache
from typing import Annotated, Any

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.openapi.params import Body, Query
from aws_lambda_powertools.logging import correlation_paths
from aws_lambda_powertools.utilities.typing import LambdaContext
from pydantic import BaseModel

from admission import access_token, refuse_unreadable
from chat_push.database import DeviceRegistry
from chat_push.devices import Device, DeviceId, Registration, Unregistration
from chat_push.identity import Auth
from chat_push.observability import count, logger, metrics
from chat_push.settings import read_settings
from failures import FAILURES, RESPONSES, failure_of, missing_device_id


class Settings(BaseModel):
    supabase_url: str
    supabase_publishable_key: str


settings = read_settings(Settings)
app = APIGatewayHttpResolver(enable_validation=True)


@app.post("/api/push/register", responses=RESPONSES)
def register(registration: Annotated[Registration, Body()]) -> Response[Device]:
    """Registers the caller's phone: 200, or 201 if it is new. Its former account gets no more pushes on it."""
    device, created = _registry().register(app.context["access_token"], registration)
    count("DeviceRegistered")
    return Response(201 if created else 200, "application/json", device)


@app.delete("/api/push/unregister", status_code=204, responses=RESPONSES)
def unregister(
    device_id: Annotated[DeviceId | None, Query()] = None,
    body: Annotated[Unregistration | None, Body()] = None,
) -> Response[None]:
    """Removes the caller's phone, named in the query or the body; also when there is none."""
    _registry().unregister(app.context["access_token"], body.device_id if body else device_id or missing_device_id())
    count("DeviceUnregistered")
    return Response(204)


@app.get("/api/push/devices", responses=RESPONSES)
def devices() -> list[Device]:
    """The caller's phones, the one that was seen last first; push tokens are shortened."""
    return _registry().devices(app.context["access_token"])


@app.exception_handler(FAILURES)  # type: ignore[untyped-decorator]  # Powertools leaves it so.
def failed(error: Exception) -> Response[Any]:
    """The error's answer, in the one shape of this API."""
    return failure_of(error).response()


@metrics.log_metrics
@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_HTTP, clear_state=True)
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Who is calling comes first: a stranger learns nothing of what a right request looks like."""
    try:
        token = access_token(event)
        logger.append_keys(user_id=str(_auth().user_id(token)))
        refuse_unreadable(event)
    except tuple(FAILURES) as error:
        return failure_of(error).proxy_response()
    app.context["access_token"] = token
    return app.resolve(event, context)


@lru_cache(maxsize=1)
def _auth() -> Auth:
    return Auth(settings.supabase_url, settings.supabase_publishable_key)


@lru_cache(maxsize=1)
def _registry() -> DeviceRegistry:
    return DeviceRegistry(settings.supabase_url, settings.supabase_publishable_key)
