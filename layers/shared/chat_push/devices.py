"""Devices, as the HTTP API for apps accepts and returns them."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from chat_push.models import Environment, Provider

# Expo's push tokens: its own check, plus the bare UUID that its Node SDK accepts. A test compares it with the check
# constraint of user_devices. It lists ASCII characters, because Python, Postgres and JSON Schema differ about \s.
# https://github.com/expo/expo-server-sdk-node/blob/main/src/ExpoClient.ts (isExpoPushToken)
EXPO_PATTERN = r"(Exponent|Expo)PushToken\[[!-Z\\^-~]{1,80}\]|[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"

# https://firebase.google.com/docs/cloud-messaging/manage-tokens; Google documents no form. 64 hexadecimal characters
# are a token of APNs.
FCM_PATTERN = r"(?![0-9A-Fa-f]{64}$)[A-Za-z0-9_:-]{20,2048}"
# https://developer.apple.com/documentation/usernotifications/registering-your-app-with-apns
APNS_PATTERN = r"([0-9A-Fa-f]{2}){16,100}"


class _Kind(NamedTuple):
    """The devices of a provider: their platforms, the form of their tokens, and where an app gets such a token."""

    platforms: tuple[str, ...]
    pattern: str
    advice: str


_KINDS: Mapping[Provider, _Kind] = {
    "expo": _Kind(
        ("ios", "android"),
        EXPO_PATTERN,
        "not an Expo push token (ExponentPushToken[…]): pass what getExpoPushTokenAsync() returns; "
        "addPushTokenListener returns the native token",
    ),
    "fcm": _Kind(
        ("android", "web"),
        FCM_PATTERN,
        "not a registration token of FCM: pass what getDevicePushTokenAsync() returns on Android, "
        "or what getToken() returns on the web",
    ),
    "apns": _Kind(
        ("ios",),
        APNS_PATTERN,
        "not a device token of APNs, which is hexadecimal: pass what getDevicePushTokenAsync() returns on an iPhone",
    ),
}

# The form of https://www.rfc-editor.org/rfc/rfc5646: which tags exist is not checked.
LANGUAGE_PATTERN = r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,10}$"

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
            "anyOf": [
                {
                    "properties": {
                        "push_provider": {"const": provider},
                        "platform": {"enum": list(kind.platforms)},
                        "push_token": {"pattern": f"^({kind.pattern})$"},
                    },
                    "required": [] if provider == "expo" else ["push_provider"],
                }
                for provider, kind in _KINDS.items()
            ],
        },
    )

    device_id: DeviceId
    platform: Literal["ios", "android", "web"]
    push_provider: Annotated[Provider, Field(validate_default=True)] = "expo"
    push_token: Annotated[str, Field(repr=False)]
    push_environment: Annotated[
        Environment, Field(description="Of provider apns: sandbox for a development build from Xcode")
    ] = "production"
    app_version: Annotated[str, Field(min_length=1, max_length=50, pattern=_WITHOUT_NUL)] | None = None
    locale: (
        Annotated[
            str,
            Field(
                pattern=LANGUAGE_PATTERN,
                examples=["pt-BR"],
                description="The language of the device as a BCP 47 tag, for the fixed texts of its pushes",
            ),
        ]
        | None
    ) = None

    @field_validator("push_provider")
    @classmethod
    def _check_serves_platform(cls, provider: Provider, info: ValidationInfo) -> Provider:
        platforms = _KINDS[provider].platforms
        if info.data.get("platform", platforms[0]) not in platforms:
            raise ValueError(
                f"{provider} serves {' and '.join(platforms)} only: use expo or apns for ios, expo or fcm for android, "
                "fcm for web"
            )
        return provider

    @field_validator("push_token")
    @classmethod
    def _check_is_of_provider(cls, push_token: str, info: ValidationInfo) -> str:
        kind = _KINDS.get(info.data.get("push_provider", ""))
        if kind and not re.fullmatch(kind.pattern, push_token):
            raise ValueError(kind.advice)
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
    push_provider: Provider
    push_environment: Environment
    push_token: str | None
    app_version: str | None
    locale: str | None
    is_active: bool
    last_seen_at: datetime
    created_at: datetime


class Registered(BaseModel):
    """The result of a registration: the device as it is now, and whether it is new."""

    device: Device
    created: bool
