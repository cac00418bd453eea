"""Devices, as the HTTP API for apps accepts and returns them."""

import re
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

type Platform = Literal["ios", "android", "web"]
type PushProvider = Literal["expo", "fcm", "apns"]

# Expo's push tokens: its own check, plus the bare UUID that its Node SDK accepts. A test compares it with the check
# constraint of user_devices. It lists ASCII characters, because Python, Postgres and JSON Schema differ about \s.
# https://github.com/expo/expo-server-sdk-node/blob/main/src/ExpoClient.ts (isExpoPushToken)
EXPO_PATTERN = r"(Exponent|Expo)PushToken\[[!-Z\\^-~]{1,80}\]|[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
# Google and Apple document no format. Without brackets, it cannot match an Expo token.
NATIVE_PATTERN = r"[!-Z\\^-~]+"
# They document no length either: today FCM's have about 200 bytes, APNs' 64. The unique index allows 2,700.
MAX_TOKEN_BYTES = 2048

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
    """A device that is to receive the caller's pushes."""

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
            # The same rule as the validator below.
            "if": {"properties": {"push_provider": {"enum": ["fcm", "apns"]}}, "required": ["push_provider"]},
            "then": {"properties": {"push_token": {"pattern": f"^({NATIVE_PATTERN})$"}}},
            "else": {"properties": {"push_token": {"pattern": f"^({EXPO_PATTERN})$"}}},
        },
    )

    device_id: DeviceId
    platform: Platform
    # Before push_token: its validator reads this field.
    push_provider: PushProvider = "expo"
    push_token: Annotated[str, Field(min_length=1, max_length=MAX_TOKEN_BYTES, repr=False)]
    app_version: Annotated[str, Field(min_length=1, max_length=50, pattern=_WITHOUT_NUL)] | None = None

    @field_validator("push_token")
    @classmethod
    def _check_matches_provider(cls, push_token: str, others: ValidationInfo) -> str:
        provider = others.data.get("push_provider")
        if provider == "expo" and not re.fullmatch(EXPO_PATTERN, push_token):
            raise ValueError(
                "not an Expo push token (ExponentPushToken[…]): pass what getExpoPushTokenAsync() returns; "
                "addPushTokenListener returns the native token"
            )
        if provider in ("fcm", "apns") and re.match(r"expo(nent)?pushtoken\[", push_token, re.IGNORECASE):
            raise ValueError(f"an Expo push token, but push_provider is {provider}: set push_provider to expo")
        if provider in ("fcm", "apns") and not re.fullmatch(NATIVE_PATTERN, push_token):
            raise ValueError(f"not a native token of {provider}: pass what getDevicePushTokenAsync() returns")
        return push_token


class Unregistration(BaseModel):
    """A device that is to receive no more pushes of the caller."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    device_id: DeviceId


class Device(BaseModel):
    """A registered device. Its push token is shortened."""

    model_config = ConfigDict(hide_input_in_errors=True)

    device_id: str
    platform: Platform
    push_provider: PushProvider
    push_token: str | None
    app_version: str | None
    is_active: bool
    last_seen_at: datetime
    created_at: datetime


class Registered(BaseModel):
    """The result of a registration: the device as it is now, and whether it is new."""

    device: Device
    created: bool
