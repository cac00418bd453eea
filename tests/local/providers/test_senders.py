"""Our senders of FCM and APNs against the fake services: what the phones show, and every fault of the fakes."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from chat_push import http2
from chat_push.apns import Apns
from chat_push.delivery import Sender
from chat_push.fcm import Fcm
from chat_push.models import Push
from chat_push.notification import Notification, notifications
from chat_push.outcome import Outcome

from local.providers.apns import faults as apns_faults
from local.providers.apns.protocol import STATUSES
from local.providers.apns.service import apns_service
from local.providers.apns.state import TOPIC, ApnsService
from local.providers.fcm import faults as fcm_faults
from local.providers.fcm.connections import LastStream
from local.providers.fcm.service import fcm_service
from local.providers.fcm.state import FcmService, registration_token
from local.providers.phones import Condition
from tests.http2_fakes import trusted
from tests.http_fakes import push, uuid

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])

PIXEL, BROWSER = registration_token("pixel"), registration_token("browser")
IPHONE, OTHER_IPHONE, DEBUG_IPHONE = "a1" * 32, "a2" * 32, "b1" * 32
ROOM = uuid(7001)

type Send = Callable[..., Awaitable[list[Outcome]]]


def pushes(
    provider: str, platform: str, *tokens: str, environment: str = "production", **fields: Any
) -> list[Notification]:
    given = push(1, tokens, provider=provider, platform=platform, environment=environment, **fields)
    return notifications([Push.model_validate(given)], datetime.now(UTC))


@pytest.fixture
async def fcm() -> AsyncIterator[FcmService]:
    async with fcm_service() as service:
        service.install(PIXEL, "android")
        service.install(BROWSER, "web")
        yield service


@pytest.fixture
async def apns() -> AsyncIterator[ApnsService]:
    async with apns_service() as service:
        service.install(IPHONE)
        service.install(OTHER_IPHONE)
        service.install(DEBUG_IPHONE, "sandbox")
        with trusted(service.authority):
            yield service


@pytest.fixture
async def by_fcm(fcm: FcmService) -> AsyncIterator[Send]:
    """Sends pushes to Android phones, or to another platform."""
    sender = Fcm(json.dumps(fcm.service_account()), fcm.url)

    async def send(*tokens: str, platform: str = "android", seconds: float = 5, **fields: Any) -> list[Outcome]:
        return await _send(sender, pushes("fcm", platform, *tokens, **fields), seconds)

    yield send
    sender.close()


@pytest.fixture
async def by_apns(apns: ApnsService) -> AsyncIterator[Send]:
    """Sends pushes to iPhones."""
    sender = Apns(
        apns.key.private_key,
        apns.key.id,
        apns.key.team_id,
        TOPIC,
        {"production": apns.url, "sandbox": apns.sandbox_url},
    )

    async def send(*tokens: str, seconds: float = 5, **fields: Any) -> list[Outcome]:
        return await _send(sender, pushes("apns", "ios", *tokens, **fields), seconds)

    yield send
    sender.close()


async def _send(sender: Sender, sent: list[Notification], seconds: float) -> list[Outcome]:
    return await asyncio.to_thread(sender.send, sent, lambda: seconds)


def statuses(outcomes: list[Outcome]) -> list[tuple[str, str | None]]:
    return [(outcome.status, outcome.error) for outcome in outcomes]


OK = ("handed_over", None)


class TestQuota:
    async def test_a_used_up_quota_of_fcm_stops_the_batch_and_names_the_wait_for_the_provider(
        self, fcm: FcmService, by_fcm: Send
    ) -> None:
        fcm.configure({"messages_per_minute": 2})
        outcomes = await by_fcm(*[PIXEL] * 5)
        assert statuses(outcomes) == [OK] * 2 + [("retry", "QUOTA_EXCEEDED")] * 3
        assert {(outcome.retry_after_seconds, outcome.should_stop_sending) for outcome in outcomes[2:]} == {(60, True)}
        fcm.pass_time(60)
        assert statuses(await by_fcm(PIXEL)) == [OK]


class TestPhones:
    async def test_an_android_phone_shows_an_alert_replaces_it_and_dismisses_it(
        self, fcm: FcmService, by_fcm: Send
    ) -> None:
        phone = fcm.phones[PIXEL]
        assert statuses(await by_fcm(PIXEL)) == [OK]
        [shown] = phone.shown
        assert (shown.message["title"], shown.message["body"], shown.sounded) == ("Ana", "Hello", True)
        outcomes = await by_fcm(PIXEL, kind="update", sound=False, body="Hello!")
        [shown] = phone.shown
        assert outcomes == [Outcome("handed_over", ticket_id=shown.ticket_id)]
        assert (shown.message["body"], shown.sounded) == ("Hello!", False)
        await by_fcm(PIXEL, kind="dismiss")
        assert phone.shown == []

    async def test_a_browser_shows_an_alert_and_dismisses_it(self, fcm: FcmService, by_fcm: Send) -> None:
        await by_fcm(BROWSER, platform="web")
        [shown] = fcm.phones[BROWSER].shown
        assert (shown.message["title"], shown.message["tag"]) == ("Ana", ROOM)
        await by_fcm(BROWSER, platform="web", kind="dismiss")
        assert fcm.phones[BROWSER].shown == []

    async def test_an_iphone_shows_an_alert_replaces_it_sets_its_badge_and_dismisses_it(
        self, apns: ApnsService, by_apns: Send
    ) -> None:
        phone = apns.phones[IPHONE]
        assert statuses(await by_apns(IPHONE)) == [OK]
        [shown] = phone.shown
        assert (shown.message["title"], shown.sounded, phone.badge) == ("Ana", True, 3)
        await by_apns(IPHONE, kind="update", sound=False, body="Hello!")
        [shown] = phone.shown
        assert (shown.message["body"], shown.sounded) == ("Hello!", False)
        await by_apns(IPHONE, kind="badge", badge=7)
        assert phone.badge == 7
        await by_apns(IPHONE, kind="dismiss", badge=0)
        assert phone.shown == []

    async def test_a_development_build_is_served_by_the_sandbox(self, apns: ApnsService, by_apns: Send) -> None:
        assert statuses(await by_apns(DEBUG_IPHONE, environment="sandbox")) == [OK]
        assert statuses(await by_apns(DEBUG_IPHONE)) == [("failed", "BadDeviceToken")]

    async def test_an_iphone_that_was_off_shows_the_notification_later(self, apns: ApnsService, by_apns: Send) -> None:
        apns.change_phone(IPHONE, Condition(is_on=False))
        assert statuses(await by_apns(IPHONE)) == [OK]
        assert apns.phones[IPHONE].shown == []
        apns.change_phone(IPHONE, Condition(is_on=True))
        assert len(apns.phones[IPHONE].shown) == 1


class TestFcmFaults:
    @pytest.mark.parametrize(
        ("name", "expected"),
        {
            "UNREGISTERED": ("failed", "UNREGISTERED"),
            "NOT_FOUND": ("configuration_fault", "NOT_FOUND"),
            "INVALID_TOKEN": ("failed", "InvalidToken"),
            "INVALID_TOKEN_FIELD": ("failed", "InvalidToken"),
            "INVALID_FIELD": ("failed", "INVALID_ARGUMENT"),
            "INVALID_PAYLOAD": ("failed", "INVALID_ARGUMENT"),
            "TOO_BIG": ("failed", "INVALID_ARGUMENT"),
            "SENDER_ID_MISMATCH": ("failed", "SENDER_ID_MISMATCH"),
            "PERMISSION_DENIED": ("configuration_fault", "PERMISSION_DENIED"),
            "SERVICE_DISABLED": ("configuration_fault", "PERMISSION_DENIED"),
            "THIRD_PARTY_AUTH_ERROR": ("configuration_fault", "THIRD_PARTY_AUTH_ERROR"),
            "APNS_AUTH_ERROR": ("configuration_fault", "APNS_AUTH_ERROR"),
            "UNAUTHENTICATED": OK,  # with the next access token
            "QUOTA_EXCEEDED": ("retry", "QUOTA_EXCEEDED"),
            "INTERNAL": ("retry", "INTERNAL"),
            "UNAVAILABLE": ("retry", "UNAVAILABLE"),
            "UNSPECIFIED_ERROR": ("failed", "UNSPECIFIED_ERROR"),
        }.items(),
    )
    async def test_each_error_has_its_outcome(
        self, fcm: FcmService, by_fcm: Send, name: fcm_faults.ErrorName, expected: tuple[str, str | None]
    ) -> None:
        fcm.script(fcm_faults.FcmError(error=name))
        assert statuses(await by_fcm(PIXEL)) == [expected]

    @pytest.mark.parametrize(
        ("fault", "on", "expected"),
        [
            (fcm_faults.HtmlError(status=502), "send", ("maybe_sent", "Http502")),
            (fcm_faults.Reset(accepted=True), "send", ("maybe_sent", "ConnectionLost")),
            (fcm_faults.Hang(), "send", ("maybe_sent", "ReadTimeout")),
            (fcm_faults.Slow(seconds=0.1), "send", OK),
            # The first connection is that to the token endpoint.
            (fcm_faults.Hang(), "connect", ("retry", "TokenReadTimeout")),
            (fcm_faults.OAuthError(), "token", ("configuration_fault", "invalid_grant")),
            (fcm_faults.HtmlError(status=503), "token", ("retry", "TokenHttp503")),
        ],
        ids=repr,
    )
    async def test_each_fault_has_its_outcome(
        self, fcm: FcmService, by_fcm: Send, fault: Any, on: fcm_faults.Endpoint, expected: tuple[str, str | None]
    ) -> None:
        fcm.script(fault, on=on)
        assert statuses(await by_fcm(PIXEL, seconds=3)) == [expected]

    async def test_a_reset_connection_to_the_token_endpoint_is_a_reason_to_retry(
        self, fcm: FcmService, by_fcm: Send
    ) -> None:
        fcm.script(fcm_faults.Reset(), on="connect")
        [(status, code)] = statuses(await by_fcm(PIXEL))
        # Whether httpx notices it while it writes the body or when it reads the answer is chance.
        assert status == "retry"
        assert code in ("TokenReadError", "TokenRemoteProtocolError")

    @pytest.mark.parametrize(
        ("last_stream", "expected"),
        [
            ("zero", OK),
            ("earlier", OK),
            ("this", OK),
            ("unanswered", ("maybe_sent", "ConnectionLost")),
        ],
    )
    @pytest.mark.parametrize("position", ["first", "later"])
    async def test_goaway_repeats_what_was_not_handled_and_nothing_else(
        self, fcm: FcmService, by_fcm: Send, last_stream: LastStream, expected: tuple[str, str | None], position: str
    ) -> None:
        if position == "later":
            await by_fcm(PIXEL)
        fcm.script(fcm_faults.GoAway(last_stream=last_stream), token=BROWSER)
        assert statuses(await by_fcm(BROWSER, PIXEL)) == [expected, OK]
        assert len(fcm.phones[BROWSER].arrived) == 1, "no copy"

    async def test_an_access_token_that_was_revoked_is_replaced(self, fcm: FcmService, by_fcm: Send) -> None:
        await by_fcm(PIXEL)
        fcm.accounts.revoke_tokens()
        assert statuses(await by_fcm(PIXEL, BROWSER)) == [OK, OK]

    @pytest.mark.parametrize("how", ["reset", "close", "silence"])
    async def test_a_connection_that_died_while_the_function_was_frozen_is_replaced(
        self, fcm: FcmService, by_fcm: Send, how: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(http2, "PING_AFTER_IDLE_SECONDS", 0.0)
        await by_fcm(PIXEL)
        fcm.end_connections(how)
        assert statuses(await by_fcm(PIXEL)) == [OK]


class TestApnsFaults:
    @pytest.mark.parametrize("reason", sorted(STATUSES))
    async def test_each_reason_has_an_outcome_of_our_table(self, apns: ApnsService, by_apns: Send, reason: str) -> None:
        apns.script(apns_faults.Rejection(reason=reason), times=3)
        [outcome] = await by_apns(IPHONE)
        assert outcome.error == reason
        assert apns.phones[IPHONE].shown == []

    @pytest.mark.parametrize(
        ("fault", "expected"),
        [
            (apns_faults.GoAway(variant="nothing_handled"), [OK, OK, OK]),
            (apns_faults.GoAway(variant="mid_flight"), [OK, OK, OK]),
            (apns_faults.StreamReset(), [OK, OK, OK]),
            (apns_faults.StreamReset(code="INTERNAL_ERROR"), [("maybe_sent", "StreamReset"), OK, OK]),
            (apns_faults.Slow(seconds=0.1), [OK, OK, OK]),
            (apns_faults.Reset(accepted=True), [("maybe_sent", "ConnectionLost"), OK, OK]),
        ],
        ids=repr,
    )
    async def test_each_fault_of_the_connection_has_its_outcomes(
        self, apns: ApnsService, by_apns: Send, fault: Any, expected: list[tuple[str, str | None]]
    ) -> None:
        apns.install(token := "a3" * 32)
        apns.script(fault)
        assert statuses(await by_apns(IPHONE, OTHER_IPHONE, token)) == expected

    @pytest.mark.parametrize("on", ["connect", "send"])
    async def test_a_dead_socket_leaves_one_notification_unknown_and_the_others_for_later(
        self, apns: ApnsService, by_apns: Send, on: apns_faults.Endpoint
    ) -> None:
        apns.script(apns_faults.DeadSocket(), on=on)
        outcomes = await by_apns(IPHONE, OTHER_IPHONE, seconds=2)
        assert statuses(outcomes) == [("maybe_sent", "ReadTimeout"), ("retry", "OutOfTime")]
        assert statuses(await by_apns(IPHONE, OTHER_IPHONE)) == [OK, OK]

    async def test_a_connection_that_is_reset_at_once_costs_one_notification(
        self, apns: ApnsService, by_apns: Send
    ) -> None:
        apns.script(apns_faults.Reset(), on="connect")
        assert statuses(await by_apns(IPHONE, OTHER_IPHONE)) == [("maybe_sent", "ConnectionLost"), OK]

    async def test_a_lost_answer_is_unknown_and_a_copy_replaces_the_notification(
        self, apns: ApnsService, by_apns: Send
    ) -> None:
        apns.script(apns_faults.GoAway(variant="followed_by_close", accepted=True))
        assert statuses(await by_apns(IPHONE)) == [("maybe_sent", "ConnectionLost")]
        assert statuses(await by_apns(IPHONE)) == [OK]
        assert len(apns.phones[IPHONE].shown) == 1

    @pytest.mark.parametrize("reason", ["IdleTimeout", "Shutdown"])
    async def test_a_connection_that_apns_closes_is_replaced(
        self, apns: ApnsService, by_apns: Send, reason: Any
    ) -> None:
        await by_apns(IPHONE)
        apns.close_connections(reason)
        assert statuses(await by_apns(IPHONE, OTHER_IPHONE)) == [OK, OK]

    async def test_a_hundred_notifications_use_one_connection_and_one_provider_token(
        self, apns: ApnsService, by_apns: Send
    ) -> None:
        tokens = [f"{number:064x}" for number in range(100)]
        for token in tokens:
            apns.install(token)
        assert statuses(await by_apns(*tokens)) == [OK] * 100
        assert {request.connection for request in apns.requests} == {apns.requests[0].connection}
        assert len({request.provider_token for request in apns.requests}) == 1

    async def test_an_app_that_was_removed_is_reported(self, apns: ApnsService, by_apns: Send) -> None:
        apns.uninstall(IPHONE)
        assert statuses(await by_apns(IPHONE)) == [("failed", "Unregistered")]
