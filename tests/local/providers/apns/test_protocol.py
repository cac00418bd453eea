"""Which requests APNs accepts, and what it answers to the others."""

import json
import ssl
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import httpx
import pytest
from h2.errors import ErrorCodes

from local.providers.apns.state import ApnsService
from tests.local.providers.apns.sending import (
    ALERT,
    BACKGROUND,
    DEBUG_IPHONE,
    IPHONE,
    OTHER_IPHONE,
    SILENT,
    STRANGER,
    Clock,
    Connection,
    Request,
    connected,
    provider_token,
)

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])

ID = "019b9339-aa4e-4000-8000-00000000abcd"


def padded(size: int) -> bytes:
    """An alert whose body has this many bytes, half as many letters as bytes."""
    overhead = len('{"aps":{"alert":"x"}}')
    text = "x" * (1 + (size - overhead) % 2) + "é" * ((size - overhead) // 2)
    return json.dumps({"aps": {"alert": text}}, ensure_ascii=False, separators=(",", ":")).encode()


async def test_an_accepted_notification_is_answered_with_200_without_a_body_and_its_id(
    apns: ApnsService, connection: Connection
) -> None:
    answer = await connection.send(apns_id=ID)
    assert (answer.status, answer.body, answer.data_frames) == (200, b"", 0)
    assert answer.headers["apns-id"] == ID
    assert [arrival.message_id for arrival in apns.phones[IPHONE].shown] == ["m1"]
    assert apns.phones[IPHONE].arrived[0].ticket_id == ID


async def test_apns_gives_an_id_to_a_notification_without_one(connection: Connection) -> None:
    assert UUID((await connection.send()).headers["apns-id"])


async def test_only_the_sandbox_answers_with_a_unique_id(apns: ApnsService, connection: Connection) -> None:
    assert "apns-unique-id" not in (await connection.send()).headers
    async with connected(apns, sandbox=True) as sandbox:
        assert UUID((await sandbox.send(DEBUG_IPHONE)).headers["apns-unique-id"])


# Headers, payload (None: the usual alert), and the reason; None: accepted.
REQUESTS: dict[str, tuple[Mapping[str, str | None], Any, str | None]] = {
    "priority 5": ({"apns-priority": "5"}, None, None),
    "priority 1": ({"apns-priority": "1"}, None, None),
    "priority 7": ({"apns-priority": "7"}, None, "BadPriority"),
    "priority in words": ({"apns-priority": "high"}, None, "BadPriority"),
    "background with priority 5": (BACKGROUND, SILENT, None),
    "background with priority 10": (BACKGROUND | {"apns-priority": "10"}, SILENT, "BadPriority"),
    "background without a priority, which is 10": ({"apns-push-type": "background"}, SILENT, "BadPriority"),
    "background with an alert": (BACKGROUND, ALERT, "InvalidPushType"),
    "background with a badge": (BACKGROUND, {"aps": {"content-available": 1, "badge": 1}}, "InvalidPushType"),
    "background without content-available": (BACKGROUND, {"aps": {}}, "InvalidPushType"),
    "alert without anything for the user": ({}, SILENT, "InvalidPushType"),
    "alert with only a badge": ({}, {"aps": {"badge": 0}}, None),
    "no push type": ({"apns-push-type": None}, None, "InvalidPushType"),
    "unknown push type": ({"apns-push-type": "loud"}, None, "InvalidPushType"),
    "no expiration in the past": ({"apns-expiration": "0"}, None, None),
    "expiration": ({"apns-expiration": "1767700000"}, None, None),
    "expiration with a fraction": ({"apns-expiration": "1767700000.5"}, None, "BadExpirationDate"),
    "negative expiration": ({"apns-expiration": "-1"}, None, "BadExpirationDate"),
    "collapse id of 64 bytes": ({"apns-collapse-id": "x" * 64}, None, None),
    "collapse id of 65 bytes": ({"apns-collapse-id": "x" * 65}, None, "BadCollapseId"),
    "collapse id of 33 letters with 66 bytes": ({"apns-collapse-id": "é" * 33}, None, "BadCollapseId"),
    "upper-case id": ({"apns-id": ID.upper()}, None, "BadMessageId"),
    "id without hyphens": ({"apns-id": ID.replace("-", "")}, None, "BadMessageId"),
    "no topic": ({"apns-topic": None}, None, "MissingTopic"),
    "topic with a space": ({"apns-topic": "com.example chat"}, None, "BadTopic"),
    "topic of another team": ({"apns-topic": "com.other.app"}, None, "TopicDisallowed"),
    "4096 bytes": ({}, padded(4096), None),
    "4097 bytes": ({}, padded(4097), "PayloadTooLarge"),
    "no payload": ({}, b"", "PayloadEmpty"),
    "no aps": ({}, {"body": {}}, "PayloadEmpty"),
    "no JSON": ({}, b"hello", "PayloadEmpty"),
    "GET": ({":method": "GET"}, None, "MethodNotAllowed"),
    "another path": ({":path": f"/2/device/{IPHONE}"}, None, "BadPath"),
    "no device token": ({":path": "/3/device/"}, None, "MissingDeviceToken"),
    "host in place of authority": ({":authority": None, "host": "127.0.0.1"}, None, None),
}


@pytest.mark.parametrize(("headers", "payload", "reason"), REQUESTS.values(), ids=REQUESTS)
async def test_a_request_is_accepted_or_rejected_by_its_headers_and_its_payload(
    apns: ApnsService,
    connection: Connection,
    headers: Mapping[str, str | None],
    payload: Any,
    reason: str | None,
) -> None:
    [answer] = await connection.send_all(Request(IPHONE, ALERT if payload is None else payload, headers))
    assert answer.reason == reason
    assert (answer.status == 200) == (reason is None)
    assert len(apns.phones[IPHONE].arrived) == (reason is None)


async def test_an_error_is_one_data_frame_and_keeps_the_id(connection: Connection) -> None:
    answer = await connection.send(apns_id=ID, apns_priority="7")
    assert (answer.status, answer.json, answer.data_frames) == (400, {"reason": "BadPriority"}, 1)
    assert answer.headers["apns-id"] == ID


async def test_a_repeated_header_is_rejected(connection: Connection) -> None:
    [answer] = await connection.send_all(Request(more=(("apns-topic", "com.example.chat"),)))
    assert answer.reason == "DuplicateHeaders"


@pytest.mark.parametrize("token", [STRANGER, "a1" * 8, "ExponentPushToken[x]", DEBUG_IPHONE])
async def test_an_unknown_token_and_one_of_the_other_environment_are_bad_device_tokens(
    connection: Connection, token: str
) -> None:
    answer = await connection.send(token)
    assert (answer.status, answer.reason) == (400, "BadDeviceToken")


async def test_a_production_token_is_a_bad_device_token_in_the_sandbox(apns: ApnsService) -> None:
    async with connected(apns, sandbox=True) as sandbox:
        assert (await sandbox.send(IPHONE)).reason == "BadDeviceToken"
        assert (await sandbox.send(DEBUG_IPHONE)).status == 200


@pytest.mark.parametrize(
    ("host", "token"),
    [
        ("api.push.apple.com", IPHONE),
        ("api.sandbox.push.apple.com", DEBUG_IPHONE),
        ("api.development.push.apple.com:443", DEBUG_IPHONE),
    ],
)
@pytest.mark.parametrize("sandbox_port", [False, True])
async def test_the_name_of_a_host_of_apple_decides_about_the_environment(
    apns: ApnsService, host: str, token: str, sandbox_port: bool
) -> None:
    """Not the port of the fake."""
    async with connected(apns, sandbox_port, host) as connection:
        assert (await connection.send(token)).status == 200


async def test_a_token_in_upper_case_reaches_its_phone(apns: ApnsService, connection: Connection) -> None:
    assert (await connection.send(IPHONE.upper())).status == 200
    assert len(apns.phones[IPHONE].shown) == 1


async def test_the_token_of_another_app_is_not_for_the_topic(apns: ApnsService, connection: Connection) -> None:
    apns.settings.topics |= {"com.example.other"}
    answer = await connection.send(apns_topic="com.example.other")
    assert (answer.status, answer.reason) == (400, "DeviceTokenNotForTopic")


@pytest.mark.parametrize("reason", ["Unregistered", "ExpiredToken"])
async def test_an_uninstalled_app_is_answered_with_410_and_the_time_in_milliseconds(
    apns: ApnsService, connection: Connection, clock: Clock, reason: Any
) -> None:
    apns.uninstall(IPHONE, reason)
    removed = clock.now
    clock.advance(minutes=30)
    answer = await connection.send()
    assert answer.status == 410
    assert answer.json == {"reason": reason, "timestamp": int(removed.timestamp() * 1000)}
    assert (await connection.send(OTHER_IPHONE)).status == 200


async def test_a_removed_app_that_apns_has_not_noticed_receives_nothing(
    apns: ApnsService, connection: Connection
) -> None:
    apns.uninstall(IPHONE, None)
    assert (await connection.send()).status == 200
    assert apns.phones[IPHONE].arrived == []


async def test_an_app_that_is_installed_again_receives_notifications(apns: ApnsService, connection: Connection) -> None:
    apns.uninstall(IPHONE)
    apns.install(IPHONE)
    assert (await connection.send()).status == 200


async def test_too_many_requests_for_one_device_do_not_affect_another_device(
    apns: ApnsService, connection: Connection, clock: Clock
) -> None:
    apns.settings.device_limit_per_minute = 2
    assert [(await connection.send()).status for _ in range(3)] == [200, 200, 429]
    assert (await connection.send()).reason == "TooManyRequests"
    assert (await connection.send(OTHER_IPHONE)).status == 200
    clock.advance(seconds=60)
    assert (await connection.send()).status == 200


@pytest.mark.parametrize("token", ["A1" * 32, "a1" * 31, "xy" * 32, "a1" * 32 + "\n"])
def test_a_phone_needs_a_hexadecimal_device_token(token: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        ApnsService(Clock()).install(token)


class TestStreams:
    async def test_one_stream_is_allowed_until_the_first_valid_provider_token(
        self, apns: ApnsService, connection: Connection
    ) -> None:
        apns.settings.latency_seconds = 60
        _, *others = [connection.open(Request()) for _ in range(3)]
        assert [(await connection.answer(other)).reset for other in others] == [ErrorCodes.REFUSED_STREAM] * 2
        assert connection.stream_limits == [1]

    async def test_a_thousand_streams_are_allowed_after_the_first_valid_provider_token(
        self, apns: ApnsService, connection: Connection
    ) -> None:
        await connection.send()
        assert connection.stream_limits == [1, 1000]
        answers = await connection.send_all(*[Request()] * 500)
        assert {answer.status for answer in answers} == {200}
        assert len(apns.phones[IPHONE].arrived) == 501

    async def test_a_rejected_provider_token_allows_no_further_streams(
        self, apns: ApnsService, connection: Connection
    ) -> None:
        valid, connection.provider_token = connection.provider_token, "stranger"
        assert (await connection.send()).status == 403
        assert connection.stream_limits == [1]
        connection.provider_token = valid
        assert (await connection.send(STRANGER)).status == 400  # the token of the provider is valid
        assert connection.stream_limits == [1, 1000]

    async def test_more_streams_than_allowed_end_the_connection(
        self, apns: ApnsService, connection: Connection
    ) -> None:
        apns.settings.latency_seconds = 60
        await connection.until_limited()
        connection.open(Request())
        connection.open(Request())
        await connection.until_go_away()
        await connection.until_closed()
        assert apns.phones[IPHONE].arrived == []

    async def test_a_body_waits_until_the_flow_control_of_the_sender_allows_it(self, connection: Connection) -> None:
        connection.set_window(10)
        stream = connection.open(Request(STRANGER))
        assert (await connection.until_headers(stream)).body == b""
        assert (await connection.send()).status == 200  # other streams go on
        connection.set_window(1000)
        answer = await connection.answer(stream)
        assert (answer.reason, answer.data_frames) == ("BadDeviceToken", 1)

    async def test_a_stream_that_the_sender_cancels_is_not_delivered_and_makes_room(
        self, apns: ApnsService, connection: Connection
    ) -> None:
        apns.settings.latency_seconds = 60
        stream = connection.open(Request())
        await apns.until(lambda: apns.requests)
        connection.cancel(stream)
        apns.settings.latency_seconds = 0
        assert (await connection.send()).status == 200
        assert len(apns.phones[IPHONE].arrived) == 1

    async def test_what_is_not_http2_ends_the_connection(self, apns: ApnsService) -> None:
        async with httpx.AsyncClient(verify=_trusting(apns), http2=False) as http:
            with pytest.raises(httpx.RemoteProtocolError):
                await http.get(apns.url)

    async def test_httpx_speaks_http2_with_apns(self, apns: ApnsService) -> None:
        headers = {
            "authorization": f"bearer {provider_token(apns.key, apns.now())}",
            "apns-topic": "com.example.chat",
            "apns-push-type": "alert",
        }
        async with httpx.AsyncClient(verify=_trusting(apns), http2=True, http1=False) as http:
            answer = await http.post(f"{apns.url}/3/device/{IPHONE}", json=ALERT, headers=headers)
        assert (answer.status_code, answer.http_version) == (200, "HTTP/2")


class TestRequestLog:
    async def test_the_fake_apns_logs_requests_without_the_provider_token(
        self, apns: ApnsService, connection: Connection, clock: Clock
    ) -> None:
        await connection.send(apns_collapse_id="room")
        await connection.send(STRANGER)
        async with connected(apns, sandbox=True) as sandbox:
            await sandbox.send(DEBUG_IPHONE)
        assert [
            (each.connection, each.environment, each.token, each.status, each.reason, each.payload)
            for each in apns.requests
        ] == [
            (1, "production", IPHONE, 200, None, ALERT),
            (1, "production", STRANGER, 400, "BadDeviceToken", ALERT),
            (2, "sandbox", DEBUG_IPHONE, 200, None, ALERT),
        ]
        assert {each.at for each in apns.requests} == {clock.now}
        assert {each.headers["authorization"] for each in apns.requests} == {"(left out)"}
        assert apns.requests[0].headers["apns-collapse-id"] == "room"

    async def test_equal_provider_tokens_have_equal_digests(self, apns: ApnsService, connection: Connection) -> None:
        await connection.send()
        await connection.send()
        async with connected(apns) as other:
            await other.send()  # ES256 signs differently each time
        first, second, third = [each.provider_token for each in apns.requests]
        assert first == second
        assert first != third

    async def test_reset_forgets_all_but_the_key(self, apns: ApnsService, connection: Connection) -> None:
        other = apns.add_key()
        await connection.send()
        apns.reset()
        assert (apns.requests, apns.phones, set(apns.keys)) == ([], {}, {apns.key.id})
        assert other.id != apns.key.id
        apns.install(IPHONE)
        assert (await connection.send()).status == 200


def _trusting(apns: ApnsService) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=apns.authority)
