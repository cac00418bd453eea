"""Sends pushes: for the message ids of webhooks (from SQS), for all due jobs (every minute), or for an operator."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from aws_lambda_powertools.utilities.typing import LambdaContext
from chat_push.backend import Settings, clients
from chat_push.database import DatabaseRefused, DatabaseUnavailable
from chat_push.delivery import Report, deliver, sweep
from chat_push.expo_errors import CONFIGURATION_FAULT
from chat_push.observability import DEVICES_HELD, count, count_by, log_start, logger, metrics, record
from chat_push.secrets import SecretUnavailable
from chat_push.settings import read_settings
from chat_push.wakeup import SweepWakeup, wake_sweep
from pydantic import BaseModel, ConfigDict

# A scheduled sweep continues in further invocations for SWEEP_FOR; then the schedule starts the next one. They begin at
# least SWEEP_STEP apart, because AWS stops a function that invokes itself through SQS after about 16 invocations:
# https://docs.aws.amazon.com/lambda/latest/dg/invocation-recursion.html
SWEEP_FOR = timedelta(seconds=55)
SWEEP_STEP = timedelta(seconds=4)


class WorkerSettings(Settings):
    """The environment of this function."""

    push_queue_url: str


class Request(BaseModel):
    """The event of the schedule (sweep) or of an operator (sweep or message_ids)."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    sweep: bool = False
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
        return _count(deliver(request.message_ids, *clients(settings), time_left))
    report = _sweep(datetime.now(UTC) + SWEEP_FOR, time_left)
    count("SweepCompleted")
    return report


def _sweep(until: datetime, time_left: Callable[[], float]) -> dict[str, Any]:
    """Sweeps. Wakes another sweep if due jobs are left, unless the schedule starts one before that."""
    began = datetime.now(UTC)
    report, is_more_due = sweep(*clients(settings), time_left)
    next_step = max(began + SWEEP_STEP, datetime.now(UTC))
    if is_more_due and next_step < until:
        wake_sweep(settings.push_queue_url, until, round((next_step - datetime.now(UTC)).total_seconds()))
    return _count(report)


def _from_queue(records: list[dict[str, Any]], time_left: Callable[[], float]) -> list[dict[str, str]]:
    """The records to deliver again. A record that is neither a message id nor a wake-up becomes a dead letter."""
    failed, message_of, wakeups = [], {}, []
    for queued in records:
        record("QueueAge", max(0, time.time() * 1000 - int(queued["attributes"]["SentTimestamp"])))
        try:
            if queued["body"].startswith("{"):
                wakeups.append(SweepWakeup.model_validate_json(queued["body"]))
            else:
                message_of[queued["messageId"]] = UUID(queued["body"])
        except ValueError:
            failed.append(queued["messageId"])
            logger.error("record is neither a message id nor a wake-up", sqs_message_id=queued["messageId"])
    count("MalformedRecord", len(failed))
    try:
        _count(deliver(message_of.values(), *clients(settings), time_left))
        if wakeups and (until := max(wakeup.sweep_until for wakeup in wakeups)) > datetime.now(UTC):
            _sweep(until, time_left)
    except (DatabaseUnavailable, DatabaseRefused, SecretUnavailable) as error:
        # The jobs stay in the database. SQS delivers the records again; the sweep may send them before that.
        for message_id in message_of.values():
            logger.error(
                "push not sent, SQS delivers its record again", correlation_id=str(message_id), error=str(error)
            )
        failed += message_of
    return [{"itemIdentifier": message_id} for message_id in failed]


def _count(report: Report) -> dict[str, Any]:
    count("PushAccepted", report.deliveries["accepted"])
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
    if report.deliveries["configuration_fault"]:
        logger.error(CONFIGURATION_FAULT, errors=dict(report.errors))
    return vars(report)
