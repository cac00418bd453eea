"""An app with the files of docs/client, on a phone that consists of stand-ins for Expo's modules."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from local.cloud import LocalCloud
from local.packages import node
from local.providers.phones import Arrival, Phone

_FOLDER = Path(__file__).parent / "app"


class AppError(Exception):
    """An error that docs/client/push.ts threw."""

    def __init__(self, code: str, status: int | None, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class AppOnPhone:
    """A running app (tests/docs/app/main.ts). `user_id` is the account that signed up in it."""

    user_id: str

    def __init__(self, process: asyncio.subprocess.Process, phone: Phone) -> None:
        assert process.stdin
        assert process.stdout
        self.phone = phone
        self._stdin, self._stdout = process.stdin, process.stdout

    async def do(self, command: str, *values: Any) -> Any:
        """Run a command of main.ts and return its result. Raises AppError."""
        self._stdin.write(json.dumps([command, *values]).encode() + b"\n")
        async with asyncio.timeout(60):
            answer = json.loads(await self._stdout.readline() or '{"error": {"code": "ended", "message": "ended"}}')
        if error := answer.get("error"):
            raise AppError(error["code"], error.get("status"), error["message"])
        return answer["value"]

    async def sign_up(self, name: str) -> None:
        """Create an account with a profile."""
        email = f"{name.lower()}-{secrets.token_hex(4)}@example.com"
        self.user_id = await self.do("signUp", email, secrets.token_urlsafe(16))
        await self.do("createProfile", name)

    async def state(self, name: str) -> Any:
        """Return a part of the phone's state: badge, presented, channels, registered, ..."""
        return (await self.do("phone"))[name]


def notification(arrival: Arrival) -> dict[str, Any]:
    """Return the notification that expo-notifications makes of a push on a phone."""
    content = {key: arrival.message[key] for key in ("title", "body", "data")}
    return {"date": arrival.at.timestamp(), "request": {"identifier": arrival.message["tag"], "content": content}}


@asynccontextmanager
async def app_on_phone(cloud: LocalCloud, **built_with: str) -> AsyncIterator[AppOnPhone]:
    """The app, newly installed on an Android phone. `built_with` replaces variables of its build."""
    phone = cloud.expo.install(f"ExponentPushToken[{secrets.token_urlsafe(16)}]", "android", channels=())
    environment = {
        "EXPO_PUBLIC_CHAT_PUSH_URL": cloud.api_url,
        "EXPO_PUBLIC_SUPABASE_URL": cloud.supabase.url,
        "EXPO_PUBLIC_SUPABASE_PUBLISHABLE_KEY": cloud.supabase.publishable_key,
        "EAS_PROJECT_ID": str(uuid4()),
        **built_with,
    }
    command: Sequence[str | Path] = (node(), "--import", _FOLDER / "resolve.mjs", _FOLDER / "main.ts")
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**20,  # bytes of an answer
    )
    app = AppOnPhone(process, phone)
    try:
        await app.do("phone", {"pushToken": phone.token})
        yield app
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
