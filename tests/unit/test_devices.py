"""Registrations of devices: their validation, and the OpenAPI document that describes it."""

import json
import subprocess
import sys
from typing import Any

import jsonschema
import pytest
from chat_push.devices import Registration
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from local.openapi import DOCUMENT
from tests.http_fakes import push_token

TOKEN = push_token(1)
FCM_TOKEN = "cXyz_9-8:APA91bH" + "x" * 140
APNS_TOKEN = "0a" * 32


def registration(**changes: Any) -> dict[str, Any]:
    """A body with changed fields. A field of None is left out."""
    body = {"device_id": "phone", "platform": "ios", "push_token": TOKEN, **changes}
    return {name: value for name, value in body.items() if value is not None}


class TestRegistration:
    def test_a_registration_without_push_provider_is_for_expo(self) -> None:
        assert Registration.model_validate(registration()).model_dump() == {
            "device_id": "phone",
            "platform": "ios",
            "push_provider": "expo",
            "push_token": TOKEN,
            "push_environment": "production",
            "app_version": None,
            "locale": None,
        }

    @pytest.mark.parametrize("platform", ["ios", "android"])
    @pytest.mark.parametrize(
        "token",
        [
            "ExponentPushToken[xxxxxxxxxxxxxxxxxxxxxx]",
            "ExpoPushToken[a]",
            "8F14E45F-ceea-467f-a8d2-0d6f2f1c7a55",
            f"ExponentPushToken[{'x' * 80}]",
        ],
    )
    def test_tokens_of_expo_are_accepted(self, platform: str, token: str) -> None:
        body = registration(platform=platform, push_token=token)
        assert Registration.model_validate(body).push_token == token

    @pytest.mark.parametrize(
        "token",
        [
            "0a" * 32,
            "cXyz_9-8:APA91bH" + "x" * 140,
            "exponentpushtoken[a]",
            "ExponentPushToken[]",
            "ExponentPushToken[a]\n",
            " ExponentPushToken[a]",
            "ExponentPushToken[a b]",
            "ExponentPushToken[a\u00a0b]",
            "ExponentPushToken[[a]]",
            f"ExponentPushToken[{'x' * 81}]",
            "8f14e45fceea467fa8d20d6f2f1c7a55",
        ],
    )
    @pytest.mark.parametrize("provider", ["expo", None])
    def test_a_native_token_for_expo_is_refused_with_a_hint_at_the_usual_mistake(
        self, provider: str | None, token: str
    ) -> None:
        with pytest.raises(ValidationError, match=r"addPushTokenListener returns the native token") as raised:
            Registration.model_validate(registration(push_provider=provider, push_token=token))
        assert token.strip() not in str(raised.value)

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"device_id": None}, "device_id"),
            ({"device_id": ""}, "device_id"),
            ({"device_id": "x" * 201}, "device_id"),
            ({"device_id": "a\x00b"}, "device_id"),
            ({"device_id": 7}, "device_id"),
            ({"platform": None}, "platform"),
            ({"platform": "windows"}, "platform"),
            ({"platform": "IOS"}, "platform"),
            ({"platform": "web"}, "push_provider"),
            ({"push_environment": "test"}, "push_environment"),
            ({"push_provider": "apple"}, "push_provider"),
            ({"push_provider": "fcm"}, "push_provider"),
            ({"push_provider": "apns"}, "push_token"),
            ({"push_token": None}, "push_token"),
            ({"push_token": ""}, "push_token"),
            ({"push_token": "x" * 2049}, "push_token"),
            ({"app_version": ""}, "app_version"),
            ({"app_version": "1\x00"}, "app_version"),
            ({"app_version": "x" * 51}, "app_version"),
            ({"locale": "de_DE"}, "locale"),
            ({"locale": ""}, "locale"),
            ({"locale": "German, please"}, "locale"),
            ({"locale": "x" * 9}, "locale"),
            ({"is_active": True}, "is_active"),
            ({"user_id": "another user"}, "user_id"),
        ],
        ids=str,
    )
    def test_a_validation_error_names_the_wrong_field(self, changes: dict[str, Any], field: str) -> None:
        with pytest.raises(ValidationError) as raised:
            Registration.model_validate(registration(**changes))
        assert [fault["loc"] for fault in raised.value.errors()] == [(field,)]

    @pytest.mark.parametrize(
        ("provider", "platform", "token"),
        [("fcm", "android", FCM_TOKEN), ("fcm", "web", FCM_TOKEN), ("apns", "ios", APNS_TOKEN)],
    )
    @pytest.mark.parametrize("environment", ["production", "sandbox"])
    def test_native_tokens_are_accepted_for_their_provider(
        self, provider: str, platform: str, token: str, environment: str
    ) -> None:
        body = registration(push_provider=provider, platform=platform, push_token=token, push_environment=environment)
        assert Registration.model_validate(body).push_environment == environment

    @pytest.mark.parametrize(
        ("provider", "platform", "token", "advice"),
        [
            ("fcm", "ios", FCM_TOKEN, "use expo or apns for ios"),
            ("apns", "android", APNS_TOKEN, "expo or fcm for android"),
            ("expo", "web", TOKEN, "fcm for web"),
            ("fcm", "android", TOKEN, "not a registration token of FCM"),
            ("fcm", "android", APNS_TOKEN, "not a registration token of FCM"),
            ("fcm", "web", "short", "not a registration token of FCM"),
            ("apns", "ios", TOKEN, "not a device token of APNs, which is hexadecimal"),
            ("apns", "ios", FCM_TOKEN, "not a device token of APNs, which is hexadecimal"),
            ("apns", "ios", APNS_TOKEN[1:], "not a device token of APNs, which is hexadecimal"),
        ],
    )
    def test_a_token_or_platform_of_another_provider_is_refused_with_advice(
        self, provider: str, platform: str, token: str, advice: str
    ) -> None:
        with pytest.raises(ValidationError, match=advice) as raised:
            Registration.model_validate(registration(push_provider=provider, platform=platform, push_token=token))
        assert token not in str(raised.value)

    def test_the_repr_of_a_registration_contains_no_token(self) -> None:
        assert TOKEN not in repr(Registration.model_validate(registration()))


def unusual_texts() -> st.SearchStrategy[str]:
    return st.text(st.characters(categories=None), max_size=210) | st.sampled_from(["\x00", "\ud800", "\n", ""])


def bodies() -> st.SearchStrategy[dict[str, Any]]:
    """Bodies with mostly valid fields and some unusual ones."""
    texts = unusual_texts() | st.integers() | st.none()
    return st.fixed_dictionaries(
        {
            "device_id": st.just("phone") | texts,
            "platform": st.sampled_from(["ios", "android", "web"]) | texts,
            "push_token": st.sampled_from([TOKEN, FCM_TOKEN, APNS_TOKEN]) | texts,
        },
        optional={
            "push_provider": st.sampled_from(["expo", "fcm", "apns"]) | texts,
            "push_environment": st.sampled_from(["production", "sandbox"]) | texts,
            "app_version": st.just("1.0") | texts,
            "locale": st.just("pt-BR") | texts,
            "more": st.just(1),
        },
    )


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DOCUMENT.read_text())
    return loaded


class TestDocument:
    @given(bodies())
    @example(registration(push_provider="fcm"))
    @example(registration(push_token="0a" * 32))
    @example(registration(app_version=None))
    def test_the_openapi_document_describes_exactly_the_accepted_bodies(
        self, document: dict[str, Any], body: dict[str, Any]
    ) -> None:
        schema = {"$ref": "#/components/schemas/Registration", "components": document["components"]}
        described = jsonschema.Draft202012Validator(schema).is_valid(body)
        try:
            accepted = Registration.model_validate(body)
        except ValidationError:
            lone_surrogate = any(
                "\ud800" <= character <= "\udfff" for value in body.values() for character in str(value)
            )
            assert not described or lone_surrogate  # JSON Schema has no rule for it
        else:
            assert described
            for value in accepted.model_dump().values():
                assert b"\x00" not in str(value).encode()

    def test_the_openapi_document_is_up_to_date(self) -> None:
        """To update it, run ./dev openapi."""
        # In a process of its own, because other functions have modules of the same names.
        generate = "import sys; from local.openapi import openapi; sys.stdout.write(openapi())"
        generated = subprocess.run([sys.executable, "-c", generate], capture_output=True, text=True, check=True).stdout
        assert generated == DOCUMENT.read_text()

    def test_every_documented_error_has_the_same_shape_and_its_header(self, document: dict[str, Any]) -> None:
        assert document["security"] == [{"session": []}]
        assert document["components"]["securitySchemes"]["session"]["scheme"] == "bearer"
        operations = {
            (method, path): operation
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        }
        assert {key: set(operation["responses"]) for key, operation in operations.items()} == {
            ("post", "/api/push/register"): {"200", "201", "400", "401", "403", "413", "415", "422", "429", "503"},
            ("delete", "/api/push/unregister"): {"204", "401", "403", "422", "503"},
            ("get", "/api/push/devices"): {"200", "401", "403", "503"},
        }
        for operation in operations.values():
            assert operation["summary"]
            assert operation["description"]
            for status, answer in operation["responses"].items():
                if status >= "400":
                    [content] = answer["content"].values()
                    assert content["schema"] == {"$ref": "#/components/schemas/ErrorResponse"}
                headers = {"401": {"WWW-Authenticate"}, "429": {"Retry-After"}, "503": {"Retry-After"}}
                assert set(answer.get("headers", {})) == headers.get(status, set())
        assert "ValidationError" not in json.dumps(document)
