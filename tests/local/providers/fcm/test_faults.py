"""The scripted faults of the fake FCM, over HTTP/2 and HTTP/1.1."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import get_args
from urllib.parse import urlencode

import h2.connection
import httpx
import pytest
from hyperframe.frame import Frame

from local.providers.fcm.faults import (
    AnyFault,
    Endpoint,
    ErrorName,
    FcmError,
    GoAway,
    Hang,
    HtmlError,
    OAuthError,
    Reset,
    Slow,
)
from local.providers.fcm.protocol import ERRORS
from local.providers.fcm.state import FcmService
from tests.local.providers.fcm.sending import BROWSER, PIXEL, Sender, client, error_of, form, signed

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])

TOKEN = "message.token"
LOST = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)


@pytest.fixture(params=[True, False], ids=["HTTP/2", "HTTP/1.1"])
async def any_sender(fcm: FcmService, request: pytest.FixtureRequest) -> AsyncIterator[Sender]:
    """A sender over each version of HTTP."""
    async with client(fcm, http2=request.param) as http:
        sender = Sender(http, fcm)
        await sender.log_in()
        yield sender


# The answer of each row of FCM's table: status, its name, code of the FcmError, field of the BadRequest.
ROWS: dict[ErrorName, tuple[int, str, str | None, str | None]] = {
    "UNREGISTERED": (404, "NOT_FOUND", "UNREGISTERED", None),
    "NOT_FOUND": (404, "NOT_FOUND", None, None),
    "INVALID_TOKEN": (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", None),
    "INVALID_TOKEN_FIELD": (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", TOKEN),
    "INVALID_FIELD": (400, "INVALID_ARGUMENT", None, "message.android.ttl"),
    "INVALID_PAYLOAD": (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT", None),
    "TOO_BIG": (400, "INVALID_ARGUMENT", None, None),
    "SENDER_ID_MISMATCH": (403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH", None),
    "PERMISSION_DENIED": (403, "PERMISSION_DENIED", None, None),
    "SERVICE_DISABLED": (403, "PERMISSION_DENIED", None, None),
    "THIRD_PARTY_AUTH_ERROR": (401, "UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR", None),
    "APNS_AUTH_ERROR": (401, "UNAUTHENTICATED", "APNS_AUTH_ERROR", None),
    "UNAUTHENTICATED": (401, "UNAUTHENTICATED", None, None),
    "QUOTA_EXCEEDED": (429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", None),
    "INTERNAL": (500, "INTERNAL", "INTERNAL", None),
    "UNAVAILABLE": (503, "UNAVAILABLE", "UNAVAILABLE", None),
    "UNSPECIFIED_ERROR": (400, "UNKNOWN", "UNSPECIFIED_ERROR", None),
}


def test_each_name_of_an_error_has_an_answer_and_a_test() -> None:
    assert set(ERRORS) == set(ROWS) == set(get_args(ErrorName.__value__))


@pytest.mark.parametrize(("name", "answer"), ROWS.items(), ids=ROWS)
async def test_each_row_of_the_table_of_errors_can_be_scripted(
    sender: Sender, name: ErrorName, answer: tuple[int, str, str | None, str | None]
) -> None:
    sender.fcm.script(FcmError(error=name))
    assert error_of(await sender.send()) == answer
    assert sender.fcm.phones[PIXEL].arrived == []
    assert (await sender.send()).status_code == 200


@pytest.mark.parametrize(
    ("retry_after", "text"),
    [(None, None), (30, "30"), (datetime(2026, 1, 6, 13, 0, 5, tzinfo=UTC), "Tue, 06 Jan 2026 13:00:05 GMT")],
)
async def test_a_429_has_retry_after_as_seconds_or_as_a_date_or_not_at_all(
    any_sender: Sender, retry_after: int | datetime | None, text: str | None
) -> None:
    any_sender.fcm.script(FcmError(error="QUOTA_EXCEEDED", retry_after=retry_after))
    response = await any_sender.send()
    assert (response.status_code, response.headers.get("Retry-After")) == (429, text)


@pytest.mark.parametrize("status", [502, 504])
async def test_a_gateway_answers_with_html(any_sender: Sender, status: int) -> None:
    any_sender.fcm.script(HtmlError(status=status, accepted=True))
    response = await any_sender.send()
    assert (response.status_code, response.headers["content-type"]) == (status, "text/html; charset=UTF-8")
    assert len(any_sender.fcm.phones[PIXEL].arrived) == 1


@pytest.mark.parametrize("accepted", [True, False])
async def test_a_reset_delivers_the_notification_only_if_it_is_accepted(any_sender: Sender, accepted: bool) -> None:
    any_sender.fcm.script(Reset(accepted=accepted))
    with pytest.raises(LOST):
        await any_sender.send()
    assert len(any_sender.fcm.phones[PIXEL].arrived) == accepted


@pytest.mark.parametrize("accepted", [True, False])
async def test_a_hanging_request_stops_no_other_stream(sender: Sender, accepted: bool) -> None:
    sender.fcm.script(Hang(accepted=accepted), token=PIXEL)
    hanging = asyncio.create_task(sender.send())
    await sender.fcm.until(lambda: [each for each in sender.fcm.requests if each.fault == "hang"])
    assert (await sender.send(BROWSER)).status_code == 200
    assert len(sender.fcm.phones[PIXEL].arrived) == accepted
    assert {request.connection for request in sender.fcm.requests} == {1}
    hanging.cancel()
    assert sender.fcm.requests[-2].status is None


async def test_a_slow_answer_comes_after_the_phone_has_the_notification(any_sender: Sender) -> None:
    any_sender.fcm.script(Slow(seconds=0.3))
    slow = asyncio.create_task(any_sender.send())
    await any_sender.fcm.until(lambda: any_sender.fcm.phones[PIXEL].arrived)
    assert not slow.done()
    assert (await slow).status_code == 200


async def test_a_script_for_a_token_spares_other_tokens(sender: Sender) -> None:
    sender.fcm.script(FcmError(error="UNREGISTERED"), times=2, token=PIXEL)
    tokens = (BROWSER, PIXEL, PIXEL, PIXEL)
    assert [(await sender.send(token)).status_code for token in tokens] == [200, 404, 404, 200]


async def frames(fcm: FcmService, *requests: tuple[dict[str, str], bytes]) -> list[tuple[str, int]]:
    """What a client gets that sends these requests at once: the names of the frames, and their streams.

    For GOAWAY it is the last stream that the frame names. httpx reads nothing after a GOAWAY.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", int(fcm.url.rpartition(":")[2]))
    connection = h2.connection.H2Connection()
    connection.initiate_connection()
    for number, (headers, body) in enumerate(requests):
        pseudo_headers = {":method": "POST", ":scheme": "http", ":authority": "fcm"}
        connection.send_headers(2 * number + 1, [*(pseudo_headers | headers).items()])
        if body:
            connection.send_data(2 * number + 1, body, end_stream=True)
    writer.write(connection.data_to_send())
    received = await reader.read()
    writer.close()
    found = []
    while received:
        frame, length = Frame.parse_frame_header(memoryview(received[:9]))
        frame.parse_body(memoryview(received[9 : 9 + length]))
        found.append((type(frame).__name__, getattr(frame, "last_stream_id", frame.stream_id)))
        received = received[9 + length :]
    return [each for each in found if each[0] in ("HeadersFrame", "GoAwayFrame")]


class TestGoAway:
    @pytest.mark.parametrize(
        ("last_stream", "expected"),
        [
            ("zero", [("GoAwayFrame", 0)]),
            ("earlier", [("GoAwayFrame", 1), ("HeadersFrame", 1)]),
            ("this", [("HeadersFrame", 3), ("GoAwayFrame", 3), ("HeadersFrame", 1)]),
            ("unanswered", [("GoAwayFrame", 3)]),
        ],
    )
    async def test_goaway_names_a_stream_and_the_answers_follow_it(
        self, fcm: FcmService, last_stream: str, expected: list[tuple[str, int]]
    ) -> None:
        """Stream 1 is slow, and stream 3 is struck."""
        fcm.script(Slow(seconds=0.1), on="token")
        fcm.script(GoAway.model_validate({"last_stream": last_stream}), on="token")
        headers = {":path": "/token", "content-type": "application/x-www-form-urlencoded"}
        request = headers, urlencode(form(signed(fcm.service_account()))).encode()
        assert await frames(fcm, request, request) == expected

    @pytest.mark.parametrize(
        ("last_stream", "is_repeated", "arrived"), [("zero", False, 0), ("earlier", True, 1), ("unanswered", False, 1)]
    )
    async def test_a_client_repeats_only_what_goaway_leaves_unhandled(
        self, sender: Sender, last_stream: str, is_repeated: bool, arrived: int
    ) -> None:
        sender.fcm.script(GoAway.model_validate({"last_stream": last_stream}))
        [result] = await asyncio.gather(sender.send(), return_exceptions=True)
        assert isinstance(result, httpx.Response if is_repeated else httpx.RemoteProtocolError)
        assert len(sender.fcm.phones[PIXEL].arrived) == arrived
        assert sender.fcm.requests[-1].connection == (2 if is_repeated else 1)

    async def test_more_streams_than_are_allowed_end_the_connection(self, fcm: FcmService) -> None:
        requests = [({":path": "/token"}, b"")] * 101  # whose bodies never come
        assert await frames(fcm, *requests) == [("GoAwayFrame", 0)]


class TestConnections:
    @pytest.mark.parametrize("http2", [True, False])
    async def test_a_new_connection_can_be_reset(self, sender: Sender, http2: bool) -> None:
        async with client(sender.fcm, http2=http2) as http:
            sender.http = http
            sender.fcm.script(Reset(), on="connect")
            with pytest.raises(httpx.TransportError):
                await sender.send()
            assert (await sender.send()).status_code == 200

    @pytest.mark.parametrize("http2", [True, False])
    async def test_a_new_connection_can_be_left_without_any_answer(self, sender: Sender, http2: bool) -> None:
        async with client(sender.fcm, http2=http2) as http:
            sender.http = http
            sender.fcm.script(Hang(), on="connect")
            http.timeout = httpx.Timeout(30, read=0.2)
            with pytest.raises(httpx.ReadTimeout):
                await sender.send()
            http.timeout = httpx.Timeout(30)
            assert (await sender.send()).status_code == 200

    async def test_a_connection_that_was_kept_can_be_dead(self, any_sender: Sender) -> None:
        any_sender.fcm.end_connections("silence")
        any_sender.http.timeout = httpx.Timeout(30, read=0.2)
        with pytest.raises(httpx.ReadTimeout):
            await any_sender.send()
        assert [request.endpoint for request in any_sender.fcm.requests] == ["token"]

    async def test_a_reset_in_the_middle_of_requests_ends_them_all(self, sender: Sender) -> None:
        sender.fcm.script(Hang(accepted=True), times=3)
        sends = [asyncio.create_task(sender.send()) for _ in range(3)]
        await sender.fcm.until(lambda: len(sender.fcm.phones[PIXEL].arrived) == 3)
        sender.fcm.end_connections("reset")
        results = await asyncio.gather(*sends, return_exceptions=True)
        assert all(isinstance(result, LOST) for result in results)
        assert (await sender.send()).status_code == 200


class TestTokenEndpoint:
    async def test_the_token_endpoint_can_reject_a_grant(self, any_sender: Sender) -> None:
        any_sender.fcm.script(OAuthError(error="invalid_grant"), on="token")
        any_sender.fcm.script(OAuthError(error="internal_failure", status=500), on="token")
        responses = [await any_sender.log_in() for _ in range(3)]
        assert [response.status_code for response in responses] == [400, 500, 200]
        assert [response.json().get("error") for response in responses] == ["invalid_grant", "internal_failure", None]

    async def test_the_token_endpoint_can_hang(self, any_sender: Sender) -> None:
        any_sender.fcm.script(Hang(), on="token")
        any_sender.http.timeout = httpx.Timeout(30, read=0.2)
        with pytest.raises(httpx.ReadTimeout):
            await any_sender.log_in()


@pytest.mark.parametrize(
    ("fault", "on", "token"),
    [
        (FcmError(error="INTERNAL"), "token", None),
        (OAuthError(), "send", None),
        (Slow(seconds=1), "connect", None),
        (Hang(), "connect", PIXEL),
    ],
)
def test_a_fault_that_cannot_strike_there_is_not_scripted(fault: AnyFault, on: Endpoint, token: str | None) -> None:
    with pytest.raises(ValueError, match=f"{on}"):
        FcmService(lambda: datetime.now(UTC)).script(fault, on=on, token=token)
