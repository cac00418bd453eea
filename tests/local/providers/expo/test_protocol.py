"""The fake Expo service follows https://docs.expo.dev/push-notifications/sending-notifications/."""

import asyncio
import gzip
import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import aiohttp
import exponent_server_sdk
import httpx
import pytest
from pydantic import JsonValue, ValidationError

from local.providers.expo.faults import (
    Hang,
    HttpError,
)
from local.providers.expo.protocol import uuid7
from local.providers.expo.service import expo_service
from local.providers.expo.state import ExpoService
from tests.local.providers.expo.sending import FOREIGN, IPHONE, PIXEL, STRANGER, Clock, Sender, code, message

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])


class TestRequests:
    async def test_tickets_come_in_recipient_order(self, expo: ExpoService, sender: Sender) -> None:
        """Message order, a list `to` expanded in place."""
        tickets = await sender.tickets(message([PIXEL, "ExponentPushToken[xd]", IPHONE]), message(STRANGER))
        assert [ticket["status"] for ticket in tickets] == ["ok", "error", "ok", "error"]
        assert tickets[0]["id"] == expo.phones[PIXEL].arrived[0].ticket_id
        assert tickets[2]["id"] == expo.phones[IPHONE].arrived[0].ticket_id

    @pytest.mark.parametrize(
        ("wrap", "to", "answer"),
        [(False, IPHONE, dict), (False, [IPHONE, PIXEL], list), (True, IPHONE, list), (True, [IPHONE], list)],
    )
    async def test_only_a_bare_message_to_one_recipient_gets_a_bare_ticket(
        self, sender: Sender, wrap: bool, to: str | list[str], answer: type
    ) -> None:
        status, body = await sender.send([message(to)] if wrap else message(to))
        assert status == 200
        assert isinstance(body["data"], answer)

    async def test_gzip_bodies_are_read_on_both_endpoints(self, expo: ExpoService, http: aiohttp.ClientSession) -> None:
        headers = {"content-encoding": "gzip", "content-type": "application/json"}
        for path, body in (("send", [message()]), ("getReceipts", {"ids": ["unknown"]})):
            compressed = gzip.compress(json.dumps(body).encode())
            async with http.post(f"/--/api/v2/push/{path}", data=compressed, headers=headers) as response:
                assert response.status == 200
        assert [arrival.message_id for arrival in expo.phones[IPHONE].arrived] == ["m1"]

    async def test_ticket_ids_are_uuid7_of_the_send_time(self, sender: Sender, clock: Clock) -> None:
        """The first 48 bits equal the send time."""
        [ticket] = await sender.tickets(message())
        milliseconds = int(ticket["id"].replace("-", "")[:12], 16)
        assert datetime.fromtimestamp(milliseconds / 1000, UTC) == clock.now

    async def test_a_request_to_expo_has_at_most_a_hundred_recipients(self, expo: ExpoService, sender: Sender) -> None:
        """Recipients across the whole body."""
        assert (await sender.send([message([IPHONE] * 60), message([PIXEL] * 40)]))[0] == 200
        status, body = await sender.send([message([IPHONE] * 60), message([PIXEL] * 41)])
        assert (status, code(body)) == (400, "PUSH_TOO_MANY_NOTIFICATIONS")
        assert body["errors"][0]["message"] == (
            "You can send a maximum of 100 notifications per request (received 101); divide your requests."
        )
        assert len(expo.phones[IPHONE].arrived) == 60

    async def test_a_list_of_101_is_rejected_with_the_recorded_text(self, sender: Sender) -> None:
        status, body = await sender.send([message([IPHONE] * 101)])
        [error] = body["errors"]
        assert status == 400
        assert isinstance(error.pop("requestId"), str)
        assert error == {
            "code": "VALIDATION_ERROR",
            "type": "USER",
            "message": '"0.to": String must contain at most 100 character(s).',
            "isTransient": False,
        }

    async def test_mixed_projects_are_rejected_with_the_tokens_of_each(self, expo: ExpoService, sender: Sender) -> None:
        """Unknown tokens belong to no project."""
        status, body = await sender.send([message([IPHONE, FOREIGN, STRANGER]), message(PIXEL)])
        assert (status, code(body)) == (400, "PUSH_TOO_MANY_EXPERIENCE_IDS")
        assert body["errors"][0]["details"] == {"@chat-push/app": [IPHONE, PIXEL], "@other/app": [FOREIGN]}
        assert not any(phone.arrived for phone in expo.phones.values())

    async def test_a_duplicate_token_is_delivered_twice(self, expo: ExpoService, sender: Sender) -> None:
        assert len(await sender.tickets(message([IPHONE, IPHONE]))) == 2
        assert len(expo.phones[IPHONE].arrived) == 2


ALL_FIELDS: dict[str, JsonValue] = {
    "title": "Ana",
    "body": "Hello",
    "data": {"nested": {"any": ["json", 1, None]}},
    "ttl": 86400,
    "expiration": 1_800_000_000,
    "priority": "high",
    "subtitle": "Lisbon walk",
    "sound": "default",
    "badge": 0,
    "interruptionLevel": "time-sensitive",
    "channelId": "chat-messages",
    "icon": "ic_chat",
    "richContent": {"image": "https://example.com/a.jpg"},
    "categoryId": "chat",
    "collapseId": "m1",
    "tag": "m1",
    "threadId": "c1",
    "targetContentId": "c1",
    "relevanceScore": 0.5,
    "filterCriteria": "work",
    "mutableContent": True,
    "contentAvailable": True,
    "_contentAvailable": True,
    "_displayInForeground": True,
}


class TestFields:
    async def test_every_documented_field_arrives_as_sent(self, expo: ExpoService, sender: Sender) -> None:
        await sender.tickets({"to": IPHONE, **ALL_FIELDS})
        assert expo.phones[IPHONE].arrived[0].message == ALL_FIELDS

    @pytest.mark.parametrize(
        "fields",
        [
            {"sound": None},
            {"channelId": None},
            {"sound": {"critical": True, "name": "chime.wav", "volume": 0.5}},
            {"collapseId": "é" * 32},
        ],
    )
    async def test_the_other_documented_forms_of_a_field_arrive_as_sent(
        self, expo: ExpoService, sender: Sender, fields: dict[str, JsonValue]
    ) -> None:
        await sender.tickets(message() | fields)
        assert fields.items() <= expo.phones[IPHONE].arrived[0].message.items()

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("chanelId", "chat-messages"),
            ("collapse_id", "m1"),
            ("collapseId", "é" * 33),
            ("tag", 1),
            ("threadId", None),
            ("contentAvailable", 1),
            ("_contentAvailable", "true"),
            ("title", None),
            ("body", 1),
            ("data", "text"),
            ("data", ["list"]),
            ("data", None),
            ("ttl", "60"),
            ("ttl", -1),
            ("priority", "urgent"),
            ("sound", 1),
            ("badge", "1"),
            ("badge", True),
            ("badge", -1),
            ("interruptionLevel", "loud"),
            ("channelId", 1),
            ("richContent", {"image": "file:///a.jpg"}),
            ("richContent", {"picture": "https://example.com/a.jpg"}),
            ("relevanceScore", 1.5),
            ("mutableContent", "yes"),
            ("to", []),
            ("to", [1]),
            ("to", None),
        ],
    )
    async def test_an_unknown_field_or_a_wrong_type_rejects_the_whole_request(
        self, expo: ExpoService, sender: Sender, field: str, value: JsonValue
    ) -> None:
        """The text begins with the index of the bad message, and nothing is sent."""
        status, body = await sender.send([message(), message() | {field: value}])
        assert (status, code(body)) == (400, "VALIDATION_ERROR")
        assert body["errors"][0]["message"].startswith(f'"1.{field}')
        assert expo.phones[IPHONE].arrived == []

    @pytest.mark.parametrize("body", [[], None, "text", 3, [[]], {}, {"title": "without a recipient"}])
    async def test_a_body_without_messages_is_rejected(self, sender: Sender, body: JsonValue) -> None:
        status, answer = await sender.send(body)
        assert (status, code(answer)) == (400, "VALIDATION_ERROR")

    @pytest.mark.parametrize(
        ("content_type", "text"), [("application/json", "{"), ("text/plain", "[]"), ("application/json", "")]
    )
    async def test_a_body_that_is_not_json_is_rejected(
        self, http: aiohttp.ClientSession, content_type: str, text: str
    ) -> None:
        headers = {"content-type": content_type}
        async with http.post("/--/api/v2/push/send", data=text, headers=headers) as response:
            assert (response.status, code(await response.json())) == (400, "VALIDATION_ERROR")


class TestTokens:
    @pytest.mark.parametrize(
        ("token", "what"),
        [
            ("ExponentPushToken[xd]", "a valid Expo push token"),
            ("fcm-native-token:APA91b", "a valid Expo push token"),
            ("", "a valid Expo push token"),
            (STRANGER, "a registered push notification recipient"),
        ],
    )
    async def test_an_invalid_token_does_not_affect_other_recipients(
        self, expo: ExpoService, sender: Sender, token: str, what: str
    ) -> None:
        """200 overall, the other recipient is unaffected."""
        bad, good = await sender.tickets(message([token, IPHONE]))
        details = {"error": "DeviceNotRegistered", "expoPushToken": token}
        assert bad == {"status": "error", "message": f'"{token}" is not {what}', "details": details}
        assert good["status"] == "ok"
        assert len(expo.phones[IPHONE].arrived) == 1

    async def test_a_removed_app_is_reported_in_the_ticket(self, expo: ExpoService, sender: Sender) -> None:
        expo.uninstall(IPHONE, report="ticket")
        [ticket] = await sender.tickets(message())
        assert ticket["details"]["error"] == "DeviceNotRegistered"
        assert expo.phones[IPHONE].arrived == []

    async def test_a_removed_app_is_reported_in_the_receipt(self, expo: ExpoService, sender: Sender) -> None:
        """Mostly in receipts, which do not carry the token."""
        expo.uninstall(IPHONE, report="receipt")
        [ticket] = await sender.tickets(message())
        assert ticket["status"] == "ok"
        _, body = await sender.receipts([ticket["id"]])
        assert body["data"][ticket["id"]]["details"] == {"error": "DeviceNotRegistered"}
        assert expo.phones[IPHONE].arrived == []

    async def test_a_reinstalled_app_is_reached_again(self, expo: ExpoService, sender: Sender) -> None:
        expo.uninstall(IPHONE)
        expo.install(IPHONE, "ios")
        await sender.tickets(message())
        assert len(expo.phones[IPHONE].shown) == 1

    @pytest.mark.parametrize(
        "token",
        [
            "ExponentPushToken",
            "ExponentPushToken[x",
            "ExponentPushToken[]",
            "ExponentPushToken[a b]",
            IPHONE + "\n",
        ],
    )
    def test_only_push_tokens_can_be_installed(self, token: str) -> None:
        with pytest.raises(ValidationError, match="token"):
            ExpoService(Clock()).install(token, "ios")

    @pytest.mark.parametrize("token", ["ExpoPushToken[x]", "3e5f0a64-7b5c-4b0e-9d6c-1c8a3c1a2b3c"])
    def test_the_other_token_formats_can_be_installed(self, token: str) -> None:
        assert ExpoService(Clock()).install(token, "android").token == token


class TestReceipts:
    async def test_a_receipt_is_ready_after_the_delay_and_gone_after_a_day(
        self, expo: ExpoService, sender: Sender, clock: Clock
    ) -> None:
        """Absent ids are simply absent."""
        expo.settings.receipt_delay_seconds = 900
        [ticket] = await sender.tickets(message())
        ready = {"data": {ticket["id"]: {"status": "ok"}}}

        async def after(**delta: float) -> object:
            clock.advance(**delta)
            return (await sender.receipts([ticket["id"], "unknown"]))[1]

        assert await after(seconds=899) == {"data": {}}
        assert await after(seconds=1) == ready
        assert await after(hours=23, minutes=44, seconds=59) == ready
        assert await after(seconds=1) == {"data": {}}

    async def test_at_most_a_thousand_receipt_ids_are_accepted(self, sender: Sender) -> None:
        assert (await sender.receipts([f"id{n}" for n in range(1000)]))[0] == 200
        status, body = await sender.receipts([f"id{n}" for n in range(1001)])
        assert (status, code(body)) == (400, "PUSH_TOO_MANY_RECEIPTS")
        assert body["errors"][0]["message"] == (
            "You can request a maximum of 1000 receipts per request (received 1001); divide your requests."
        )

    @pytest.mark.parametrize("ids", [None, "id", [""], [1]])
    async def test_invalid_receipt_ids_are_rejected(self, sender: Sender, ids: JsonValue) -> None:
        """Blank ids are never sent."""
        status, body = await sender.receipts(ids)
        assert (status, code(body)) == (400, "VALIDATION_ERROR")

    @pytest.mark.parametrize(("size", "fits"), [(4096, True), (4097, False)])
    async def test_a_notification_above_4096_bytes_is_too_big_in_its_receipt(
        self, expo: ExpoService, sender: Sender, size: int, fits: bool
    ) -> None:
        """All fields together, in bytes: each of these letters is two."""
        overhead = len('{"title":"x","body":""}')
        body = "é" * ((size - overhead) // 2)
        title = "x" * (1 + (size - overhead) % 2)
        [ticket] = await sender.tickets({"to": IPHONE, "title": title, "body": body})
        receipt = (await sender.receipts([ticket["id"]]))[1]["data"][ticket["id"]]
        assert receipt.get("details") == (None if fits else {"error": "MessageTooBig"})
        assert len(expo.phones[IPHONE].arrived) == fits


class TestPushSecurity:
    @pytest.mark.parametrize("endpoint", ["send", "receipts"])
    @pytest.mark.parametrize(
        ("access_token", "authorization", "status"),
        [
            (None, None, 200),
            ("secret", "Bearer secret", 200),
            ("secret", None, 403),
            ("secret", "Bearer stale", 401),
            ("secret", "Bearer ", 401),
            (None, "Bearer None", 401),
        ],
    )
    async def test_a_bearer_must_match_the_access_token_and_is_required_only_if_one_is_set(
        self,
        expo: ExpoService,
        sender: Sender,
        endpoint: str,
        access_token: str | None,
        authorization: str | None,
        status: int,
    ) -> None:
        expo.settings.access_token = access_token
        headers = {} if authorization is None else {"authorization": authorization}
        call = sender.send([message()], **headers) if endpoint == "send" else sender.receipts(["id"], **headers)
        answered, body = await call
        assert answered == status
        if status == 401:
            assert body == {"error": "invalid_token", "error_description": "The bearer token is invalid"}
        if status == 403:
            assert code(body) == "UNAUTHORIZED"
        assert len(expo.phones[IPHONE].arrived) == (endpoint == "send" and status == 200)


class TestRateLimit:
    async def test_each_project_may_send_600_notifications_a_second(
        self, expo: ExpoService, sender: Sender, clock: Clock
    ) -> None:
        """Above it requests fail until the rate drops; nothing of a refused one is sent."""
        for _ in range(6):
            await sender.tickets(message([IPHONE] * 100))
        clock.advance(seconds=0.999)
        status, body = await sender.send([message(PIXEL)])
        assert (status, code(body)) == (429, "TOO_MANY_REQUESTS")
        await sender.tickets(message(FOREIGN))
        clock.advance(seconds=0.001)
        await sender.tickets(message([IPHONE] * 100))
        assert len(expo.phones[IPHONE].arrived) == 700
        assert expo.phones[PIXEL].arrived == []

    async def test_the_rate_limit_is_a_setting(self, expo: ExpoService, sender: Sender) -> None:
        expo.settings.rate_limit_per_second = 1
        assert (await sender.send([message([IPHONE, PIXEL])]))[0] == 429
        assert (await sender.send([message(IPHONE)]))[0] == 200


class TestPhones:
    """What replaces, and what hides."""

    @pytest.mark.parametrize(
        ("token", "key", "shown"),
        [
            (IPHONE, {"collapseId": "m1"}, 1),
            (IPHONE, {"tag": "m1"}, 2),
            (PIXEL, {"tag": "m1"}, 1),
            (PIXEL, {"collapseId": "m1"}, 2),
            (PIXEL, {}, 2),
        ],
    )
    async def test_a_second_notification_with_the_same_key_replaces_the_first(
        self, expo: ExpoService, sender: Sender, token: str, key: dict[str, JsonValue], shown: int
    ) -> None:
        """collapseId on iOS, tag on Android; on Android collapseId works in transit only."""
        await sender.tickets(message(token) | key)
        await sender.tickets(message(token) | key)
        assert len(expo.phones[token].arrived) == 2
        assert len(expo.phones[token].shown) == shown
        assert expo.phones[token].shown[-1] == expo.phones[token].arrived[1]

    async def test_notifications_with_other_keys_stay_on_the_screen(self, expo: ExpoService, sender: Sender) -> None:
        for key in ("m1", "m2", "m1"):
            await sender.tickets(message(message_id=key, collapseId=key))
        assert [arrival.message_id for arrival in expo.phones[IPHONE].shown] == ["m2", "m1"]

    @pytest.mark.parametrize(
        ("token", "fields", "hidden"),
        [
            (PIXEL, {"channelId": "chat-messages"}, None),
            (PIXEL, {"channelId": None}, None),
            (PIXEL, {}, None),
            (PIXEL, {"channelId": "Default"}, "unknown channel"),
            (IPHONE, {"channelId": "Default"}, None),
            (IPHONE, {"title": "", "body": "", "badge": 2}, "no text"),
        ],
    )
    async def test_a_notification_without_text_or_with_a_missing_channel_is_hidden(
        self, expo: ExpoService, sender: Sender, token: str, fields: dict[str, JsonValue], hidden: str | None
    ) -> None:
        await sender.tickets(message(token) | fields)
        [arrival] = expo.phones[token].arrived
        assert arrival.hidden == hidden
        assert expo.phones[token].shown == ([] if hidden else [arrival])

    async def test_an_arrival_has_the_time_and_the_ticket_id_of_its_send(
        self, expo: ExpoService, sender: Sender, clock: Clock
    ) -> None:
        [ticket] = await sender.tickets(message())
        [arrival] = expo.phones[IPHONE].arrived
        assert (arrival.at, arrival.ticket_id) == (clock.now, ticket["id"])


class SdkSession:
    """The session that exponent_server_sdk wants, over httpx."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def post(
        self, url: str, *, data: str | None = None, json: object = None, timeout: float | None = None
    ) -> httpx.Response:
        headers = {"content-type": "application/json"}
        return self._client.post(url, content=data, json=json, headers=headers, timeout=timeout)


async def test_the_official_python_client_publishes_and_reads_receipts(expo: ExpoService) -> None:
    """The real PushClient, for tickets, receipts and an error of the whole request."""

    def publish_and_ask() -> tuple[list[Any], list[Any]]:
        with httpx.Client() as http:
            client = exponent_server_sdk.PushClient(host=expo.url, session=SdkSession(http), timeout=5)
            tickets = client.publish_multiple(
                [
                    exponent_server_sdk.PushMessage(to=token, title="Ana", body="Hello", data={"messageId": "m1"})
                    for token in (IPHONE, PIXEL, STRANGER)
                ]
            )
            accepted = [SimpleNamespace(id=ticket.id) for ticket in tickets if ticket.is_success()]
            return tickets, client.check_receipts_multiple(accepted)

    tickets, receipts = await asyncio.to_thread(publish_and_ask)
    assert [ticket.is_success() for ticket in tickets] == [True, True, False]
    with pytest.raises(exponent_server_sdk.DeviceNotRegisteredError):
        tickets[2].validate_response()
    assert {receipt.id for receipt in receipts} == {ticket.id for ticket in tickets[:2]}
    assert all(receipt.is_success() for receipt in receipts)
    expo.script(HttpError(status=500))
    with pytest.raises(exponent_server_sdk.PushServerError, match="Request failed"):
        await asyncio.to_thread(publish_and_ask)


async def test_closing_the_fake_expo_ends_hanging_requests_and_frees_the_port() -> None:
    async with expo_service() as expo, aiohttp.ClientSession() as http:
        expo.install(IPHONE, "ios")
        expo.script(Hang(seconds=3600))
        hanging = asyncio.create_task(http.post(f"{expo.url}/--/api/v2/push/send", json=[message()]))
        await expo.until(lambda: any(each.fault for each in expo.requests))
    port = int(expo.url.rpartition(":")[2])
    with pytest.raises(aiohttp.ClientError):
        await hanging
    async with expo_service(port) as again:
        assert again.url == expo.url


def test_uuid7_has_version_7_and_is_unique() -> None:
    now = datetime(2026, 1, 6, tzinfo=UTC)
    ids = {uuid7(now) for _ in range(1000)}
    assert len(ids) == 1000
    assert {(each.version, each.variant) for each in ids} == {(7, "specified in RFC 4122")}
