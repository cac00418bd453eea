"""What the fake FCM accepts and rejects, and what its phones make of messages."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from pydantic import JsonValue, ValidationError

from local.providers.fcm.accounts import AUDIENCE
from local.providers.fcm.state import FcmService
from local.providers.phones import Condition
from tests.local.providers.fcm.sending import (
    BROWSER,
    FOREIGN,
    IPHONE,
    PIXEL,
    STRANGER,
    Sender,
    claims,
    client,
    error_of,
    form,
    signed,
)

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])

TTL = "message.android.ttl"
OFF, ON = Condition(is_on=False), Condition(is_on=True)


class TestGrants:
    async def test_a_signed_jwt_is_exchanged_for_an_access_token(self, sender: Sender) -> None:
        response = await sender.log_in()
        assert (response.status_code, response.json()["token_type"], response.json()["expires_in"]) == (
            200,
            "Bearer",
            3599,
        )
        assert (await sender.send()).status_code == 200

    @pytest.mark.parametrize(
        ("changes", "error"),
        [
            ({"iss": "nobody@chat-push.iam.gserviceaccount.com"}, "invalid_grant"),
            ({"aud": "https://example.com"}, "invalid_grant"),
            ({"scope": ""}, "invalid_scope"),
            ({"exp": 2**33}, "invalid_grant"),
            ({"iat": 0, "exp": 3600}, "invalid_grant"),
            ({"iat": None}, "invalid_grant"),
        ],
        ids=lambda value: "-".join(value) if isinstance(value, dict) else str(value),
    )
    async def test_a_wrong_claim_gets_no_access_token(
        self, sender: Sender, changes: dict[str, Any], error: str
    ) -> None:
        response = await sender.log_in(**changes)
        assert (response.status_code, response.json()["error"]) == (400, error)

    @pytest.mark.parametrize("seconds", [-4000, 4000])
    async def test_a_clock_that_is_an_hour_off_gets_no_token(self, sender: Sender, seconds: int) -> None:
        sender.fcm.pass_time(seconds)
        assert "Check your iat and exp" in (await sender.log_in()).json()["error_description"]

    async def test_a_jwt_of_another_key_or_algorithm_gets_no_access_token(self, sender: Sender) -> None:
        account = sender.fcm.service_account()
        for key, algorithm in (
            (rsa.generate_private_key(public_exponent=65537, key_size=2048), "RS256"),
            (ec.generate_private_key(ec.SECP256R1()), "ES256"),
        ):
            assertion = jwt.encode(claims(account), key, algorithm, headers={"kid": account["private_key_id"]})
            response = await sender.http.post("/token", data=form(assertion))
            assert response.json() == {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}

    async def test_a_deleted_key_gets_no_access_token(self, sender: Sender) -> None:
        account = sender.fcm.service_account()
        sender.fcm.accounts.delete_key(account["private_key_id"])
        assert (await sender.log_in(account)).json()["error"] == "invalid_grant"

    async def test_an_unknown_key_id_gets_no_access_token(self, sender: Sender) -> None:
        account = sender.fcm.service_account() | {"private_key_id": "other"}
        assert (await sender.log_in(account)).json()["error"] == "invalid_grant"

    async def test_another_grant_type_is_rejected(self, sender: Sender) -> None:
        data = form(signed(sender.fcm.service_account()), grant_type="password")
        assert (await sender.http.post("/token", data=data)).json()["error"] == "unsupported_grant_type"

    async def test_the_audience_is_a_constant_wherever_the_endpoint_is(self, sender: Sender) -> None:
        assert AUDIENCE not in sender.fcm.token_url
        assert (await sender.log_in(aud=sender.fcm.token_url)).status_code == 400


class TestAccess:
    async def test_an_access_token_expires(self, sender: Sender) -> None:
        sender.fcm.pass_time(3600)
        assert error_of(await sender.send()) == (401, "UNAUTHENTICATED", None, None)

    async def test_a_revoked_access_token_is_rejected(self, sender: Sender) -> None:
        sender.fcm.accounts.revoke_tokens()
        assert error_of(await sender.send()) == (401, "UNAUTHENTICATED", None, None)

    async def test_a_send_without_an_access_token_is_rejected(self, sender: Sender) -> None:
        response = await sender.http.post("/v1/projects/chat-push/messages:send", json={"message": {"token": PIXEL}})
        assert response.status_code == 401

    async def test_an_account_without_the_role_is_denied_and_its_error_has_no_fcm_error(self, sender: Sender) -> None:
        await sender.log_in(sender.fcm.service_account(may_send=False))
        assert error_of(await sender.send()) == (403, "PERMISSION_DENIED", None, None)

    async def test_an_account_of_another_project_is_denied(self, sender: Sender) -> None:
        await sender.log_in(sender.fcm.service_account("other-app"))
        assert error_of(await sender.send()) == (403, "PERMISSION_DENIED", None, None)

    async def test_an_access_token_for_another_api_is_denied(self, sender: Sender) -> None:
        await sender.log_in(scope="https://www.googleapis.com/auth/drive")
        assert error_of(await sender.send()) == (403, "PERMISSION_DENIED", None, None)

    async def test_a_wrong_path_is_not_found_as_html(self, sender: Sender) -> None:
        response = await sender.http.post("/fcm/send", json={})
        assert (response.status_code, response.headers["content-type"]) == (404, "text/html; charset=UTF-8")


class TestMessages:
    @pytest.mark.parametrize(
        ("fields", "code", "field"),
        [
            ({"sound": "default"}, None, "message"),
            ({"android": {"badge": 1}}, None, "message.android"),
            ({"notification": {"title": 1}}, None, "message.notification.title"),
            ({"data": {"badge": 1}}, None, "message.data.badge"),
            ({"data": {"ids": ["a"]}}, None, "message.data.ids"),
            ({"data": {"from": "a"}}, "INVALID_ARGUMENT", "message.data"),
            ({"data": {"google.a": "a"}}, "INVALID_ARGUMENT", "message.data"),
            ({"android": {"data": {"message_type": "a"}}}, "INVALID_ARGUMENT", "message.android.data"),
            ({"android": {"ttl": "60"}}, None, TTL),
            ({"android": {"ttl": 60}}, None, TTL),
            ({"android": {"ttl": "2419201s"}}, "INVALID_ARGUMENT", TTL),
            ({"android": {"ttl": "-1s"}}, "INVALID_ARGUMENT", TTL),
            ({"android": {"priority": "urgent"}}, None, "message.android.priority"),
            ({"webpush": {"headers": {"TTL": "1h"}}}, "INVALID_ARGUMENT", "message.webpush.headers"),
            ({"webpush": {"headers": {"Urgency": "urgent"}}}, "INVALID_ARGUMENT", "message.webpush.headers"),
            ({"topic": "news"}, None, "message"),
            ({"token": ""}, "INVALID_ARGUMENT", "message"),
        ],
        ids=str,
    )
    async def test_a_wrong_field_is_named_and_nothing_arrives(
        self, sender: Sender, fields: dict[str, JsonValue], code: str | None, field: str
    ) -> None:
        response = await sender.post({"message": {"token": PIXEL, **fields}})
        assert error_of(response) == (400, "INVALID_ARGUMENT", code, field)
        assert sender.fcm.phones[PIXEL].arrived == []

    @pytest.mark.parametrize(
        "android",
        [
            {"collapse_key": "r1", "ttl": "60s", "notification": {"channel_id": "chat-messages"}},
            {"collapseKey": "r1", "ttl": "60s", "notification": {"channelId": "chat-messages"}},
        ],
    )
    async def test_names_are_accepted_in_snake_case_and_in_camel_case(
        self, sender: Sender, android: dict[str, JsonValue]
    ) -> None:
        assert (await sender.send(android=android)).status_code == 200
        [shown] = sender.fcm.phones[PIXEL].shown
        assert (shown.message["collapseId"], shown.message["channelId"]) == ("r1", "chat-messages")

    async def test_null_means_that_a_field_is_not_set(self, sender: Sender) -> None:
        assert (await sender.send(android=None, data=None)).status_code == 200

    async def test_a_payload_of_more_than_4096_bytes_is_rejected_without_details(self, sender: Sender) -> None:
        payload: dict[str, JsonValue] = {"data": {"text": ""}}
        room = 4096 - len(json.dumps(payload, separators=(",", ":")))
        for text, status in (("ü" * (room // 2), 200), ("ü" * (room // 2 + 1), 400)):
            response = await sender.post({"message": {"token": PIXEL, "data": {"text": text}}})
            assert response.status_code == status
        assert error_of(response) == (400, "INVALID_ARGUMENT", None, None)

    @pytest.mark.parametrize("body", [[], {}, {"message": []}, {"message": {"token": PIXEL}, "dry_run": True}], ids=str)
    async def test_a_body_without_a_message_is_rejected(self, sender: Sender, body: object) -> None:
        assert (await sender.post(body)).status_code == 400

    async def test_a_body_that_is_not_json_is_rejected(self, sender: Sender) -> None:
        headers = {"Authorization": f"Bearer {sender.access_token}"}
        response = await sender.http.post("/v1/projects/chat-push/messages:send", content=b"{", headers=headers)
        assert response.status_code == 400

    async def test_a_data_only_message_to_ios_needs_apns_priority_5(self, sender: Sender) -> None:
        for apns, status in (
            (None, 400),
            ({"headers": {"apns-priority": "10"}}, 400),
            ({"headers": {"apns-priority": "5"}}, 200),
        ):
            body = {"message": {"token": IPHONE, "data": {"a": "b"}, "apns": apns}}
            assert (await sender.post(body)).status_code == status
        assert len(sender.fcm.phones[IPHONE].arrived) == 1

    async def test_validate_only_checks_message_and_token_and_delivers_nothing(self, sender: Sender) -> None:
        for token, status in ((PIXEL, 200), (STRANGER, 404), ("malformed", 400)):
            body = {"validate_only": True, "message": {"token": token, "notification": {"title": "Ana"}}}
            assert (await sender.post(body)).status_code == status
        assert sender.fcm.phones[PIXEL].arrived == []

    async def test_a_topic_reaches_no_phone(self, sender: Sender) -> None:
        assert (await sender.post({"message": {"topic": "news", "data": {"a": "b"}}})).status_code == 200
        assert sender.fcm.phones[PIXEL].arrived == []


class TestTokens:
    async def test_a_malformed_token_is_an_invalid_argument(self, sender: Sender) -> None:
        for token in ("x", "a" * 64, "ExponentPushToken[abc]"):
            response = await sender.send(token)
            assert error_of(response) == (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", None)
            assert "not a valid FCM registration token" in response.json()["error"]["message"]

    async def test_a_token_that_was_never_issued_or_whose_app_is_removed_is_unregistered(self, sender: Sender) -> None:
        sender.fcm.uninstall(PIXEL)
        for token in (PIXEL, STRANGER):
            assert error_of(await sender.send(token)) == (404, "NOT_FOUND", "UNREGISTERED", None)

    async def test_a_token_of_another_project_is_a_sender_id_mismatch(self, sender: Sender) -> None:
        assert error_of(await sender.send(FOREIGN)) == (403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH", None)

    @pytest.mark.parametrize("wrong", [{"token": "ExponentPushToken[abc]"}, {"platform": "tv"}, {"project": "@a/b"}])
    def test_a_phone_is_installed_only_with_a_token_a_platform_and_a_project_of_fcm(
        self, wrong: dict[str, Any]
    ) -> None:
        fcm = FcmService(lambda: datetime.now(UTC))
        with pytest.raises(ValidationError):
            fcm.install(**{"token": PIXEL, "platform": "android", **wrong})


class TestQuotas:
    async def test_a_project_sends_only_so_many_messages_a_minute(self, sender: Sender) -> None:
        sender.fcm.configure({"messages_per_minute": 2})
        statuses = [(await sender.send(token)).status_code for token in (PIXEL, STRANGER, BROWSER)]
        assert statuses == [200, 404, 429]  # client errors count
        sender.fcm.pass_time(60)
        assert (await sender.send()).status_code == 200

    async def test_an_android_device_gets_only_so_many_messages_a_minute(self, sender: Sender) -> None:
        sender.fcm.configure({"device_messages_per_minute": 1})
        responses = [await sender.send(), await sender.send(), await sender.send(BROWSER)]
        assert [response.status_code for response in responses] == [200, 429, 200]
        assert error_of(responses[1]) == (429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", None)


class TestPhones:
    async def test_a_notification_with_the_same_tag_replaces_the_shown_one(self, sender: Sender) -> None:
        for text in ("a", "b"):
            await sender.send(android={"notification": {"tag": "r1", "body": text}})
        assert [shown.message["body"] for shown in sender.fcm.phones[PIXEL].shown] == ["b"]

    async def test_fields_of_android_override_those_of_the_message(self, sender: Sender) -> None:
        await sender.send(data={"a": "1"}, android={"data": {"b": "2"}, "notification": {"title": "Bea"}})
        [shown] = sender.fcm.phones[PIXEL].shown
        assert (shown.message["title"], shown.message["body"], shown.message["data"]) == ("Bea", "Hi", {"b": "2"})

    async def test_a_message_without_a_known_channel_is_shown_in_the_default_channel(self, sender: Sender) -> None:
        await sender.send(android={"notification": {"channel_id": "no-such-channel"}})
        [shown] = sender.fcm.phones[PIXEL].shown
        assert "channelId" not in shown.message
        assert shown.sounded

    async def test_the_quiet_channel_makes_no_sound(self, sender: Sender) -> None:
        await sender.send(android={"notification": {"channel_id": "chat-messages-quiet"}})
        assert sender.fcm.phones[PIXEL].sounds == []

    async def test_a_data_only_message_starts_the_background_task_with_the_json_of_its_body(
        self, sender: Sender
    ) -> None:
        data = {"messageId": "m1", "conversationId": "r1"}
        await sender.send(data={"message": "Hi", "body": json.dumps(data)})
        dismissal = {"type": "chat_message", "kind": "dismiss", "badge": 2, "conversationIds": ["r1"]}
        phone = sender.fcm.phones[PIXEL]
        assert [shown.conversation_id for shown in phone.shown] == ["r1"]
        await sender.post({"message": {"token": PIXEL, "data": {"body": json.dumps(dismissal)}}})
        assert (phone.shown, phone.badge, len(phone.background_runs)) == ([], 2, 1)

    async def test_the_library_shows_a_data_only_message_that_has_a_title_or_a_message(self, sender: Sender) -> None:
        await sender.post({"message": {"token": PIXEL, "data": {"title": "Ana", "message": "Hi"}}})
        [shown] = sender.fcm.phones[PIXEL].shown
        assert (shown.message["title"], shown.message["body"]) == ("Ana", "Hi")

    async def test_the_app_gets_strings_unless_data_has_the_text_and_the_json_as_expo_sends_them(
        self, sender: Sender
    ) -> None:
        await sender.send(data={"body": '{"conversationId":"r1"}'})
        await sender.send(data={"body": '{"conversationId":"r1"}', "message": "Hi"})
        first, second = sender.fcm.phones[PIXEL].arrived
        assert (first.conversation_id, second.conversation_id) == (None, "r1")

    async def test_a_phone_that_is_off_gets_the_newest_message_of_four_collapse_keys(self, sender: Sender) -> None:
        sender.fcm.change_phone(PIXEL, OFF)
        for key in "aabcde":
            await sender.send(android={"collapse_key": key, "notification": {"tag": key}})
        sender.fcm.change_phone(PIXEL, ON)
        assert [arrival.message["tag"] for arrival in sender.fcm.phones[PIXEL].arrived] == list("bcde")

    @pytest.mark.parametrize("token", [PIXEL, BROWSER])
    async def test_a_message_for_a_phone_that_is_off_expires_by_its_ttl(self, sender: Sender, token: str) -> None:
        sender.fcm.change_phone(token, OFF)
        for ttl in (0, 60, 120):
            android: dict[str, JsonValue] = {"ttl": f"{ttl}s"}
            await sender.send(token, android=android, webpush={"headers": {"TTL": str(ttl)}})
        sender.fcm.pass_time(60)
        sender.fcm.change_phone(token, ON)
        assert [arrival.message["ttl"] for arrival in sender.fcm.phones[token].arrived] == [120]

    async def test_a_message_without_ttl_lives_four_weeks(self, sender: Sender) -> None:
        sender.fcm.change_phone(PIXEL, OFF)
        await sender.send()
        [held] = sender.fcm.phones[PIXEL].held
        assert timedelta(weeks=4, seconds=-5) < held.expires_at - sender.fcm.now() <= timedelta(weeks=4)

    async def test_an_iphone_shows_a_message_with_the_fields_of_apns(self, sender: Sender) -> None:
        aps: dict[str, JsonValue] = {"alert": {"title": "Bea"}, "badge": 2, "sound": "default"}
        await sender.send(IPHONE, apns={"headers": {"apns-collapse-id": "r1"}, "payload": {"aps": aps}})
        phone = sender.fcm.phones[IPHONE]
        [shown] = phone.shown
        assert (shown.message["title"], shown.message["body"], shown.message["collapseId"]) == ("Bea", "Hi", "r1")
        assert (phone.badge, len(phone.sounds)) == (2, 1)


class TestBrowsers:
    async def test_a_browser_sounds_again_for_the_same_tag_only_with_renotify(self, sender: Sender) -> None:
        for renotify in (False, False, True):
            await sender.send(BROWSER, webpush={"notification": {"tag": "r1", "renotify": renotify}})
        browser = sender.fcm.phones[BROWSER]
        assert ([arrival.sounded for arrival in browser.arrived], len(browser.shown)) == ([True, False, True], 1)

    async def test_a_silent_message_makes_no_sound(self, sender: Sender) -> None:
        await sender.send(BROWSER, webpush={"notification": {"silent": True}})
        assert sender.fcm.phones[BROWSER].sounds == []

    async def test_a_closed_browser_gets_its_messages_when_it_is_opened(self, sender: Sender) -> None:
        sender.fcm.change_phone(BROWSER, Condition(app="killed"))
        await sender.send(BROWSER)
        assert sender.fcm.phones[BROWSER].arrived == []
        sender.fcm.change_phone(BROWSER, Condition(app="background"))
        assert len(sender.fcm.phones[BROWSER].shown) == 1

    async def test_a_data_only_message_starts_the_service_worker(self, sender: Sender) -> None:
        await sender.post({"message": {"token": BROWSER, "webpush": {"data": {"a": "b"}}}})
        assert (sender.fcm.phones[BROWSER].shown, len(sender.fcm.phones[BROWSER].background_runs)) == ([], 1)


@pytest.mark.parametrize("http2", [True, False])
async def test_both_versions_of_http_are_served_with_and_without_tls(
    fcm: FcmService, secure_fcm: FcmService, http2: bool
) -> None:
    for service in (fcm, secure_fcm):
        async with client(service, http2=http2) as http:
            sender = Sender(http, service)
            await sender.log_in()
            assert (await sender.send()).http_version == ("HTTP/2" if http2 else "HTTP/1.1")
        assert {request.connection for request in service.requests} == {1}
        assert service.requests[-1].headers["authorization"] == "(left out)"
