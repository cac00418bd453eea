"""The control API: the methods of ExpoService over HTTP. `GET /control` describes it.

Beside FCM and APNs it serves their phones, too. Faults, settings and requests are those of Expo.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from local.providers.apns.protocol import DEVICE_TOKEN, Environment
from local.providers.apns.state import TOPIC, ApnsService
from local.providers.expo.faults import Script
from local.providers.expo.state import ExpoInstallation, ExpoService, Settings
from local.providers.fcm.state import FcmInstallation, FcmService
from local.providers.phones import Condition, DeadTokenReport, Provider
from local.providers.push_service import CONTROL_PATH

type _Service = ExpoService | FcmService | ApnsService
type _Handler = Callable[["Services", web.Request], Awaitable[object]]


@dataclass(frozen=True)
class Services:
    """The push services of the control API."""

    expo: ExpoService
    fcm: FcmService | None = None
    apns: ApnsService | None = None

    @property
    def all(self) -> list[_Service]:
        """Those that run."""
        return [service for service in (self.expo, self.fcm, self.apns) if service]

    def of_phone(self, token: str) -> _Service:
        """The service of a phone. Raises KeyError: no such phone."""
        for service in self.all:
            if token in service.phones:
                return service
        raise KeyError(token)


class WantedProvider(BaseModel):
    """The query of an installation: who issued the token."""

    model_config = ConfigDict(extra="forbid")

    provider: Provider = "expo"


class ApnsInstallation(BaseModel):
    """The app on an iPhone that has a device token of APNs."""

    model_config = ConfigDict(extra="forbid")

    token: Annotated[str, Field(pattern=DEVICE_TOKEN)]
    environment: Environment = "production"
    topic: str = TOPIC


class Uninstallation(BaseModel):
    """The query of an uninstall: where Expo reports that the app is gone."""

    model_config = ConfigDict(extra="forbid")

    report: DeadTokenReport = "ticket"


class Passed(BaseModel):
    """How far the clock is put forward."""

    model_config = ConfigDict(extra="forbid")

    seconds: Annotated[float, Field(ge=0)]


class Opening(BaseModel):
    """What the app finds in the database when it is opened."""

    model_config = ConfigDict(extra="forbid")

    unread_conversations: list[str]
    badge: Annotated[int, Field(ge=0)]


def routes(services: Services) -> list[web.RouteDef]:
    """The endpoints of the control API."""
    return [
        web.route(method, CONTROL_PATH + path, partial(_answer, services, handler))
        for method, path, handler, _ in _ENDPOINTS
    ]


async def _answer(services: Services, handler: _Handler, request: web.Request) -> web.Response:
    try:
        result = await handler(services, request)
    except ValidationError as error:
        errors = [
            {"field": ".".join(map(str, found["loc"])) or "(body)", "message": found["msg"]}
            for found in error.errors(include_input=False)
        ]
        return web.json_response({"errors": errors}, status=422)
    except KeyError as error:
        return web.json_response({"errors": [{"field": "token", "message": f"no phone has {error}"}]}, status=404)
    return web.Response(status=204) if result is None else web.json_response(to_jsonable_python(result))


async def _describe(services: Services, request: web.Request) -> object:
    """This description."""
    endpoints = {
        f"{method} {CONTROL_PATH}{path}": {"does": handler.__doc__}
        | ({} if takes is None else {"takes": takes.model_json_schema()})
        for method, path, handler, takes in _ENDPOINTS
    }
    return {"what": "control of a fake Expo push service", "push_url": services.expo.url, "endpoints": endpoints}


async def _reset(services: Services, request: web.Request) -> None:
    """Deletes phones, faults, receipts, requests and settings."""
    for service in services.all:
        service.reset()


async def _phones(services: Services, request: web.Request) -> object:
    """Every phone: what it shows, and all that arrived on it."""
    return [phone for service in services.all for phone in service.phones.values()]


async def _phone(services: Services, request: web.Request) -> object:
    """One phone."""
    token = request.match_info["token"]
    return services.of_phone(token).phones[token]


async def _install(services: Services, request: web.Request) -> object:
    """Installs the app on a phone; replaces an earlier phone with this token. `provider` in the query: fcm or apns."""
    body = await request.read()
    match WantedProvider.model_validate(dict(request.query)).provider:
        case "fcm" if services.fcm:
            return services.fcm.install(**dict(FcmInstallation.model_validate_json(body)))
        case "apns" if services.apns:
            return services.apns.install(**dict(ApnsInstallation.model_validate_json(body)))
        case _:
            return services.expo.install(**dict(ExpoInstallation.model_validate_json(body)))


async def _uninstall(services: Services, request: web.Request) -> object:
    """Uninstalls the app; `report` in the query: Expo reports it in the "ticket" or the "receipt"."""
    token, uninstallation = request.match_info["token"], Uninstallation.model_validate(dict(request.query))
    match services.of_phone(token):
        case ExpoService() as expo:
            return expo.uninstall(token, uninstallation.report)
        case service:
            return service.uninstall(token)


async def _change_phone(services: Services, request: web.Request) -> object:
    """Switches a phone on or off, closes its app, or signs a user in or out. What was held for the phone arrives."""
    condition, token = Condition.model_validate_json(await request.read()), request.match_info["token"]
    return services.of_phone(token).change_phone(token, condition)


async def _open_app(services: Services, request: web.Request) -> object:
    """Opens the app on a phone. It removes the notifications of what was read, and sets the badge."""
    token = request.match_info["token"]
    opening = Opening.model_validate_json(await request.read())
    return services.of_phone(token).open_app(token, **dict(opening))


async def _pass_time(services: Services, request: web.Request) -> None:
    """Puts the clock forward by so many seconds, so that pushes for phones that are off expire."""
    seconds = Passed.model_validate_json(await request.read()).seconds
    for service in services.all:
        service.pass_time(seconds)


async def _faults(services: Services, request: web.Request) -> object:
    """The faults that have not struck yet."""
    return services.expo.faults.scripts


async def _script(services: Services, request: web.Request) -> object:
    """Scripts a fault for the next `times` requests, or for the next that concern `token`."""
    services.expo.script(**dict(Script.model_validate_json(await request.read())))
    return services.expo.faults.scripts


async def _clear_faults(services: Services, request: web.Request) -> None:
    """Deletes the faults that have not struck yet."""
    services.expo.faults.scripts.clear()


async def _settings(services: Services, request: web.Request) -> object:
    """The settings."""
    return services.expo.settings


async def _configure(services: Services, request: web.Request) -> object:
    """Changes the given settings and keeps the others."""
    return services.expo.configure(TypeAdapter(dict[str, JsonValue]).validate_json(await request.read()))


async def _requests(services: Services, request: web.Request) -> object:
    """The requests to the push endpoints since the last reset, oldest first."""
    return services.expo.requests


_ENDPOINTS: list[tuple[str, str, _Handler, type[BaseModel] | None]] = [
    ("GET", "", _describe, None),
    ("DELETE", "", _reset, None),
    ("GET", "/phones", _phones, None),
    ("POST", "/phones", _install, ExpoInstallation),
    ("GET", "/phones/{token}", _phone, None),
    ("DELETE", "/phones/{token}", _uninstall, Uninstallation),
    ("PATCH", "/phones/{token}", _change_phone, Condition),
    ("POST", "/phones/{token}/open", _open_app, Opening),
    ("POST", "/clock", _pass_time, Passed),
    ("GET", "/faults", _faults, None),
    ("POST", "/faults", _script, Script),
    ("DELETE", "/faults", _clear_faults, None),
    ("GET", "/settings", _settings, None),
    ("PATCH", "/settings", _configure, Settings),
    ("GET", "/requests", _requests, None),
]
