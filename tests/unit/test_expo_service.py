"""The fake Expo push service against the Expo protocol reference, whose sections the docstrings name."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import aiohttp
import exponent_server_sdk
import httpx
import pytest
from pydantic import JsonValue, ValidationError

from local.expo_faults import (
    Endpoint,
    Fault,
    Hang,
    HttpError,
    OddAnswer,
    ProjectConflict,
    ReceiptError,
    Reset,
    TicketCount,
    TicketError,
)
from local.expo_protocol import uuid7
from local.expo_service import ExpoService, expo_service

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])

IPHONE = "ExponentPushToken[iphone0000000000000000]"
PIXEL = "ExponentPushToken[pixel00000000000000000]"
STRANGER = "ExponentPushToken[stranger00000000000000]"  # well-formed, never issued
FOREIGN = "ExponentPushToken[foreign000000000000000]"  # of another project


class Clock:
    """A clock that stands still until it is put forward."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 6, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **delta: float) -> None:
        self.now += timedelta(**delta)


class Sender:
    """A sender without a mind of its own: posts what it is told, returns status and JSON."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http

    async def __call__(self, path: str, body: object, **headers: str) -> tuple[int, Any]:
        async with self._http.post(path, json=body, headers=headers) as response:
            return response.status, await response.json()

    async def send(self, body: object, **headers: str) -> tuple[int, Any]:
        return await self("/--/api/v2/push/send", body, **headers)

    async def receipts(self, ids: object, **headers: str) -> tuple[int, Any]:
        return await self("/--/api/v2/push/getReceipts", {"ids": ids}, **headers)

    async def tickets(self, *messages: dict[str, JsonValue]) -> list[dict[str, Any]]:
        status, body = await self.send(list(messages))
        assert status == 200
        tickets: list[dict[str, Any]] = body["data"]
        return tickets


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def expo(clock: Clock) -> AsyncIterator[ExpoService]:
    """The service, with an iPhone and a Pixel of one project and a phone of another one."""
    async with expo_service(clock=clock) as service:
        service.install(IPHONE, "ios")
        service.install(PIXEL, "android")
        service.install(FOREIGN, "ios", project="@other/app")
        yield service


@pytest.fixture
async def http(expo: ExpoService) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(expo.url) as session:
        yield session


@pytest.fixture
def sender(http: aiohttp.ClientSession) -> Sender:
    return Sender(http)


def message(
    to: str | list[str] = IPHONE, message_id: str = "m1", **fields: JsonValue
) -> dict[str, JsonValue]:
    recipients: JsonValue = list(to) if isinstance(to, list) else to
    return {"to": recipients, "title": "Ana", "body": "Hello", "data": {"messageId": message_id}, **fields}


def reset_by_peer() -> pytest.RaisesExc[aiohttp.ClientOSError]:
    return pytest.raises(aiohttp.ClientOSError, match="reset by peer")


def code(body: Any) -> str:
    """The code of the only entry of `errors`."""
    [error] = body["errors"]
    return str(error["code"])


class TestRequests:
    async def test_tickets_come_in_recipient_order(self, expo: ExpoService, sender: Sender) -> None:
        """Section 3: message order, a list `to` expanded in place."""
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
        """Section 9, single object."""
        status, body = await sender.send([message(to)] if wrap else message(to))
        assert status == 200
        assert isinstance(body["data"], answer)

    async def test_gzip_bodies_are_read_on_both_endpoints(
        self, expo: ExpoService, http: aiohttp.ClientSession
    ) -> None:
        """Section 1."""
        headers = {"content-encoding": "gzip", "content-type": "application/json"}
        for path, body in (("send", [message()]), ("getReceipts", {"ids": ["unknown"]})):
            compressed = gzip.compress(json.dumps(body).encode())
            async with http.post(f"/--/api/v2/push/{path}", data=compressed, headers=headers) as response:
                assert response.status == 200
        assert [arrival.message_id for arrival in expo.phones[IPHONE].arrived] == ["m1"]

    async def test_ticket_ids_are_uuid7_of_the_send_time(self, sender: Sender, clock: Clock) -> None:
        """Section 3: the first 48 bits equal the send time."""
        [ticket] = await sender.tickets(message())
        milliseconds = int(ticket["id"].replace("-", "")[:12], 16)
        assert datetime.fromtimestamp(milliseconds / 1000, UTC) == clock.now

    async def test_a_hundred_recipients_pass_and_one_more_does_not(
        self, expo: ExpoService, sender: Sender
    ) -> None:
        """Section 2: recipients across the whole body."""
        assert (await sender.send([message([IPHONE] * 60), message([PIXEL] * 40)]))[0] == 200
        status, body = await sender.send([message([IPHONE] * 60), message([PIXEL] * 41)])
        assert (status, code(body)) == (400, "PUSH_TOO_MANY_NOTIFICATIONS")
        assert body["errors"][0]["message"] == (
            "You can send a maximum of 100 notifications per request (received 101); divide your requests."
        )
        assert len(expo.phones[IPHONE].arrived) == 60

    async def test_a_list_of_101_is_refused_with_the_recorded_text(self, sender: Sender) -> None:
        """Section 9."""
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

    async def test_mixed_projects_are_refused_with_the_tokens_of_each(
        self, expo: ExpoService, sender: Sender
    ) -> None:
        """Section 9. Unknown tokens belong to no project."""
        status, body = await sender.send([message([IPHONE, FOREIGN, STRANGER]), message(PIXEL)])
        assert (status, code(body)) == (400, "PUSH_TOO_MANY_EXPERIENCE_IDS")
        assert body["errors"][0]["details"] == {"@chat-push/app": [IPHONE, PIXEL], "@other/app": [FOREIGN]}
        assert not any(phone.arrived for phone in expo.phones.values())

    async def test_a_duplicate_token_is_delivered_twice(self, expo: ExpoService, sender: Sender) -> None:
        """Section 9."""
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
        """Section 5, all rows."""
        await sender.tickets({"to": IPHONE, **ALL_FIELDS})
        assert expo.phones[IPHONE].arrived[0].message == ALL_FIELDS

    @pytest.mark.parametrize(
        "fields",
        [
            {"sound": None},
            {"channelId": None},
            {"sound": {"critical": True, "name": "bell.wav", "volume": 0.5}},
        ],
    )
    async def test_the_other_allowed_forms_of_a_field(
        self, expo: ExpoService, sender: Sender, fields: dict[str, JsonValue]
    ) -> None:
        await sender.tickets(message() | fields)
        assert fields.items() <= expo.phones[IPHONE].arrived[0].message.items()

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("chanelId", "chat-messages"),
            ("collapse_id", "m1"),
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
    async def test_unknown_fields_and_wrong_types_refuse_the_whole_request(
        self, expo: ExpoService, sender: Sender, field: str, value: JsonValue
    ) -> None:
        """Sections 5 and 9: the text begins with the index of the bad message, and nothing is sent."""
        status, body = await sender.send([message(), message() | {field: value}])
        assert (status, code(body)) == (400, "VALIDATION_ERROR")
        assert body["errors"][0]["message"].startswith(f'"1.{field}')
        assert expo.phones[IPHONE].arrived == []

    @pytest.mark.parametrize("body", [[], None, "text", 3, [[]], {}, {"title": "to nobody"}])
    async def test_a_body_without_messages_is_refused(self, sender: Sender, body: JsonValue) -> None:
        status, answer = await sender.send(body)
        assert (status, code(answer)) == (400, "VALIDATION_ERROR")

    @pytest.mark.parametrize(
        ("content_type", "text"), [("application/json", "{"), ("text/plain", "[]"), ("application/json", "")]
    )
    async def test_a_body_that_is_not_json_is_refused(
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
    async def test_a_bad_token_fails_alone(
        self, expo: ExpoService, sender: Sender, token: str, what: str
    ) -> None:
        """Section 9: 200 overall, the other recipient is unaffected."""
        bad, good = await sender.tickets(message([token, IPHONE]))
        details = {"error": "DeviceNotRegistered", "expoPushToken": token}
        assert bad == {"status": "error", "message": f'"{token}" is not {what}', "details": details}
        assert good["status"] == "ok"
        assert len(expo.phones[IPHONE].arrived) == 1

    async def test_an_uninstalled_app_is_told_in_the_ticket(self, expo: ExpoService, sender: Sender) -> None:
        expo.uninstall(IPHONE, report="ticket")
        [ticket] = await sender.tickets(message())
        assert ticket["details"]["error"] == "DeviceNotRegistered"
        assert expo.phones[IPHONE].arrived == []

    async def test_an_uninstalled_app_is_told_in_the_receipt(self, expo: ExpoService, sender: Sender) -> None:
        """Section 7: mostly in receipts, which do not carry the token (section 3)."""
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
        """Section 13, tokens."""
        with pytest.raises(ValidationError, match="token"):
            ExpoService(Clock()).install(token, "ios")

    @pytest.mark.parametrize("token", ["ExpoPushToken[x]", "3e5f0a64-7b5c-4b0e-9d6c-1c8a3c1a2b3c"])
    def test_the_other_formats_can_be_installed(self, token: str) -> None:
        """Section 12."""
        assert ExpoService(Clock()).install(token, "android").token == token


class TestReceipts:
    async def test_ready_after_the_delay_and_gone_after_a_day(
        self, expo: ExpoService, sender: Sender, clock: Clock
    ) -> None:
        """Section 4; absent ids are simply absent (section 3)."""
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

    async def test_a_thousand_ids_pass_and_one_more_does_not(self, sender: Sender) -> None:
        """Section 9."""
        assert (await sender.receipts([f"id{n}" for n in range(1000)]))[0] == 200
        status, body = await sender.receipts([f"id{n}" for n in range(1001)])
        assert (status, code(body)) == (400, "PUSH_TOO_MANY_RECEIPTS")
        assert body["errors"][0]["message"] == (
            "You can request a maximum of 1000 receipts per request (received 1001); divide your requests."
        )

    @pytest.mark.parametrize("ids", [None, "id", [""], [1]])
    async def test_bad_ids_are_refused(self, sender: Sender, ids: JsonValue) -> None:
        """Section 13: blank ids are never sent."""
        status, body = await sender.receipts(ids)
        assert (status, code(body)) == (400, "VALIDATION_ERROR")

    @pytest.mark.parametrize(("size", "fits"), [(4096, True), (4097, False)])
    async def test_more_than_4096_bytes_are_too_big_in_the_receipt(
        self, expo: ExpoService, sender: Sender, size: int, fits: bool
    ) -> None:
        """Section 2: all fields together, in bytes: each of these letters is two."""
        overhead = len('{"title":"x","body":""}')
        body = "é" * ((size - overhead) // 2)
        title = "x" * (1 + (size - overhead) % 2)
        [ticket] = await sender.tickets({"to": IPHONE, "title": title, "body": body})
        receipt = (await sender.receipts([ticket["id"]]))[1]["data"][ticket["id"]]
        assert receipt.get("details") == (None if fits else {"error": "MessageTooBig"})
        assert len(expo.phones[IPHONE].arrived) == fits


class TestPushSecurity:
    """Sections 1, 6 and 9; both endpoints alike."""

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
    async def test_the_bearer_is_needed_when_set_and_never_wrong(
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
        call = (
            sender.send([message()], **headers) if endpoint == "send" else sender.receipts(["id"], **headers)
        )
        answered, body = await call
        assert answered == status
        if status == 401:
            assert body == {"error": "invalid_token", "error_description": "The bearer token is invalid"}
        if status == 403:
            assert code(body) == "UNAUTHORIZED"
        assert len(expo.phones[IPHONE].arrived) == (endpoint == "send" and status == 200)


class TestRateLimit:
    async def test_600_a_second_for_each_project(
        self, expo: ExpoService, sender: Sender, clock: Clock
    ) -> None:
        """Section 2: above it requests fail until the rate drops; nothing of a refused one is sent."""
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

    async def test_the_limit_can_be_set(self, expo: ExpoService, sender: Sender) -> None:
        expo.settings.rate_limit_per_second = 1
        assert (await sender.send([message([IPHONE, PIXEL])]))[0] == 429
        assert (await sender.send([message(IPHONE)]))[0] == 200


class TestPhones:
    """Section 5: what replaces, and what hides."""

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
    async def test_a_second_copy_replaces_the_first(
        self, expo: ExpoService, sender: Sender, token: str, key: dict[str, JsonValue], shown: int
    ) -> None:
        """collapseId on iOS, tag on Android; on Android collapseId works in transit only."""
        await sender.tickets(message(token) | key)
        await sender.tickets(message(token) | key)
        assert len(expo.phones[token].arrived) == 2
        assert len(expo.phones[token].shown) == shown
        assert expo.phones[token].shown[-1] == expo.phones[token].arrived[1]

    async def test_other_keys_stay_on_the_screen(self, expo: ExpoService, sender: Sender) -> None:
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
            (IPHONE, {"title": "", "body": "", "contentAvailable": True}, "no text"),
        ],
    )
    async def test_what_hides_a_notification(
        self, expo: ExpoService, sender: Sender, token: str, fields: dict[str, JsonValue], hidden: str | None
    ) -> None:
        await sender.tickets(message(token) | fields)
        [arrival] = expo.phones[token].arrived
        assert arrival.hidden == hidden
        assert expo.phones[token].shown == ([] if hidden else [arrival])

    async def test_arrivals_carry_time_and_ticket(
        self, expo: ExpoService, sender: Sender, clock: Clock
    ) -> None:
        [ticket] = await sender.tickets(message())
        [arrival] = expo.phones[IPHONE].arrived
        assert (arrival.at, arrival.ticket_id) == (clock.now, ticket["id"])


class TestRequestFaults:
    """Sections 6, 8 and 9."""

    @pytest.mark.parametrize("on", ["send", "receipts"])
    @pytest.mark.parametrize(
        ("fault", "error"),
        [
            (HttpError(status=401), "invalid_token"),
            (HttpError(status=403), "UNAUTHORIZED"),
            (HttpError(status=413), "API_ERROR"),
            (HttpError(status=429), "TOO_MANY_REQUESTS"),
            (HttpError(status=500), "INTERNAL_SERVER_ERROR"),
            (HttpError(status=503), "INTERNAL_SERVER_ERROR"),
        ],
    )
    async def test_a_failing_status_has_the_body_of_its_kind(
        self, expo: ExpoService, sender: Sender, on: Endpoint, fault: HttpError, error: str
    ) -> None:
        expo.script(fault, on=on)
        status, body = await (sender.send([message()]) if on == "send" else sender.receipts(["id"]))
        assert status == fault.status
        assert error in (body.get("error"), body.get("errors", [{}])[0].get("code"))
        assert expo.phones[IPHONE].arrived == []

    @pytest.mark.parametrize(
        ("fault", "content_type", "text"),
        [
            (HttpError(status=502, body="html"), "text/html", "<h1>502 Bad Gateway</h1>"),
            (HttpError(status=504, body="html"), "text/html", "<h1>504 Gateway Timeout</h1>"),
            (HttpError(status=429, body="empty"), "application/octet-stream", ""),
            (HttpError(status=500, body="empty"), "application/octet-stream", ""),
            (OddAnswer(body="truncated"), "application/json", '{"data":[{"status":"ok","id":"019b9339-aa4e'),
            (OddAnswer(body="null"), "application/json", "null"),
            (OddAnswer(body="no_data"), "application/json", "{}"),
            (OddAnswer(body="errors"), "application/json", '"errors"'),
        ],
    )
    async def test_bodies_that_are_no_answer(
        self, expo: ExpoService, http: aiohttp.ClientSession, fault: Fault, content_type: str, text: str
    ) -> None:
        expo.script(fault)
        async with http.post("/--/api/v2/push/send", json=[message()]) as response:
            assert response.status == getattr(fault, "status", 200)
            assert response.content_type == content_type
            assert text in await response.text()

    @pytest.mark.parametrize(
        ("retry_after", "text"),
        [
            (None, None),
            (3, "3"),
            (datetime(2026, 1, 6, 13, 0, 5, tzinfo=UTC), "Tue, 06 Jan 2026 13:00:05 GMT"),
        ],
    )
    async def test_retry_after_in_seconds_as_a_date_and_absent(
        self,
        expo: ExpoService,
        http: aiohttp.ClientSession,
        retry_after: int | datetime | None,
        text: str | None,
    ) -> None:
        """Section 13, resilience."""
        expo.script(HttpError(status=429, retry_after=retry_after))
        async with http.post("/--/api/v2/push/send", json=[message()]) as response:
            assert response.headers.get("Retry-After") == text

    @pytest.mark.parametrize("accepted", [True, False])
    @pytest.mark.parametrize("kind", ["http_error", "odd_answer", "reset", "hang"])
    async def test_the_phones_may_have_got_it_all_the_same(
        self, expo: ExpoService, sender: Sender, kind: str, accepted: bool
    ) -> None:
        """Section 8: the sender cannot tell the two apart."""
        send = sender.send([message()])
        match kind:
            case "http_error":
                expo.script(HttpError(status=504, accepted=accepted))
                assert (await send)[0] == 504
            case "odd_answer":
                expo.script(OddAnswer(body="null", accepted=accepted))
                assert await send == (200, None)
            case "reset":
                expo.script(Reset(accepted=accepted))
                with reset_by_peer():
                    await send
            case "hang":
                expo.script(Hang(seconds=60, accepted=accepted))
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(send, 0.1)
        assert len(expo.phones[IPHONE].arrived) == accepted

    async def test_a_hang_ends_in_a_reset(self, expo: ExpoService, sender: Sender) -> None:
        expo.script(Hang(seconds=0))
        with reset_by_peer():
            await sender.send([message()])

    @pytest.mark.parametrize(("count", "statuses"), [(0, []), (1, ["ok"]), (3, ["ok", "error", "error"])])
    async def test_a_wrong_ticket_count(
        self, expo: ExpoService, sender: Sender, count: int, statuses: list[str]
    ) -> None:
        expo.script(TicketCount(tickets=count))
        tickets = await sender.tickets(message([IPHONE, STRANGER]))
        assert [ticket["status"] for ticket in tickets] == statuses
        assert len(expo.phones[IPHONE].arrived) == 1

    async def test_a_project_conflict_that_cannot_be_split(self, expo: ExpoService, sender: Sender) -> None:
        """Section 9: a renamed slug; a map with a single group."""
        expo.script(ProjectConflict(projects={"@chat-push/old": [IPHONE]}))
        status, body = await sender.send([message()])
        assert (status, code(body)) == (400, "PUSH_TOO_MANY_EXPERIENCE_IDS")
        assert body["errors"][0]["details"] == {"@chat-push/old": [IPHONE]}


class TestRecipientFaults:
    """Section 7."""

    @pytest.mark.parametrize(
        ("error", "details"),
        [
            ("InvalidCredentials", {}),
            ("MessageRateExceeded", {}),
            ("ExpoError", {"fault": "expo"}),
            ("ProviderError", {"fcm": {"error": "MismatchSenderId"}}),
        ],
    )
    async def test_one_recipient_fails_in_the_ticket(
        self, expo: ExpoService, sender: Sender, error: str, details: dict[str, JsonValue]
    ) -> None:
        expo.script(TicketError(error=error, message="No.", details=details), token=PIXEL)
        good, bad = await sender.tickets(message([IPHONE, PIXEL]))
        assert good["status"] == "ok"
        assert bad == {"status": "error", "message": "No.", "details": {"error": error, **details}}
        assert expo.phones[PIXEL].arrived == []

    async def test_one_recipient_fails_in_the_receipt(self, expo: ExpoService, sender: Sender) -> None:
        expo.script(ReceiptError(error="InvalidCredentials", message="No."), token=PIXEL)
        tickets = await sender.tickets(message([IPHONE, PIXEL]))
        assert [ticket["status"] for ticket in tickets] == ["ok", "ok"]
        good, bad = (ticket["id"] for ticket in tickets)
        failed = {"status": "error", "message": "No.", "details": {"error": "InvalidCredentials"}}
        assert (await sender.receipts([good, bad]))[1] == {"data": {good: {"status": "ok"}, bad: failed}}
        assert expo.phones[PIXEL].arrived == []

    async def test_error_tickets_may_have_an_id_and_no_details(
        self, expo: ExpoService, sender: Sender
    ) -> None:
        """Section 3: `status` decides, not `id`."""
        expo.script(TicketError(error=None, message="No.", id="old"))
        assert await sender.tickets(message()) == [{"status": "error", "message": "No.", "id": "old"}]

    async def test_without_a_token_all_recipients_of_the_request_fail(
        self, expo: ExpoService, sender: Sender
    ) -> None:
        expo.script(TicketError(error="ExpoError"))
        tickets = await sender.tickets(message([IPHONE, PIXEL]))
        assert [ticket["status"] for ticket in tickets] == ["error", "error"]

    async def test_two_errors_of_one_token_strike_one_after_the_other(
        self, expo: ExpoService, sender: Sender
    ) -> None:
        for error in ("MessageRateExceeded", "ExpoError"):
            expo.script(TicketError(error=error), token=IPHONE)
        sends = [(await sender.tickets(message()))[0] for _ in range(3)]
        errors = [ticket.get("details", {}).get("error") for ticket in sends]
        assert errors == ["MessageRateExceeded", "ExpoError", None]


class TestScripts:
    async def test_a_fault_strikes_so_many_times(self, expo: ExpoService, sender: Sender) -> None:
        expo.script(HttpError(status=503), times=2)
        assert [(await sender.send([message()]))[0] for _ in range(3)] == [503, 503, 200]

    async def test_faults_strike_in_order(self, expo: ExpoService, sender: Sender) -> None:
        expo.script(HttpError(status=429))
        expo.script(HttpError(status=500))
        assert [(await sender.send([message()]))[0] for _ in range(3)] == [429, 500, 200]

    async def test_a_fault_can_wait_for_a_token(self, expo: ExpoService, sender: Sender) -> None:
        expo.script(HttpError(status=500), token=PIXEL)
        statuses = [(await sender.send([message(token)]))[0] for token in (IPHONE, PIXEL, PIXEL)]
        assert statuses == [200, 500, 200]

    async def test_a_fault_of_receipts_can_wait_for_a_token(self, expo: ExpoService, sender: Sender) -> None:
        other, struck = await sender.tickets(message([IPHONE, PIXEL]))
        expo.script(HttpError(status=500), on="receipts", token=PIXEL)
        assert [(await sender.receipts([ticket["id"]]))[0] for ticket in (other, struck)] == [200, 500]

    async def test_a_refused_request_uses_up_no_fault(self, expo: ExpoService, sender: Sender) -> None:
        expo.script(HttpError(status=503))
        assert [(await sender.send(body))[0] for body in ([], [message()])] == [400, 503]

    @pytest.mark.parametrize(
        "fault", [TicketCount(tickets=0), TicketError(error="ExpoError"), ProjectConflict(projects={})]
    )
    def test_what_concerns_sends_cannot_strike_receipts(self, fault: Fault) -> None:
        with pytest.raises(ValueError, match="can only strike a send"):
            ExpoService(Clock()).script(fault, on="receipts")


class TestWaiting:
    async def test_an_arrival_is_awaited(self, expo: ExpoService, sender: Sender) -> None:
        waiting = asyncio.create_task(expo.arrival(PIXEL, "m2"))
        await sender.tickets(message(PIXEL, "m1"))
        await sender.tickets(message(PIXEL, "m2"))
        assert await waiting == expo.phones[PIXEL].arrived[1]

    async def test_an_arrival_that_does_not_come_names_those_that_did(
        self, expo: ExpoService, sender: Sender
    ) -> None:
        await sender.tickets(message(PIXEL, "m1"))
        with pytest.raises(TimeoutError, match=r"no m2 .* arrived: \['m1'\]"):
            await expo.arrival(PIXEL, "m2", seconds=0.01)

    async def test_a_request_that_is_reset_wakes_too(self, expo: ExpoService, sender: Sender) -> None:
        expo.script(Reset())
        waiting = asyncio.create_task(expo.until(lambda: [each.fault for each in expo.requests]))
        with reset_by_peer():
            await sender.send([message()])
        assert await waiting == ["reset"]


class TestRequestLog:
    async def test_requests_are_logged_without_the_bearer(
        self, expo: ExpoService, sender: Sender, clock: Clock
    ) -> None:
        expo.settings.access_token = "secret"
        expo.script(HttpError(status=503))
        for _ in range(2):
            await sender.send([message([IPHONE, STRANGER])], authorization="Bearer secret")
        ids = [expo.phones[IPHONE].arrived[0].ticket_id, "unknown"]
        await sender.receipts(ids, authorization="Bearer secret")
        assert [
            (each.endpoint, each.status, each.fault, each.tokens, each.receipt_ids) for each in expo.requests
        ] == [
            ("send", 503, "http_error", [IPHONE, STRANGER], []),
            ("send", 200, None, [IPHONE, STRANGER], []),
            ("receipts", 200, None, [IPHONE], ids),
        ]
        assert {each.at for each in expo.requests} == {clock.now}
        assert {each.headers["authorization"] for each in expo.requests} == {"(left out)"}

    async def test_refused_and_reset_requests_are_logged(self, expo: ExpoService, sender: Sender) -> None:
        expo.script(Reset())
        await sender.send([])
        with reset_by_peer():
            await sender.send([message()])
        assert [(each.status, each.fault) for each in expo.requests] == [(400, None), (None, "reset")]


class TestControl:
    async def test_it_describes_itself(self, expo: ExpoService, http: aiohttp.ClientSession) -> None:
        async with http.get(expo.control_url) as response:
            description = await response.json()
        assert description["push_url"] == expo.url
        assert set(description["endpoints"]) == {
            "GET /control",
            "DELETE /control",
            "GET /control/phones",
            "POST /control/phones",
            "GET /control/phones/{token}",
            "DELETE /control/phones/{token}",
            "GET /control/faults",
            "POST /control/faults",
            "DELETE /control/faults",
            "GET /control/settings",
            "PATCH /control/settings",
            "GET /control/requests",
        }
        assert all(endpoint["does"] for endpoint in description["endpoints"].values())
        assert "times" in description["endpoints"]["POST /control/faults"]["takes"]["properties"]

    async def test_phones_are_installed_shown_and_uninstalled(
        self, expo: ExpoService, http: aiohttp.ClientSession, sender: Sender, clock: Clock
    ) -> None:
        phone = {
            "token": STRANGER,
            "platform": "android",
            "project": "@a/b",
            "channels": ["chat-messages", "x"],
        }
        assert (await sender("/control/phones", phone))[0] == 200
        [ticket] = await sender.tickets(message(STRANGER, tag="m1", channelId="x"))
        async with http.get(f"/control/phones/{STRANGER}") as response:
            seen = await response.json()
        assert seen["arrived"] == seen["shown"]
        assert seen["shown"] == [
            {
                "at": clock.now.isoformat().replace("+00:00", "Z"),
                "ticket_id": ticket["id"],
                "message": expo.phones[STRANGER].arrived[0].message,
                "hidden": None,
            }
        ]
        async with http.delete(f"/control/phones/{STRANGER}", params={"report": "receipt"}) as response:
            assert (await response.json())["uninstalled"] == "receipt"
        async with http.get("/control/phones") as response:
            assert [each["token"] for each in await response.json()] == [IPHONE, PIXEL, FOREIGN, STRANGER]

    async def test_faults_are_scripted_listed_and_dropped(
        self, http: aiohttp.ClientSession, sender: Sender
    ) -> None:
        script = {
            "fault": {"kind": "http_error", "status": 503, "accepted": True},
            "times": 2,
            "token": IPHONE,
        }
        assert (await sender("/control/faults", script))[0] == 200
        assert (await sender.send([message()]))[0] == 503
        async with http.get("/control/faults") as response:
            [left] = await response.json()
        assert (left["fault"]["status"], left["times"], left["on"], left["token"]) == (503, 1, "send", IPHONE)
        async with http.delete("/control/faults") as response:
            assert response.status == 204
        assert (await sender.send([message()]))[0] == 200

    async def test_settings_change_one_by_one(self, expo: ExpoService, http: aiohttp.ClientSession) -> None:
        for change in ({"latency_seconds": 0.001}, {"rate_limit_per_second": 5}):
            async with http.patch("/control/settings", json=change) as response:
                assert response.status == 200
        async with http.get("/control/settings") as response:
            assert await response.json() == {
                "latency_seconds": 0.001,
                "rate_limit_per_second": 5,
                "access_token": None,
                "receipt_delay_seconds": 0,
            }

    async def test_requests_are_listed(self, http: aiohttp.ClientSession, sender: Sender) -> None:
        await sender.send([message()])
        async with http.get("/control/requests") as response:
            [logged] = await response.json()
        assert (logged["endpoint"], logged["status"], logged["tokens"]) == ("send", 200, [IPHONE])

    async def test_everything_is_reset(
        self, expo: ExpoService, http: aiohttp.ClientSession, sender: Sender
    ) -> None:
        expo.script(Reset(), on="receipts")
        expo.settings.rate_limit_per_second = 1
        [ticket] = await sender.tickets(message())
        async with http.delete("/control") as response:
            assert response.status == 204
        assert (expo.phones, expo.faults.scripts, expo.requests) == ({}, [], [])
        assert expo.settings.rate_limit_per_second == 600
        assert (await sender.receipts([ticket["id"]]))[1] == {"data": {}}

    @pytest.mark.parametrize(
        ("method", "path", "body", "field"),
        [
            ("POST", "/phones", {"platform": "ios"}, "token"),
            ("POST", "/phones", {"token": "native", "platform": "ios"}, "token"),
            ("POST", "/phones", {"token": IPHONE, "platform": "web"}, "platform"),
            ("POST", "/phones", {"token": IPHONE, "platform": "ios", "project": "app"}, "project"),
            ("POST", "/phones", {"token": IPHONE, "platform": "ios", "arrived": []}, "arrived"),
            ("DELETE", f"/phones/{IPHONE}?report=never", None, "report"),
            ("POST", "/faults", {"fault": {"kind": "earthquake"}}, "fault"),
            ("POST", "/faults", {"fault": {"kind": "http_error", "status": 200}}, "fault.http_error.status"),
            ("POST", "/faults", {"fault": {"kind": "reset"}, "times": 0}, "times"),
            ("POST", "/faults", {"fault": {"kind": "reset"}, "on": "token"}, "on"),
            (
                "POST",
                "/faults",
                {"fault": {"kind": "ticket_count", "tickets": 0}, "on": "receipts"},
                "(body)",
            ),
            ("POST", "/faults", "text", "(body)"),
            ("PATCH", "/settings", {"latency_seconds": -1}, "latency_seconds"),
            ("PATCH", "/settings", {"latency": 1}, "latency"),
            ("PATCH", "/settings", None, "(body)"),
        ],
    )
    async def test_bad_input_is_refused_naming_the_field(
        self, http: aiohttp.ClientSession, method: str, path: str, body: JsonValue, field: str
    ) -> None:
        async with http.request(method, f"/control{path}", json=body) as response:
            assert response.status == 422
            assert field in [error["field"] for error in (await response.json())["errors"]]

    @pytest.mark.parametrize("method", ["GET", "DELETE"])
    async def test_an_unknown_phone_is_not_found(self, http: aiohttp.ClientSession, method: str) -> None:
        async with http.request(method, f"/control/phones/{STRANGER}") as response:
            assert response.status == 404


class SdkSession:
    """The session that exponent_server_sdk wants (section 10), over httpx."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def post(
        self, url: str, *, data: str | None = None, json: object = None, timeout: float | None = None
    ) -> httpx.Response:
        headers = {"content-type": "application/json"}
        return self._client.post(url, content=data, json=json, headers=headers, timeout=timeout)


async def test_the_python_sdk_publishes_and_reads_receipts(expo: ExpoService) -> None:
    """Section 10: the real PushClient, for tickets, receipts and an error of the whole request."""

    def publish_and_ask() -> tuple[list[Any], list[Any]]:
        with httpx.Client() as http:
            client = exponent_server_sdk.PushClient(host=expo.url, session=SdkSession(http), timeout=5)
            tickets = client.publish_multiple(
                [
                    exponent_server_sdk.PushMessage(
                        to=token, title="Ana", body="Hello", data={"messageId": "m1"}
                    )
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


async def test_leaving_ends_hanging_requests_and_frees_the_port() -> None:
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


def test_uuid7_is_of_version_7_and_never_the_same() -> None:
    now = datetime(2026, 1, 6, tzinfo=UTC)
    ids = {uuid7(now) for _ in range(1000)}
    assert len(ids) == 1000
    assert {(each.version, each.variant) for each in ids} == {(7, "specified in RFC 4122")}
