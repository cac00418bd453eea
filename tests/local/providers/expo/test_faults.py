"""The scripted faults of the fake Expo service."""

import asyncio
from datetime import UTC, datetime

import aiohttp
import pytest
from pydantic import JsonValue

from local.providers.expo.faults import (
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
from local.providers.expo.state import ExpoService
from tests.local.providers.expo.sending import IPHONE, PIXEL, STRANGER, Clock, Sender, code, message, reset_by_peer

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])


class TestRequestFaults:
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
    async def test_a_scripted_status_comes_with_the_body_that_expo_gives_it(
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
    async def test_a_fault_can_send_a_body_that_is_not_a_push_answer(
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
    async def test_a_fault_can_send_retry_after_as_seconds_or_as_a_date(
        self,
        expo: ExpoService,
        http: aiohttp.ClientSession,
        retry_after: int | datetime | None,
        text: str | None,
    ) -> None:
        expo.script(HttpError(status=429, retry_after=retry_after))
        async with http.post("/--/api/v2/push/send", json=[message()]) as response:
            assert response.headers.get("Retry-After") == text

    @pytest.mark.parametrize("accepted", [True, False])
    @pytest.mark.parametrize("kind", ["http_error", "odd_answer", "reset", "hang"])
    async def test_a_fault_delivers_the_notification_only_if_it_is_accepted(
        self, expo: ExpoService, sender: Sender, kind: str, accepted: bool
    ) -> None:
        """The sender cannot tell the two apart."""
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

    async def test_a_hang_ends_with_a_reset_connection(self, expo: ExpoService, sender: Sender) -> None:
        expo.script(Hang(seconds=0))
        with reset_by_peer():
            await sender.send([message()])

    @pytest.mark.parametrize(("count", "statuses"), [(0, []), (1, ["ok"]), (3, ["ok", "error", "error"])])
    async def test_a_ticket_count_fault_sends_fewer_or_more_tickets(
        self, expo: ExpoService, sender: Sender, count: int, statuses: list[str]
    ) -> None:
        expo.script(TicketCount(tickets=count))
        tickets = await sender.tickets(message([IPHONE, STRANGER]))
        assert [ticket["status"] for ticket in tickets] == statuses
        assert len(expo.phones[IPHONE].arrived) == 1

    async def test_a_project_conflict_can_name_a_single_project(self, expo: ExpoService, sender: Sender) -> None:
        """A renamed slug; a map with a single group."""
        expo.script(ProjectConflict(projects={"@chat-push/old": [IPHONE]}))
        status, body = await sender.send([message()])
        assert (status, code(body)) == (400, "PUSH_TOO_MANY_EXPERIENCE_IDS")
        assert body["errors"][0]["details"] == {"@chat-push/old": [IPHONE]}


class TestRecipientFaults:
    @pytest.mark.parametrize(
        ("error", "details"),
        [
            ("InvalidCredentials", {}),
            ("MessageRateExceeded", {}),
            ("ExpoError", {"fault": "expo"}),
            ("ProviderError", {"fcm": {"error": "MismatchSenderId"}}),
        ],
    )
    async def test_a_ticket_error_of_a_token_fails_that_recipient_alone(
        self, expo: ExpoService, sender: Sender, error: str, details: dict[str, JsonValue]
    ) -> None:
        expo.script(TicketError(error=error, message="No.", details=details), token=PIXEL)
        good, bad = await sender.tickets(message([IPHONE, PIXEL]))
        assert good["status"] == "ok"
        assert bad == {"status": "error", "message": "No.", "details": {"error": error, **details}}
        assert expo.phones[PIXEL].arrived == []

    async def test_a_receipt_error_of_a_token_fails_that_recipient_alone(
        self, expo: ExpoService, sender: Sender
    ) -> None:
        expo.script(ReceiptError(error="InvalidCredentials", message="No."), token=PIXEL)
        tickets = await sender.tickets(message([IPHONE, PIXEL]))
        assert [ticket["status"] for ticket in tickets] == ["ok", "ok"]
        good, bad = (ticket["id"] for ticket in tickets)
        failed = {"status": "error", "message": "No.", "details": {"error": "InvalidCredentials"}}
        assert (await sender.receipts([good, bad]))[1] == {"data": {good: {"status": "ok"}, bad: failed}}
        assert expo.phones[PIXEL].arrived == []

    async def test_a_ticket_error_can_have_an_id_and_no_details(self, expo: ExpoService, sender: Sender) -> None:
        """A sender must decide by `status`, not by `id`."""
        expo.script(TicketError(error=None, message="No.", id="old"))
        assert await sender.tickets(message()) == [{"status": "error", "message": "No.", "id": "old"}]

    async def test_a_ticket_error_without_a_token_fails_all_recipients_of_the_request(
        self, expo: ExpoService, sender: Sender
    ) -> None:
        expo.script(TicketError(error="ExpoError"))
        tickets = await sender.tickets(message([IPHONE, PIXEL]))
        assert [ticket["status"] for ticket in tickets] == ["error", "error"]

    async def test_two_scripted_errors_of_one_token_strike_one_after_the_other(
        self, expo: ExpoService, sender: Sender
    ) -> None:
        for error in ("MessageRateExceeded", "ExpoError"):
            expo.script(TicketError(error=error), token=IPHONE)
        sends = [(await sender.tickets(message()))[0] for _ in range(3)]
        errors = [ticket.get("details", {}).get("error") for ticket in sends]
        assert errors == ["MessageRateExceeded", "ExpoError", None]


class TestScripts:
    async def test_a_fault_strikes_as_often_as_its_times(self, expo: ExpoService, sender: Sender) -> None:
        expo.script(HttpError(status=503), times=2)
        assert [(await sender.send([message()]))[0] for _ in range(3)] == [503, 503, 200]

    async def test_faults_strike_in_the_order_of_their_scripts(self, expo: ExpoService, sender: Sender) -> None:
        expo.script(HttpError(status=429))
        expo.script(HttpError(status=500))
        assert [(await sender.send([message()]))[0] for _ in range(3)] == [429, 500, 200]

    async def test_a_fault_of_a_token_strikes_only_sends_to_that_token(self, expo: ExpoService, sender: Sender) -> None:
        expo.script(HttpError(status=500), token=PIXEL)
        statuses = [(await sender.send([message(token)]))[0] for token in (IPHONE, PIXEL, PIXEL)]
        assert statuses == [200, 500, 200]

    async def test_a_receipts_fault_of_a_token_strikes_only_receipts_of_that_token(
        self, expo: ExpoService, sender: Sender
    ) -> None:
        other, struck = await sender.tickets(message([IPHONE, PIXEL]))
        expo.script(HttpError(status=500), on="receipts", token=PIXEL)
        assert [(await sender.receipts([ticket["id"]]))[0] for ticket in (other, struck)] == [200, 500]

    async def test_a_rejected_request_uses_no_fault(self, expo: ExpoService, sender: Sender) -> None:
        expo.script(HttpError(status=503))
        assert [(await sender.send(body))[0] for body in ([], [message()])] == [400, 503]

    @pytest.mark.parametrize(
        "fault", [TicketCount(tickets=0), TicketError(error="ExpoError"), ProjectConflict(projects={})]
    )
    def test_a_fault_of_sends_cannot_be_scripted_for_receipts(self, fault: Fault) -> None:
        with pytest.raises(ValueError, match="can only strike a send"):
            ExpoService(Clock()).script(fault, on="receipts")
