"""An app with chat-push-client, on a phone that consists of stand-ins for Expo's native modules."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from local.cloud import LocalCloud
from local.providers.phones import Arrival, Phone
from tests.node_app import NodeApp, node_app

APP = Path(__file__).parent / "expo_app"


class ExpoPhone:
    """A running app (expo_app/main.ts). `user_id` is the account that signed up in it."""

    user_id: str

    def __init__(self, app: NodeApp, phone: Phone) -> None:
        self.phone = phone
        self.do = app.do

    async def sign_up(self, name: str) -> None:
        """Create an account with a profile, and sign in."""
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
async def expo_phone(cloud: LocalCloud, **environment: str) -> AsyncIterator[ExpoPhone]:
    """The app, newly installed on an Android phone. `environment` replaces variables of its build and its phone."""
    phone = cloud.expo.install(f"ExponentPushToken[{secrets.token_urlsafe(16)}]", "android", channels=())
    variables = {
        "EXPO_PUBLIC_CHAT_PUSH_URL": cloud.api_url,
        "EXPO_PUBLIC_SUPABASE_URL": cloud.supabase.url,
        "EXPO_PUBLIC_SUPABASE_PUBLISHABLE_KEY": cloud.supabase.publishable_key,
        "EAS_PROJECT_ID": str(uuid4()),
        **environment,
    }
    async with node_app(APP, variables) as app:
        installed = ExpoPhone(app, phone)
        await installed.do("phone", {"pushToken": phone.token})
        yield installed
