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
# How far the send slots may be ahead of a sweep, so that new messages never wait long behind a backlog.
SWEEP_WAIT_SECONDS = 1.0


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
    deactivated: int = 0
    held: int = 0  # devices whose tokens are dead by their tickets, and that the circuit breaker left active
    unrecorded: int = 0  # jobs whose result the database could not store; their leases run out
    more_due: bool = False  # The sweep ended before everything was done that was due.
    should_stop_sending: bool = False  # Expo takes nothing at the moment.
    insert_to_accept: list[float] = field(default_factory=list)

    def add(self, push: Push, outcomes: Sequence[Outcome], answered_at: datetime) -> None:
        """Counts and logs what Expo said of one message."""
        statuses = Counter(outcome.status for outcome in outcomes)
        errors = Counter(outcome.error for outcome in outcomes if outcome.error)
        self.deliveries.update(statuses)
        self.errors.update(errors)
        self.failures.update(failure_code(outcome) for outcome in outcomes if outcome.status == "failed")
        self.should_stop_sending |= any(outcome.should_stop_sending for outcome in outcomes)
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
    while ids:  # None, when no record of a batch could be read.
        # Half of the time to wait, half to send.
        claim = database.claim_push_jobs(ids, len(ids), (time_left() - RECORD_RESERVE_SECONDS) / 2)
        _send_and_record(claim, database, expo, time_left, report)
        # What is left is due, and a sweep's.
        report.more_due = bool(claim.left_due)
        ids = claim.left_due if claim.slot and time_left() > 2 * RECORD_RESERVE_SECONDS else []
    return report


def sweep(database: PushDatabase, expo: Expo, time_left: Callable[[], float]) -> Report:
    """Pushes whatever is due; stops when nothing is, when time runs out, or when Expo turns everything away.

    Raises like deliver.
    """
    report = Report(more_due=True)
    while report.more_due and time_left() > 2 * RECORD_RESERVE_SECONDS and not report.should_stop_sending:
        claim = database.claim_push_jobs(None, JOBS_PER_CLAIM, SWEEP_WAIT_SECONDS)
        _send_and_record(claim, database, expo, time_left, report)
        looked_at = len(claim.jobs) + len(claim.finished) + len(claim.deferred) + len(claim.left_due)
        report.more_due = looked_at >= JOBS_PER_CLAIM or bool(claim.left_due)
        if claim.slot is None:
            break  # Other workers have reserved the next second.
    return report


def _send_and_record(
    claim: Claim, database: PushDatabase, expo: Expo, time_left: Callable[[], float], report: Report
) -> None:
    """Sends what was claimed, records it, and adds it to the report. At least one log line for each message."""
    _count_unsent(claim, report)
    if not claim.jobs:
        return
    outcomes = expo.send(
        [
            Notification(device.push_token, fields)
            for push, fields in ((push, payload(push)) for push in claim.jobs)
            for device in push.devices
        ],
        lambda: time_left() - RECORD_RESERVE_SECONDS,
        claim.send_at,
        partial(_reserve_next_slot, database),
    )
    unused = sum(not outcome.attempted for outcome in outcomes)
    answered_at = datetime.now(UTC)
    remaining = iter(outcomes)
    results = []
    for push in claim.jobs:
        of_push = list(islice(remaining, len(push.devices)))
        results.append(_result(push, of_push))
        report.add(push, of_push, answered_at)
    try:
        recorded = database.record_push_results(claim, results, unused)
    except DatabaseUnavailable:
        # Recording is safe to repeat, and saves sending it all again.
        recorded = database.record_push_results(claim, results, unused)
    for message_id in recorded.lost_leases:
        logger.warning("recorded too late: the lease had run out", correlation_id=str(message_id))
    for message_id in recorded.unrecorded:
        logger.error("result not recorded: it is sent again when its lease has run out", correlation_id=str(message_id))
    report.deactivated += recorded.deactivated
    report.held += recorded.held
    report.lost_leases += len(recorded.lost_leases)
    report.unrecorded += len(recorded.unrecorded)


def _count_unsent(claim: Claim, report: Report) -> None:
    for job in claim.finished:
        report.skipped[job.reason] += 1
        logger.info("push not sent", correlation_id=str(job.message_id), outcome=job.outcome, reason=job.reason)
    for message_id in claim.deferred:
        logger.info("push deferred: explain_push gives the reason", correlation_id=str(message_id))
    for message_id in claim.left_due:
        logger.info("push left for the next claim", correlation_id=str(message_id))
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


def _reserve_next_slot(database: PushDatabase, notifications: int) -> float:
    try:
        return database.reserve_send_slot(notifications)
    except (DatabaseUnavailable, DatabaseRefused) as error:
        # Of the same claim, Expo may have taken some already, and that is still to be recorded.
        logger.warning("sent again without a reserved slot", error=str(error))
        return 0.0


def _result(push: Push, outcomes: Sequence[Outcome]) -> PushResult:
    return PushResult(
        message_id=push.message_id,
        deliveries=[
            Delivery(
                device_id=device.device_id,
                push_token=device.push_token,
                status=outcome.status,
                error=outcome.error,
                ticket_id=outcome.ticket_id,
                retry_after_seconds=outcome.retry_after_seconds,
            )
            for device, outcome in zip(push.devices, outcomes, strict=True)
        ],
    )
