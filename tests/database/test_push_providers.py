"""FCM and APNs in the database: which devices a claim returns, the circuit breaker of each, and dead tokens."""

import json
from datetime import datetime
from typing import Any

import pytest

from tests.database.chat import (
    Chat,
    Row,
    claim,
    decision,
    due_receipts,
    explain,
    is_active,
    record,
    value,
    worker_report,
)

ALL = ("expo", "fcm", "apns")
FCM_TOKEN = "cXyz_9-8:APA91bH" + "x" * 140
APNS_TOKEN = "0a" * 32


async def android(chat: Chat, token: str = FCM_TOKEN) -> Row:
    return await chat.device(platform="android", push_provider="fcm", push_token=token)


async def iphone(chat: Chat, token: str = APNS_TOKEN, **columns: Any) -> Row:
    return await chat.device(platform="ios", push_provider="apns", push_token=token, **columns)


def report(
    provider: str, fault: str | None = None, *, succeeded: bool = False, retry_after: float | None = None
) -> Row:
    return {
        "provider": provider,
        "has_succeeded": succeeded,
        "fault": fault,
        "retry_after_seconds": retry_after,
    }


async def send(chat: Chat, *answers: str, reports: tuple[Row, ...] = ()) -> Row:
    """Sends a new message to the devices. Returns what record_push_results returns."""
    await chat.message()
    claimed = await claim(chat.connection, providers=ALL)
    [job] = claimed["jobs"]
    return await record(chat.connection, claimed, worker_report(job, *answers), reports=reports)


class TestClaims:
    async def test_a_claim_returns_the_provider_and_environment_of_each_device(self, chat: Chat) -> None:
        await android(chat)
        device = await iphone(chat, push_environment="sandbox")
        await chat.device()
        message = await chat.message()
        [job] = (await claim(chat.connection, message, providers=ALL))["jobs"]
        found = {device["provider"]: device for device in job["devices"]}
        assert {name: device["environment"] for name, device in found.items()} == {
            "fcm": "production",
            "apns": "sandbox",
            "expo": "production",
        }
        assert datetime.fromisoformat(found["apns"]["registered_at"]) == device["last_seen_at"]

    async def test_a_send_slot_counts_notifications_of_expo_only(self, chat: Chat) -> None:
        await android(chat)
        await iphone(chat)
        await claim(chat.connection, await chat.message(), providers=ALL)
        reserved = "select coalesce(sum(notifications), 0)::integer from push.rate_limit_reservations"
        assert await value(chat.connection, reserved) == 0
        await chat.device()
        await claim(chat.connection, await chat.message(), providers=ALL)
        await chat.pass_time(60)
        await claim(chat.connection, providers=ALL)
        assert await value(chat.connection, reserved) == 1

    async def test_a_handed_over_push_is_final_and_has_no_receipt(self, chat: Chat) -> None:
        await android(chat)
        await iphone(chat)
        await send(chat, "handed_over", "handed_over")
        message = await value(chat.connection, "select id from chat_messages")
        assert (await chat.job(message))["outcome"] == "accepted"
        await chat.pass_time(3600)
        assert await due_receipts(chat.connection) == []
        explained = await explain(chat.connection, message)
        assert sorted(one["explanation"].split(" at ")[0] for one in explained["deliveries"]) == [
            "Handed over to APNs",
            "Handed over to FCM",
        ]

    async def test_a_device_whose_provider_was_removed_fifteen_minutes_ago_is_not_configured(self, chat: Chat) -> None:
        await android(chat)
        await claim(chat.connection, providers=ALL)
        await chat.pass_time(16 * 60)
        await claim(chat.connection)
        message = await chat.message()
        assert decision(await claim(chat.connection, message)) == "skipped: provider_not_configured"

    async def test_a_worker_with_an_old_secret_leaves_the_device_to_another_worker(self, chat: Chat) -> None:
        await android(chat)
        await claim(chat.connection, providers=ALL)
        message = await chat.message()
        assert decision(await claim(chat.connection, message)) == "deferred"
        await chat.pass_time(61)
        assert len((await claim(chat.connection, message, providers=ALL))["jobs"]) == 1

    async def test_an_outage_of_all_workers_removes_no_provider(self, chat: Chat) -> None:
        await claim(chat.connection, providers=ALL)
        await chat.pass_time(24 * 3600)
        assert await value(chat.connection, "select array(select unnest(push.configured_providers()) order by 1)") == [
            "apns",
            "expo",
            "fcm",
        ]


class TestCircuitBreaker:
    @pytest.mark.parametrize(
        ("fault", "pauses"),
        [("configuration_fault", [60, 120, 240, 300, 300]), ("retry", [1, 2, 4, 8, 16, 32, 60, 60])],
    )
    async def test_a_provider_that_refuses_everything_is_paused_longer_each_time(
        self, chat: Chat, fault: str, pauses: list[float]
    ) -> None:
        await claim(chat.connection, providers=ALL)
        for pause in pauses:
            await note(chat, report("fcm", fault))
            assert await paused_seconds(chat, "fcm") == pytest.approx(pause, abs=0.5)
            await chat.pass_time(pause + 1)

    async def test_workers_that_fail_at_the_same_time_count_as_one_failure(self, chat: Chat) -> None:
        await claim(chat.connection, providers=ALL)
        for _ in range(5):
            await note(chat, report("apns", "configuration_fault"))
        assert await value(chat.connection, "select failures from push.providers where provider = 'apns'") == 1

    async def test_retry_after_is_a_floor_for_the_pause(self, chat: Chat) -> None:
        await claim(chat.connection, providers=ALL)
        await note(chat, report("fcm", "retry", retry_after=90))
        assert await paused_seconds(chat, "fcm") == pytest.approx(90, abs=0.5)

    async def test_a_paused_provider_gets_nothing_and_the_others_go_on(self, chat: Chat) -> None:
        await android(chat)
        await iphone(chat)
        await chat.device()
        await claim(chat.connection, providers=ALL)
        await note(chat, report("fcm", "configuration_fault"))
        message = await chat.message()
        claimed = await claim(chat.connection, message, providers=ALL)
        [job] = claimed["jobs"]
        assert {device["provider"] for device in job["devices"]} == {"apns", "expo"}
        await record(chat.connection, claimed, worker_report(job))
        await chat.pass_time(61)
        [job] = (await claim(chat.connection, message, providers=ALL))["jobs"]
        assert [device["provider"] for device in job["devices"]] == ["fcm"]

    async def test_explain_push_names_a_paused_provider_while_its_message_waits(self, chat: Chat) -> None:
        await android(chat)
        await claim(chat.connection, providers=ALL)
        await note(chat, report("fcm", "configuration_fault"))
        message = await chat.message()
        await claim(chat.connection, message, providers=ALL)
        explained = await explain(chat.connection, message)
        assert " FCM gets nothing until " in explained["explanation"]
        assert "because it refused everything 1 time(s) in a row." in explained["explanation"]
        await note(chat, report("fcm", succeeded=True))
        assert "gets nothing" not in (await explain(chat.connection, message))["explanation"]

    async def test_a_success_ends_the_pause_and_the_count_of_failures(self, chat: Chat) -> None:
        await claim(chat.connection, providers=ALL)
        await note(chat, report("fcm", "configuration_fault"))
        await note(chat, report("fcm", succeeded=True))
        assert await paused_seconds(chat, "fcm") is None
        assert await value(chat.connection, "select failures from push.providers where provider = 'fcm'") == 0

    async def test_a_record_passes_the_reports_of_its_worker(self, chat: Chat) -> None:
        await android(chat)
        await send(chat, "configuration_fault", reports=(report("fcm", "configuration_fault"),))
        assert await paused_seconds(chat, "fcm") == pytest.approx(60, abs=0.5)


class TestDeadTokens:
    @pytest.mark.parametrize(
        ("provider", "error"),
        [("fcm", "UNREGISTERED"), ("fcm", "InvalidToken"), ("apns", "Unregistered"), ("apns", "ExpiredToken")],
    )
    async def test_a_dead_token_deactivates_its_device(self, chat: Chat, provider: str, error: str) -> None:
        device = await (android(chat) if provider == "fcm" else iphone(chat))
        await send(chat, error)
        await finish(chat)
        assert not await is_active(chat, device)

    @pytest.mark.parametrize(
        ("provider", "error"),
        [("fcm", "SENDER_ID_MISMATCH"), ("apns", "BadDeviceToken"), ("apns", "DeviceTokenNotForTopic")],
    )
    @pytest.mark.parametrize("others_succeed", [True, False])
    async def test_a_token_that_our_credentials_may_not_fit_is_dead_only_if_others_are_accepted(
        self, chat: Chat, provider: str, error: str, others_succeed: bool
    ) -> None:
        device = await (android(chat) if provider == "fcm" else iphone(chat))
        await send(chat, error, reports=(report(provider, succeeded=others_succeed),))
        await finish(chat)
        assert await is_active(chat, device) is not others_succeed

    async def test_the_success_of_another_provider_says_nothing_about_a_token(self, chat: Chat) -> None:
        device = await iphone(chat)
        await send(chat, "BadDeviceToken", reports=(report("fcm", succeeded=True),))
        await finish(chat)
        assert await is_active(chat, device)

    @pytest.mark.parametrize("error", ["RegisteredAgain", "PayloadTooLarge", "INVALID_ARGUMENT", "BadPriority"])
    async def test_no_other_error_deactivates_a_device(self, chat: Chat, error: str) -> None:
        device = await iphone(chat)
        await send(chat, error, reports=(report("apns", succeeded=True),))
        await finish(chat)
        assert await is_active(chat, device)


async def note(chat: Chat, reported: Row) -> None:
    await chat.connection.execute("select push.note_provider_report(%s::jsonb)", [json.dumps(reported)])


async def paused_seconds(chat: Chat, provider: str) -> float | None:
    query = "select extract(epoch from paused_until - clock_timestamp())::float from push.providers where provider = %s"
    found: float | None = await value(chat.connection, query, provider)
    return found


async def finish(chat: Chat) -> None:
    """Ends the open run of tickets."""
    await chat.connection.execute("select public.finish_receipt_run(gen_random_uuid())")
