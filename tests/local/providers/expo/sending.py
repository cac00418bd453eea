"""A clock, push tokens and an unchecked sender for the tests of the fake Expo service."""

from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from pydantic import JsonValue

IPHONE = "ExponentPushToken[iphone0000000000000000]"
PIXEL = "ExponentPushToken[pixel00000000000000000]"
STRANGER = "ExponentPushToken[stranger00000000000000]"  # well-formed, never issued
FOREIGN = "ExponentPushToken[foreign000000000000000]"  # of another project


class Clock:
    """A clock that moves only by `advance`."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 6, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **delta: float) -> None:
        self.now += timedelta(**delta)


class Sender:
    """Posts any body, valid or not; returns status and JSON."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http

    async def __call__(self, path: str, body: object, **headers: str) -> tuple[int, Any]:
        async with self._http.post(path, json=body, headers=headers) as response:
            return response.status, await response.json()

    async def send(self, body: object, **headers: str) -> tuple[int, Any]:
        return await self("/--/api/v2/push/send", body, **headers)

    async def receipts(self, ids: object, **headers: str) -> tuple[int, Any]:
        return await self("/--/api/v2/push/getReceipts", {"ids": ids}, **headers)

    async def tickets(self, *messages: dict[str, JsonValue]) -> list[dict[str, Any]]:
        status, body = await self.send(list(messages))
        assert status == 200
        tickets: list[dict[str, Any]] = body["data"]
        return tickets


def message(to: str | list[str] = IPHONE, message_id: str = "m1", **fields: JsonValue) -> dict[str, JsonValue]:
    recipients: JsonValue = list(to) if isinstance(to, list) else to
    return {"to": recipients, "title": "Ana", "body": "Hello", "data": {"messageId": message_id}, **fields}


def reset_by_peer() -> pytest.RaisesExc[aiohttp.ClientOSError]:
    return pytest.raises(aiohttp.ClientOSError, match="reset by peer")


def code(body: Any) -> str:
    """The code of the only entry of `errors`."""
    [error] = body["errors"]
    return str(error["code"])
