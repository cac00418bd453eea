"""Devices, as the HTTP API for apps accepts and returns them."""

import re
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

# Expo's push tokens: its own check, plus the bare UUID that its Node SDK accepts. A test compares it with the check
# constraint of user_devices. It lists ASCII characters, because Python, Postgres and JSON Schema differ about \s.
# https://github.com/expo/expo-server-sdk-node/blob/main/src/ExpoClient.ts (isExpoPushToken)
EXPO_PATTERN = r"(Exponent|Expo)PushToken\[[!-Z\\^-~]{1,80}\]|[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"

_WITHOUT_NUL = r"^[^\x00]*$"  # Postgres cannot store it in a text.

type DeviceId = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        pattern=_WITHOUT_NUL,
        description="Id that the app generated for this installation, and keeps",
    ),
]


class Registration(BaseModel):
    """A device that is to receive the caller's pushes. The SQL function register_device has the same rules."""

    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,
        json_schema_extra={
            "examples": [
                {
                    "device_id": "8f14e45f-ceea-467f-a8d2-0d6f2f1c7a55",
                    "platform": "ios",
                    "push_token": "ExponentPushToken[xxxxxxxxxxxxxxxxxxxxxx]",
                    "app_version": "1.4.0",
                }
            ],
        },
    )

    device_id: DeviceId
    platform: Literal["ios", "android"]
    push_provider: Literal["expo"] = "expo"
    push_token: Annotated[str, Field(repr=False, json_schema_extra={"pattern": f"^({EXPO_PATTERN})$"})]
    app_version: Annotated[str, Field(min_length=1, max_length=50, pattern=_WITHOUT_NUL)] | None = None

    @field_validator("push_token")
    @classmethod
    def _check_is_expo_token(cls, push_token: str) -> str:
        if not re.fullmatch(EXPO_PATTERN, push_token):
            raise ValueError(
                "not an Expo push token (ExponentPushToken[…]): pass what getExpoPushTokenAsync() returns; "
                "addPushTokenListener returns the native token"
            )
        return push_token


class Unregistration(BaseModel):
    """A device that is to receive no more pushes of the caller."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    device_id: DeviceId


class Device(BaseModel):
    """A registered device. Its push token is shortened.

    Apps may write user_devices themselves. So a device may have values that a registration must not have.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    device_id: str
    platform: Literal["ios", "android", "web"]
    push_provider: Literal["expo", "fcm", "apns"]
    push_token: str | None
    app_version: str | None
    is_active: bool
    last_seen_at: datetime
    created_at: datetime


class Registered(BaseModel):
    """The result of a registration: the device as it is now, and whether it is new."""

    device: Device
    created: bool
