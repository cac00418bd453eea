"""The control API: the methods of ExpoService over HTTP. `GET /control` describes it."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from local.providers.expo.faults import Script
from local.providers.expo.state import CONTROL_PATH, ExpoInstallation, ExpoService, Settings
from local.providers.phones import Condition, DeadTokenReport

type _Handler = Callable[[ExpoService, web.Request], Awaitable[object]]


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


def routes(expo: ExpoService) -> list[web.RouteDef]:
    """The endpoints of the control API."""
    return [
        web.route(method, CONTROL_PATH + path, partial(_answer, expo, handler))
        for method, path, handler, _ in _ENDPOINTS
    ]


async def _answer(expo: ExpoService, handler: _Handler, request: web.Request) -> web.Response:
    try:
        result = await handler(expo, request)
    except ValidationError as error:
        errors = [
            {"field": ".".join(map(str, found["loc"])) or "(body)", "message": found["msg"]}
            for found in error.errors(include_input=False)
        ]
        return web.json_response({"errors": errors}, status=422)
    except KeyError as error:
        return web.json_response({"errors": [{"field": "token", "message": f"no phone has {error}"}]}, status=404)
    return web.Response(status=204) if result is None else web.json_response(to_jsonable_python(result))


async def _describe(expo: ExpoService, request: web.Request) -> object:
    """This description."""
    endpoints = {
        f"{method} {CONTROL_PATH}{path}": {"does": handler.__doc__}
        | ({} if takes is None else {"takes": takes.model_json_schema()})
        for method, path, handler, takes in _ENDPOINTS
    }
    return {"what": "control of a fake Expo push service", "push_url": expo.url, "endpoints": endpoints}


async def _reset(expo: ExpoService, request: web.Request) -> None:
    """Deletes phones, faults, receipts, requests and settings."""
    expo.reset()


async def _phones(expo: ExpoService, request: web.Request) -> object:
    """Every phone: what it shows, and all that arrived on it."""
    return list(expo.phones.values())


async def _phone(expo: ExpoService, request: web.Request) -> object:
    """One phone."""
    return expo.phones[request.match_info["token"]]


async def _install(expo: ExpoService, request: web.Request) -> object:
    """Installs the app on a phone; replaces an earlier phone with this token."""
    return expo.install(**dict(ExpoInstallation.model_validate_json(await request.read())))


async def _uninstall(expo: ExpoService, request: web.Request) -> object:
    """Uninstalls the app; `report` in the query: Expo reports it in the "ticket" or the "receipt"."""
    return expo.uninstall(request.match_info["token"], **dict(Uninstallation.model_validate(dict(request.query))))


async def _change_phone(expo: ExpoService, request: web.Request) -> object:
    """Switches a phone on or off, closes its app, or signs a user in or out. What was held for the phone arrives."""
    condition = Condition.model_validate_json(await request.read())
    return expo.change_phone(request.match_info["token"], condition)


async def _open_app(expo: ExpoService, request: web.Request) -> object:
    """Opens the app on a phone. It removes the notifications of what was read, and sets the badge."""
    return expo.open_app(request.match_info["token"], **dict(Opening.model_validate_json(await request.read())))


async def _pass_time(expo: ExpoService, request: web.Request) -> None:
    """Puts the clock forward by so many seconds, so that pushes for phones that are off expire."""
    expo.pass_time(Passed.model_validate_json(await request.read()).seconds)


async def _faults(expo: ExpoService, request: web.Request) -> object:
    """The faults that have not struck yet."""
    return expo.faults.scripts


async def _script(expo: ExpoService, request: web.Request) -> object:
    """Scripts a fault for the next `times` requests, or for the next that concern `token`."""
    expo.script(**dict(Script.model_validate_json(await request.read())))
    return expo.faults.scripts


async def _clear_faults(expo: ExpoService, request: web.Request) -> None:
    """Deletes the faults that have not struck yet."""
    expo.faults.scripts.clear()


async def _settings(expo: ExpoService, request: web.Request) -> object:
    """The settings."""
    return expo.settings


async def _configure(expo: ExpoService, request: web.Request) -> object:
    """Changes the given settings and keeps the others."""
    return expo.configure(TypeAdapter(dict[str, JsonValue]).validate_json(await request.read()))


async def _requests(expo: ExpoService, request: web.Request) -> object:
    """The requests to the push endpoints since the last reset, oldest first."""
    return expo.requests


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
