"""Devices as apps register and see them."""

import re
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

type Platform = Literal["ios", "android", "web"]
type PushProvider = Literal["expo", "fcm", "apns"]

# Push tokens. Expo's own check, and the bare UUID that its Node SDK accepts too; the table's constraint is no narrower.
# Spelled out in ASCII, because what counts as a space differs between Python, Postgres and JSON Schema.
EXPO_PATTERN = r"(Exponent|Expo)PushToken\[[!-Z\\^-~]{1,80}\]|[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
NATIVE_PATTERN = r"[!-Z\\^-~]+"  # Neither Google nor Apple promises more; it is no Expo token, for lack of brackets.
# Neither promises a length: FCM's have some 200 bytes today, APNs' 64. The database's unique index takes 2,700.
MAX_TOKEN_BYTES = 2048

_WITHOUT_NUL = r"^[^\x00]*$"  # Postgres has none in texts

type DeviceId = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        pattern=_WITHOUT_NUL,
        description="Id that the app gave to this installation, and keeps",
    ),
]


class Registration(BaseModel):
    """A phone that is to get the caller's pushes."""

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
            # what the validator below checks
            "if": {"properties": {"push_provider": {"enum": ["fcm", "apns"]}}, "required": ["push_provider"]},
            "then": {"properties": {"push_token": {"pattern": f"^({NATIVE_PATTERN})$"}}},
            "else": {"properties": {"push_token": {"pattern": f"^({EXPO_PATTERN})$"}}},
        },
    )

    device_id: DeviceId
    platform: Platform
    # Before push_token, whose form depends on it.
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
                "addPushTokenListener yields the native token"
            )
        if provider in ("fcm", "apns") and re.match(r"expo(nent)?pushtoken\[", push_token, re.IGNORECASE):
            raise ValueError(f"an Expo push token, but push_provider is {provider}: set push_provider to expo")
        if provider in ("fcm", "apns") and not re.fullmatch(NATIVE_PATTERN, push_token):
            raise ValueError(f"not a native token of {provider}: pass what getDevicePushTokenAsync() returns")
        return push_token


class Unregistration(BaseModel):
    """A phone that is to get no more pushes of the caller."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    device_id: DeviceId


class Device(BaseModel):
    """A registered phone; its push token is shortened."""

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
    """A registration's outcome: the device as it is now, and whether it is new."""

    device: Device
    created: bool
