"""What a sender sees of each scripted fault, and what reaches the phones."""

import asyncio

import pytest
from pydantic import ValidationError

from local.providers.apns.faults import DeadSocket, Fault, GoAway, Rejection, Reset, Slow, StreamReset
from local.providers.apns.protocol import STATUSES
from local.providers.apns.service import apns_service
from local.providers.apns.state import ApnsService
from tests.local.providers.apns.sending import (
    IPHONE,
    OTHER_IPHONE,
    STRANGER,
    Clock,
    Connection,
    Request,
    connected,
)

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])


class TestRejections:
    @pytest.mark.parametrize(("reason", "status"), STATUSES.items())
    async def test_each_reason_has_its_status_strikes_once_and_delivers_nothing(
        self, apns: ApnsService, connection: Connection, reason: str, status: int
    ) -> None:
        apns.script(Rejection(reason=reason))
        answer = await connection.send()
        assert (answer.status, answer.reason) == (status, reason)
        assert ("timestamp" in answer.json) == (status == 410)
        assert apns.phones[IPHONE].arrived == []
        async with connected(apns) as other:
            assert (await other.send()).status == 200

    async def test_a_reason_that_apple_does_not_document_needs_a_status(
        self, apns: ApnsService, connection: Connection
    ) -> None:
        apns.script(Rejection(reason="NewReason", status=418))
        answer = await connection.send()
        assert (answer.status, answer.reason) == (418, "NewReason")
        with pytest.raises(ValidationError, match="status"):
            Rejection(reason="NewReason")

    async def test_the_time_of_a_410_is_a_choice(self, apns: ApnsService, connection: Connection, clock: Clock) -> None:
        removed = clock.now
        clock.advance(days=3)
        connection.renew_provider_token()
        apns.script(Rejection(reason="Unregistered", timestamp=removed))
        assert (await connection.send()).json["timestamp"] == int(removed.timestamp() * 1000)

    async def test_retry_after_is_a_choice(self, apns: ApnsService, connection: Connection) -> None:
        apns.script(Rejection(reason="TooManyRequests", retry_after=7))
        assert (await connection.send()).headers["retry-after"] == "7"

    async def test_a_script_strikes_so_many_requests_or_those_of_one_device(
        self, apns: ApnsService, connection: Connection
    ) -> None:
        apns.script(Rejection(reason="ServiceUnavailable"), times=2, token=OTHER_IPHONE)
        statuses = [
            (await connection.send(token)).status for token in (IPHONE, OTHER_IPHONE, OTHER_IPHONE, OTHER_IPHONE)
        ]
        assert statuses == [200, 503, 503, 200]
        assert [request.fault for request in apns.requests] == [None, "rejection", "rejection", None]

    async def test_scripts_strike_in_their_order_and_only_valid_requests(
        self, apns: ApnsService, connection: Connection
    ) -> None:
        apns.script(Rejection(reason="InternalServerError"))
        apns.script(Rejection(reason="ServiceUnavailable"))
        statuses = [(await connection.send(token)).status for token in (STRANGER, IPHONE, IPHONE, IPHONE)]
        assert statuses == [400, 500, 503, 200]

    async def test_a_rejection_can_lower_the_limit_of_streams_until_the_next_success(
        self, apns: ApnsService, connection: Connection
    ) -> None:
        apns.script(Rejection(reason="BadDeviceToken", stream_limit=1), token=OTHER_IPHONE)
        for token in (IPHONE, OTHER_IPHONE, STRANGER):
            await connection.send(token)
        assert connection.stream_limits == [1, 1000, 1]
        await connection.send(IPHONE)
        assert connection.stream_limits == [1, 1000, 1, 1000]

    @pytest.mark.parametrize("reason", ["IdleTimeout", "Shutdown"])
    async def test_the_connection_closes_after_idle_timeout_and_shutdown(
        self, apns: ApnsService, connection: Connection, reason: str
    ) -> None:
        apns.script(Rejection(reason=reason))
        assert (await connection.send()).reason == reason
        assert await connection.until_go_away() == (1, f'{{"reason": "{reason}"}}'.encode())
        await connection.until_closed()


class TestGoAway:
    async def test_after_nothing_handled_no_stream_is_answered_and_nothing_is_delivered(
        self, apns: ApnsService, connection: Connection
    ) -> None:
        await connection.send(OTHER_IPHONE)
        apns.settings.latency_seconds = 60
        connection.open(Request())  # waits for its answer when GOAWAY comes
        await apns.until(lambda: len(apns.requests) == 2)
        apns.script(GoAway(variant="nothing_handled"))
        connection.open(Request())
        assert await connection.until_go_away() == (0, b'{"reason": "Shutdown"}')
        assert apns.phones[IPHONE].arrived == []
        assert [request.status for request in apns.requests] == [200, None, None]
        async with connected(apns) as other:
            apns.settings.latency_seconds = 0
            assert (await other.send()).status == 200

    async def test_mid_flight_streams_up_to_the_last_one_are_answered_and_newer_ones_are_not(
        self, apns: ApnsService, connection: Connection
    ) -> None:
        await connection.send(OTHER_IPHONE)
        apns.script(Slow(seconds=0.05))
        apns.script(GoAway(variant="mid_flight", reason=None))
        older, last, newer = [connection.open(Request()) for _ in range(3)]
        assert await connection.until_go_away() == (last, b"")
        assert [(await connection.answer(stream)).status for stream in (last, older)] == [200, 200]
        with pytest.raises(ConnectionError):
            await connection.answer(newer)
        assert len(apns.phones[IPHONE].arrived) == 2

    @pytest.mark.parametrize("accepted", [True, False])
    async def test_followed_by_close_nobody_knows_whether_the_request_was_handled(
        self, apns: ApnsService, connection: Connection, accepted: bool
    ) -> None:
        apns.script(GoAway(variant="followed_by_close", accepted=accepted))
        with pytest.raises(ConnectionError):
            await connection.send()
        assert connection.go_away == (1, b'{"reason": "Shutdown"}')
        assert len(apns.phones[IPHONE].arrived) == accepted

    @pytest.mark.parametrize("variant", ["nothing_handled", "mid_flight"])
    def test_whether_a_request_was_accepted_is_no_choice_of_the_other_variants(self, variant: str) -> None:
        with pytest.raises(ValidationError, match="accepted"):
            GoAway.model_validate({"variant": variant, "accepted": True})

    @pytest.mark.parametrize("reason", ["IdleTimeout", "Shutdown"])
    async def test_all_connections_can_be_closed(self, apns: ApnsService, connection: Connection, reason: str) -> None:
        await connection.send()
        apns.close_connections("IdleTimeout" if reason == "IdleTimeout" else "Shutdown")
        assert await connection.until_go_away() == (1, f'{{"reason": "{reason}"}}'.encode())
        await connection.until_closed()
        await apns.until(lambda: not apns.connections)


class TestLostConnections:
    @pytest.mark.parametrize("accepted", [True, False])
    async def test_a_dead_socket_answers_nothing_any_more_and_stays_open(
        self, apns: ApnsService, connection: Connection, accepted: bool
    ) -> None:
        await connection.send(OTHER_IPHONE)
        apns.script(DeadSocket(accepted=accepted))
        waiting = asyncio.create_task(connection.send())
        await apns.until(lambda: apns.requests[-1].fault == "dead_socket")
        connection.open(Request())  # is not read
        async with connected(apns) as other:
            assert (await other.send(OTHER_IPHONE)).status == 200
        assert not waiting.done()
        await apns.until(lambda: len(apns.connections) == 1)
        assert len(apns.phones[IPHONE].arrived) == accepted
        waiting.cancel()

    @pytest.mark.parametrize("accepted", [True, False])
    async def test_a_reset_ends_the_connection(self, apns: ApnsService, connection: Connection, accepted: bool) -> None:
        apns.script(Reset(accepted=accepted))
        with pytest.raises(ConnectionResetError):
            await connection.send()
        assert len(apns.phones[IPHONE].arrived) == accepted

    @pytest.mark.parametrize("accepted", [True, False])
    async def test_a_reset_of_a_stream_leaves_the_connection_usable(
        self, apns: ApnsService, connection: Connection, accepted: bool
    ) -> None:
        apns.script(StreamReset(code="INTERNAL_ERROR", accepted=accepted))
        assert (await connection.send()).reset == 2
        assert len(apns.phones[IPHONE].arrived) == accepted
        assert (await connection.send()).status == 200

    async def test_a_dead_socket_on_connect_reads_no_request(self, apns: ApnsService) -> None:
        apns.script(DeadSocket(), on="connect")
        async with connected(apns) as dead, connected(apns) as other:
            waiting = asyncio.create_task(dead.send())
            assert (await other.send(OTHER_IPHONE)).status == 200
            assert not waiting.done()
            assert [request.token for request in apns.requests] == [OTHER_IPHONE]
            waiting.cancel()

    async def test_a_reset_on_connect_comes_before_any_request(self, apns: ApnsService) -> None:
        apns.script(Reset(), on="connect")
        with pytest.raises(ConnectionError):
            async with connected(apns) as connection:
                await connection.send()
        assert apns.requests == []

    @pytest.mark.parametrize(
        ("fault", "token"), [(Slow(seconds=1), None), (Reset(accepted=True), None), (Reset(), IPHONE)]
    )
    def test_only_dead_sockets_and_resets_strike_a_connection(
        self, apns: ApnsService, fault: Fault, token: str | None
    ) -> None:
        with pytest.raises(ValidationError, match="on connect"):
            apns.script(fault, on="connect", token=token)


class TestSlowAnswers:
    async def test_a_slow_answer_delays_no_other_stream(self, apns: ApnsService, connection: Connection) -> None:
        await connection.send(OTHER_IPHONE)
        apns.script(Slow(seconds=3600), token=IPHONE)
        slow = connection.open(Request())
        assert (await connection.send(OTHER_IPHONE)).status == 200
        assert len(apns.phones[IPHONE].arrived) == 1  # before its answer
        connection.cancel(slow)

    @pytest.mark.parametrize(("fault", "status"), [(Slow(seconds=0), 200), (Slow(seconds=0, accepted=False), 500)])
    async def test_a_slow_answer_says_whether_the_phone_received_the_notification(
        self, apns: ApnsService, connection: Connection, fault: Fault, status: int
    ) -> None:
        apns.script(fault)
        assert (await connection.send()).status == status
        assert len(apns.phones[IPHONE].arrived) == (status == 200)

    async def test_closing_the_fake_apns_ends_open_requests_and_frees_the_ports(self) -> None:
        async with apns_service() as apns:
            apns.install(IPHONE)
            apns.script(Slow(seconds=3600))
            async with connected(apns) as connection:
                connection.open(Request())
                await apns.until(lambda: apns.requests)
        port, sandbox_port = [int(url.rpartition(":")[2]) for url in (apns.url, apns.sandbox_url)]
        async with apns_service(port, sandbox_port) as again:
            assert (again.url, again.sandbox_url) == (apns.url, apns.sandbox_url)
