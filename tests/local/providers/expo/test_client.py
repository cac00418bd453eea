"""Our Expo client against the fake Expo service: after every fault, what the phones show."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from uuid import UUID

import httpx
import pytest
from chat_push.expo import Expo
from chat_push.models import Push
from chat_push.notification import Notification, notifications
from chat_push.outcome import Outcome

from local.processes import free_port
from local.providers.expo.faults import (
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
from local.providers.expo.state import ExpoService
from tests.http_fakes import push
from tests.local.providers.expo.sending import FOREIGN, IPHONE, PIXEL, STRANGER, Clock

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])

[SENT] = notifications([Push.model_validate(push(1, [IPHONE]))], datetime.now(UTC))
FIELDS = dict(SENT.payload)
MESSAGE_ID = FIELDS["data"]["messageId"]


def statuses(outcomes: list[Outcome]) -> list[str]:
    return [outcome.status for outcome in outcomes]


type Send = Callable[..., Awaitable[list[Outcome]]]


@pytest.fixture
def connections() -> Iterator[httpx.HTTPTransport]:
    """The client's usual connections. This fixture closes them; a function never does."""
    with httpx.HTTPTransport(retries=1) as transport:
        yield transport


@pytest.fixture
def send(expo: ExpoService, connections: httpx.HTTPTransport) -> Send:
    """Sends to these tokens, with so many seconds left, and pauses that take no time."""

    async def send(
        *tokens: str, seconds: float = 60, access_token: str | None = None, **fields: object
    ) -> list[Outcome]:
        client = Expo(expo.url, access_token, connections, pause=lambda seconds: None)
        notifications = [Notification(token, {**FIELDS, **fields}) for token in tokens]
        return await asyncio.to_thread(client.send, notifications, lambda: seconds)

    return send


# Fault, how often it strikes, the outcome, the requests that were made, and whether the phones got it.
FAULTS: dict[str, tuple[Fault, int, str, int, bool]] = {
    "429 once": (HttpError(status=429), 1, "accepted", 2, True),
    "429 without a body, once": (HttpError(status=429, body="empty"), 1, "accepted", 2, True),
    "429 for long": (HttpError(status=429), 3, "retry", 3, False),
    "429 with a long Retry-After": (HttpError(status=429, retry_after=50), 1, "retry", 1, False),
    "400": (HttpError(status=400), 1, "failed", 1, False),
    "401": (HttpError(status=401), 1, "configuration_fault", 1, False),
    "403": (HttpError(status=403), 1, "configuration_fault", 1, False),
    "404": (HttpError(status=404, body="html"), 1, "configuration_fault", 1, False),
    "500": (HttpError(status=500), 1, "maybe_sent", 1, False),
    "502 of a gateway": (HttpError(status=502, body="html"), 1, "maybe_sent", 1, False),
    "503 without a body": (HttpError(status=503, body="empty"), 1, "maybe_sent", 1, False),
    "504 that hides a delivery": (HttpError(status=504, body="html", accepted=True), 1, "maybe_sent", 1, True),
    "reset": (Reset(), 1, "maybe_sent", 1, False),
    "reset that hides a delivery": (Reset(accepted=True), 1, "maybe_sent", 1, True),
    "hang": (Hang(seconds=60), 1, "maybe_sent", 1, False),
    "hang that hides a delivery": (Hang(seconds=60, accepted=True), 1, "maybe_sent", 1, True),
    "truncated JSON": (OddAnswer(body="truncated"), 1, "accepted", 1, True),
    "null": (OddAnswer(body="null"), 1, "accepted", 1, True),
    "no data": (OddAnswer(body="no_data"), 1, "accepted", 1, True),
    "errors in a 200": (OddAnswer(body="errors"), 1, "maybe_sent", 1, True),
    "no ticket": (TicketCount(tickets=0), 1, "accepted", 1, True),
    "a ticket too many": (TicketCount(tickets=2), 1, "accepted", 1, True),
    "conflict in a single project": (ProjectConflict(projects={"@a/b": [IPHONE]}), 1, "configuration_fault", 1, False),
    "dead token": (TicketError(error="DeviceNotRegistered"), 1, "failed", 1, False),
    "too many to one device": (TicketError(error="MessageRateExceeded"), 1, "retry", 1, False),
    "no credentials": (TicketError(error="InvalidCredentials"), 1, "configuration_fault", 1, False),
    "error ticket with an id": (TicketError(error="ExpoError", id="019b"), 1, "retry", 1, False),
    "an error that only the receipt has": (ReceiptError(error="MessageTooBig"), 1, "accepted", 1, False),
}


@pytest.mark.parametrize(("fault", "times", "status", "requests", "arrived"), FAULTS.values(), ids=FAULTS)
async def test_each_fault_of_expo_has_its_outcome_its_number_of_requests_and_its_arrival(
    expo: ExpoService, send: Send, fault: Fault, times: int, status: str, requests: int, arrived: bool
) -> None:
    expo.script(fault, times=times)
    # A hang is longer than the time that is left.
    assert statuses(await send(IPHONE, seconds=2.2 if isinstance(fault, Hang) else 60)) == [status]
    assert len(expo.requests) == requests
    assert len(expo.phones[IPHONE].shown) == arrived


@pytest.mark.parametrize("token", [IPHONE, PIXEL])
@pytest.mark.parametrize(
    "fault", [HttpError(status=504, accepted=True), Reset(accepted=True), OddAnswer(body="errors", accepted=True)]
)
async def test_a_push_that_is_sent_again_is_shown_once(expo: ExpoService, send: Send, fault: Fault, token: str) -> None:
    """The database sends again what may not have been sent."""
    expo.script(fault)
    assert statuses(await send(token)) == ["maybe_sent"]
    assert statuses(await send(token)) == ["accepted"]
    phone = expo.phones[token]
    assert (len(phone.arrived), [arrival.message_id for arrival in phone.shown]) == (2, [MESSAGE_ID])


async def test_each_outcome_has_the_ticket_of_its_phone(expo: ExpoService, send: Send) -> None:
    outcomes = await send(IPHONE, PIXEL)
    assert [outcome.ticket_id for outcome in outcomes] == [
        expo.phones[token].arrived[0].ticket_id for token in (IPHONE, PIXEL)
    ]
    assert UUID(outcomes[0].ticket_id)


async def test_the_phone_receives_the_payload_unchanged(expo: ExpoService, send: Send) -> None:
    await send(PIXEL)
    assert expo.phones[PIXEL].arrived[0].message == FIELDS


async def test_a_gzip_request_is_accepted(expo: ExpoService, send: Send) -> None:
    await send(IPHONE, body="ü" * 200)
    assert expo.requests[0].headers["content-encoding"] == "gzip"
    assert expo.phones[IPHONE].shown[0].message["body"] == "ü" * 200


async def test_dead_and_malformed_tokens_do_not_affect_other_recipients(expo: ExpoService, send: Send) -> None:
    expo.uninstall(PIXEL)
    outcomes = await send(PIXEL, "ExponentPushToken[xd]", STRANGER, IPHONE)
    assert statuses(outcomes) == ["failed", "failed", "failed", "accepted"]
    assert {outcome.error for outcome in outcomes[:3]} == {"DeviceNotRegistered"}
    assert len(expo.phones[IPHONE].shown) == 1


async def test_phones_of_several_projects_each_receive_one_copy(expo: ExpoService, send: Send) -> None:
    assert statuses(await send(IPHONE, FOREIGN, STRANGER, PIXEL)) == [
        "accepted",
        "accepted",
        "failed",
        "accepted",
    ]
    assert [len(expo.phones[token].arrived) for token in (IPHONE, FOREIGN, PIXEL)] == [1, 1, 1]


async def test_a_message_that_expo_rejects_does_not_affect_other_messages(
    expo: ExpoService, connections: httpx.HTTPTransport
) -> None:
    good, bad = Notification(IPHONE, FIELDS), Notification(PIXEL, {**FIELDS, "badge": -1})
    client = Expo(expo.url, transport=connections)
    outcomes = await asyncio.to_thread(client.send, [good] * 50 + [bad] + [good] * 49, lambda: 60.0)
    assert statuses(outcomes) == ["accepted"] * 50 + ["failed"] + ["accepted"] * 49
    assert len(expo.phones[IPHONE].arrived) == 99


async def test_messages_above_the_rate_limit_are_retried(expo: ExpoService, send: Send, clock: Clock) -> None:
    expo.settings.rate_limit_per_second = 100
    outcomes = await send(*[IPHONE] * 100, *[PIXEL] * 100)
    assert statuses(outcomes) == ["accepted"] * 100 + ["retry"] * 100
    clock.advance(seconds=1)
    assert statuses(await send(PIXEL)) == ["accepted"]


async def test_push_security_requires_the_access_token(expo: ExpoService, send: Send) -> None:
    expo.settings.access_token = "robot"
    assert statuses(await send(IPHONE, access_token="robot")) == ["accepted"]
    for wrong in (None, "stranger"):
        assert statuses(await send(IPHONE, access_token=wrong)) == ["configuration_fault"]
    assert len(expo.phones[IPHONE].arrived) == 1


async def test_a_refused_connection_is_retried(connections: httpx.HTTPTransport) -> None:
    client = Expo(f"http://127.0.0.1:{free_port()}", None, connections, pause=lambda seconds: None)
    [outcome] = await asyncio.to_thread(client.send, [Notification(IPHONE, FIELDS)], lambda: 60.0)
    assert (outcome.status, outcome.error) == ("retry", "ConnectError")
