"""Devices as apps register and see them."""

import re
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

# Expo's own check, and the bare UUID that its Node SDK accepts too; as in the table's constraint.
EXPO_PUSH_TOKEN = re.compile(
    r"(Exponent|Expo)PushToken\[[^\[\]\s]{1,80}\]|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE
)

DeviceId = Annotated[str, Field(min_length=1, max_length=200, description="Stable id of the installation")]


class Registration(BaseModel):
    """A phone that is to get the caller's pushes."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    device_id: DeviceId
    platform: Literal["ios", "android", "web"]
    # Before push_token, whose form depends on it.
    push_provider: Literal["expo", "fcm", "apns"] = "expo"
    push_token: Annotated[str, Field(min_length=1, max_length=4096, repr=False)]
    app_version: Annotated[str, Field(min_length=1, max_length=50)] | None = None

    @field_validator("push_token")
    @classmethod
    def _is_of_its_provider(cls, push_token: str, others: ValidationInfo) -> str:
        if others.data.get("push_provider") == "expo" and not EXPO_PUSH_TOKEN.fullmatch(push_token):
            raise ValueError(
                "not an Expo push token (ExponentPushToken[…]): pass what getExpoPushTokenAsync() returns; "
                "addPushTokenListener yields the native token"
            )
        return push_token


class Unregistration(BaseModel):
    """A phone that is to get no more pushes of the caller."""

    model_config = ConfigDict(extra="forbid")

    device_id: DeviceId


class Device(BaseModel):
    """A registered phone; its push token is shortened."""

    device_id: str
    platform: Literal["ios", "android", "web"]
    push_provider: Literal["expo", "fcm", "apns"]
    push_token: str | None
    app_version: str | None
    is_active: bool
    last_seen_at: datetime
    created_at: datetime
