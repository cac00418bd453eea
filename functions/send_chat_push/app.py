"""Sends pushes: for the message ids of webhooks, for all due jobs (by schedule or wake-up), or for an operator."""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from aws_lambda_powertools.utilities.typing import LambdaContext
from chat_push.backend import Settings, clients
from chat_push.database import DatabaseRefused, DatabaseUnavailable
from chat_push.delivery import CONFIGURATION_FAULT, Report, deliver, sweep
from chat_push.observability import DEVICES_HELD, count, count_by, log_start, logger, metrics, record
from chat_push.secrets import SecretUnavailable
from chat_push.settings import read_settings
from chat_push.wakeup import Wakeup, send_wakeups
from pydantic import BaseModel, ConfigDict, Field

# A sweep that leaves due jobs continues in further invocations for SWEEP_FOR. Then the next one of the schedule's
# again_after_seconds takes over. They begin at least SWEEP_STEP apart.
SWEEP_FOR = timedelta(seconds=15)
SWEEP_STEP = timedelta(seconds=4)
# An invocation that leaves jobs wakes sweeps for all that becomes due within LOOK_AHEAD_SECONDS, which is longer than
# SWEEP_FOR: the next sweep of the schedule finds the rest. At most two start in SPACING_SECONDS. While sends fail they
# start less often: each then waits up to 4 s for Expo, and more of them would keep the workers from first attempts.
LOOK_AHEAD_SECONDS = 20.0
SPACING_SECONDS, SPACING_WHILE_SENDS_FAIL_SECONDS = 2.0, 4.0
# AWS stops a function that invokes itself through SQS after about 16 invocations:
# https://docs.aws.amazon.com/lambda/latest/dg/invocation-recursion.html
MAX_HOPS = 12
# The longest time that planning and sending wake-ups can take.
WAKE_RESERVE_SECONDS = 10.0


class WorkerSettings(Settings):
    """The environment of this function."""

    push_queue_url: str


class Request(BaseModel):
    """The event of the schedule (sweep, again_after_seconds) or of an operator (sweep or message_ids)."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    sweep: bool = False
    again_after_seconds: list[Annotated[int, Field(gt=0, le=900)]] = []  # further sweeps; SQS delays 900 s at most
    message_ids: list[UUID] = []


settings = read_settings(WorkerSettings)
log_start()


@metrics.log_metrics
@logger.inject_lambda_context(clear_state=True)
def lambda_handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """For SQS, the records that it must deliver again. For other callers, the counts of the invocation."""

    def time_left() -> float:
        return context.get_remaining_time_in_millis() / 1000

    if "Records" in event:
        return {"batchItemFailures": _from_queue(event["Records"], time_left)}
    request = Request.model_validate(event)
    if not request.sweep:
        report = deliver(request.message_ids, *clients(settings), time_left)
        if report.has_jobs_left:
            _wake_for_due_jobs(report, 0, time_left)
        return _count(report)
    now = datetime.now(UTC)
    # First, so that a sweep that fails does not lose the next ones.
    later = [(delay, now + timedelta(seconds=delay) + SWEEP_FOR) for delay in request.again_after_seconds]
    send_wakeups(settings.push_queue_url, [(delay, Wakeup(hops=1, sweep_until=until)) for delay, until in later])
    report = _sweep(Wakeup(hops=0, sweep_until=now + SWEEP_FOR), time_left)
    count("SweepCompleted")
    return _count(report)


def _sweep(wakeup: Wakeup, time_left: Callable[[], float]) -> Report:
    """Sweeps as the wake-up says. Wakes another sweep if due jobs are left, unless its time is over."""
    began = datetime.now(UTC)
    report, is_more_due = sweep(*clients(settings), time_left, is_one_claim=wakeup.sweep_until is None)
    next_step = max(began + SWEEP_STEP, datetime.now(UTC))
    if is_more_due and wakeup.sweep_until and next_step < wakeup.sweep_until:
        delay = round((next_step - datetime.now(UTC)).total_seconds())
        send_wakeups(settings.push_queue_url, [(delay, wakeup.model_copy(update={"hops": wakeup.hops + 1}))])
    _wake_for_due_jobs(report, wakeup.hops, time_left)
    return report


def _wake_for_due_jobs(report: Report, hops: int, time_left: Callable[[], float]) -> None:
    """Wakes sweeps for the jobs that are due soon. An error is only logged: the schedule's next sweep does the same."""
    if hops >= MAX_HOPS or time_left() < WAKE_RESERVE_SECONDS:
        return
    database, _ = clients(settings)
    spacing = SPACING_WHILE_SENDS_FAIL_SECONDS if report.failed_attempts else SPACING_SECONDS
    try:
        delays = database.plan_wakeups(LOOK_AHEAD_SECONDS, spacing)
    except (DatabaseUnavailable, DatabaseRefused) as error:
        logger.error("no wake-up planned: a later sweep finds the due jobs", error=str(error))
        return
    send_wakeups(settings.push_queue_url, [(delay, Wakeup(hops=hops + 1)) for delay in delays])


def _from_queue(records: list[dict[str, Any]], time_left: Callable[[], float]) -> list[dict[str, str]]:
    """The records to deliver again. A record that is neither a message id nor a wake-up becomes a dead letter."""
    failed, message_of, wakeups = [], {}, []
    for queued in records:
        try:
            if queued["body"].startswith("{"):
                wakeups.append(Wakeup.model_validate_json(queued["body"]))
            else:
                message_of[queued["messageId"]] = UUID(queued["body"])
                record("QueueAge", max(0, time.time() * 1000 - int(queued["attributes"]["SentTimestamp"])))
        except ValueError:
            failed.append(queued["messageId"])
            logger.error("record is neither a message id nor a wake-up", sqs_message_id=queued["messageId"])
    count("MalformedRecord", len(failed))
    try:
        report = deliver(message_of.values(), *clients(settings), time_left)
        _count(report)
        if wakeup := _merged(wakeups):
            _count(_sweep(wakeup, time_left))
        elif report.has_jobs_left:
            _wake_for_due_jobs(report, 0, time_left)
    except (DatabaseUnavailable, DatabaseRefused, SecretUnavailable) as error:
        # The jobs stay in the database. SQS delivers the records again; the sweep may send them before that.
        for message_id in message_of.values():
            logger.error(
                "push not sent, SQS delivers its record again", correlation_id=str(message_id), error=str(error)
            )
        failed += message_of
    return [{"itemIdentifier": message_id} for message_id in failed]


def _merged(wakeups: list[Wakeup]) -> Wakeup | None:
    """One wake-up that does what all of these ask for. None: none of them asks for anything any more."""
    now = datetime.now(UTC)
    valid = [wakeup for wakeup in wakeups if wakeup.sweep_until is None or wakeup.sweep_until > now]
    until = max((wakeup.sweep_until for wakeup in valid if wakeup.sweep_until), default=None)
    return Wakeup(hops=max(wakeup.hops for wakeup in valid), sweep_until=until) if valid else None


def _count(report: Report) -> dict[str, Any]:
    count("PushAccepted", report.deliveries["accepted"] + report.deliveries["handed_over"])
    count("PushMaybeSent", report.deliveries["maybe_sent"])
    count("PushRetry", report.deliveries["retry"])
    count_by("PushFailed", report.failures)
    count_by("PushSkipped", report.skipped)
    count("PushDeferred", report.deferred)
    count("UnknownMessage", report.unknown)
    count("LeaseExpired", report.expired_leases)
    count("LeaseLost", report.lost_leases)
    count("ResultUnrecorded", report.unrecorded)
    count("DeviceDeactivated", report.deactivated)
    count("DeviceDeactivationHeld", report.held)
    if report.held:
        logger.error(DEVICES_HELD, held=report.held)
    for milliseconds in report.insert_to_accept:
        record("InsertToAccept", milliseconds)
    count("ConfigurationFault", report.deliveries["configuration_fault"])
    count_by("DirectAccepted", _direct(report.accepted))
    count_by("DirectNotAccepted", _direct(report.not_accepted))
    count_by("DirectConfigurationFault", _direct({name: codes.total() for name, codes in report.faults.items()}))
    for provider, codes in report.faults.items():
        logger.error(CONFIGURATION_FAULT[provider], provider=provider, errors=dict(codes))
    return vars(report)


def _direct(by_provider: Mapping[str, int]) -> dict[str, int]:
    """Without Expo."""
    return {provider: number for provider, number in by_provider.items() if provider != "expo"}
