"""From a message id to its push: claim, compose, send, record."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from uuid import UUID

from chat_push.database import DatabaseRefused, DatabaseUnavailable, PushDatabase
from chat_push.expo import Expo, Outcome, failure_code
from chat_push.models import Claim, Delivery, Push, PushResult
from chat_push.notification import Notification, payload
from chat_push.observability import logger

JOBS_PER_CLAIM = 100
# What a claim and a record may take at the worst; Expo gets the time that is left.
RECORD_RESERVE_SECONDS = 6.0


@dataclass
class Report:
    """What became of the jobs of one invocation. Latencies are in milliseconds."""

    deliveries: Counter[str] = field(default_factory=Counter)  # by status
    errors: Counter[str] = field(default_factory=Counter)  # of deliveries, by code
    failures: Counter[str] = field(default_factory=Counter)  # deliveries that failed, by known code
    skipped: Counter[str] = field(default_factory=Counter)  # jobs that ended without being sent now, by reason
    deferred: int = 0
    not_due: int = 0
    unknown: int = 0
    expired_leases: int = 0
    lost_leases: int = 0
    switched_off: int = 0
    turned_away: bool = False  # Expo takes nothing at the moment.
    insert_to_accept: list[float] = field(default_factory=list)

    def add(self, push: Push, outcomes: Sequence[Outcome], answered_at: datetime) -> None:
        """Counts and logs what Expo said of one message."""
        statuses = Counter(outcome.status for outcome in outcomes)
        errors = Counter(outcome.error for outcome in outcomes if outcome.error)
        self.deliveries.update(statuses)
        self.errors.update(errors)
        self.failures.update(failure_code(outcome) for outcome in outcomes if outcome.status == "failed")
        self.turned_away = any(outcome.turned_away for outcome in outcomes)
        if statuses["accepted"]:
            self.insert_to_accept.append((answered_at - push.sent_at).total_seconds() * 1000)
        logger.info(
            "push tried",
            correlation_id=str(push.message_id),
            attempt=push.attempt,
            deliveries=dict(statuses),
            errors=dict(errors),
        )


def deliver(message_ids: Iterable[UUID], database: PushDatabase, expo: Expo, time_left: Callable[[], float]) -> Report:
    """Pushes the given messages as far as they are due.

    Raises DatabaseUnavailable or DatabaseRefused; the jobs are then still in the database, or leased for some seconds.
    """
    report = Report()
    ids = list(dict.fromkeys(message_ids))
    if ids:  # None, when no record of a batch could be read.
        _work(database.claim_push_jobs(ids, limit=len(ids)), database, expo, time_left, report)
    return report


def sweep(database: PushDatabase, expo: Expo, time_left: Callable[[], float]) -> Report:
    """Pushes whatever is due, the longest waiting first; stops when nothing is, when time runs out, or when Expo

    turns everything away. Raises like deliver.
    """
    report = Report()
    while time_left() > 2 * RECORD_RESERVE_SECONDS and not report.turned_away:
        claim = database.claim_push_jobs(None, limit=JOBS_PER_CLAIM)
        _work(claim, database, expo, time_left, report)
        if len(claim.jobs) + len(claim.finished) + len(claim.deferred) < JOBS_PER_CLAIM:
            break
    return report


def _work(claim: Claim, database: PushDatabase, expo: Expo, time_left: Callable[[], float], report: Report) -> None:
    """Sends what was claimed, records it, and adds it to the report. At least one log line for each message."""
    for job in claim.finished:
        report.skipped[job.reason] += 1
        logger.info("push not sent", correlation_id=str(job.message_id), outcome=job.outcome, reason=job.reason)
    for message_id in claim.deferred:
        logger.info("push waits: the recipient is looking at the conversation", correlation_id=str(message_id))
    for message_id in claim.not_due:
        logger.info("push not due: done, being sent, or waiting for its time", correlation_id=str(message_id))
    for message_id in claim.unknown:
        logger.warning("no push job: not a message, or its insert was rolled back", correlation_id=str(message_id))
    for message_id in claim.expired_leases:
        logger.warning("claimed again: the last worker never reported", correlation_id=str(message_id))
    report.deferred += len(claim.deferred)
    report.not_due += len(claim.not_due)
    report.unknown += len(claim.unknown)
    report.expired_leases += len(claim.expired_leases)
    if not claim.jobs:
        return
    outcomes = iter(
        expo.send(
            [
                Notification(device.push_token, fields)
                for push, fields in ((push, payload(push)) for push in claim.jobs)
                for device in push.devices
            ],
            lambda: time_left() - RECORD_RESERVE_SECONDS,
            claim.turn_at,
            partial(_next_turn, database),
        )
    )
    answered_at = datetime.now(UTC)
    results = []
    for push in claim.jobs:
        of_push = list(islice(outcomes, len(push.devices)))
        results.append(_result(push, of_push))
        report.add(push, of_push, answered_at)
    try:
        recorded = database.record_push_results(claim, results)
    except DatabaseUnavailable:
        # Recording is safe to repeat, and saves sending it all again.
        recorded = database.record_push_results(claim, results)
    for message_id in recorded.lost_leases:
        logger.warning("recorded too late: the lease had run out", correlation_id=str(message_id))
    report.switched_off += recorded.switched_off
    report.lost_leases += len(recorded.lost_leases)


def _next_turn(database: PushDatabase, notifications: int) -> float:
    try:
        return database.take_push_turn(notifications)
    except (DatabaseUnavailable, DatabaseRefused) as error:
        # Of the same claim, Expo may have taken some already, and that is still to be recorded.
        logger.warning("sent again out of turn", error=str(error))
        return 0.0


def _result(push: Push, outcomes: Sequence[Outcome]) -> PushResult:
    deliveries = [
        Delivery(
            device_id=device.device_id,
            push_token=device.push_token,
            status=outcome.status,
            error=outcome.error,
            ticket_id=outcome.ticket_id,
        )
        for device, outcome in zip(push.devices, outcomes, strict=True)
        # A fault of the configuration says nothing of a device.
        if outcome.status not in ("configuration_fault", "handed_over")
    ]
    return PushResult(
        message_id=push.message_id,
        deliveries=deliveries,
        retry_after_seconds=max((outcome.retry_after_seconds or 0.0 for outcome in outcomes), default=None),
        configuration_fault=len(deliveries) < len(outcomes),
    )
