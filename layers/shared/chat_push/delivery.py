"""Delivers push jobs: claims them, composes notifications, sends them to their providers, records the outcomes."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol
from uuid import UUID

from chat_push import apns_errors, expo_errors, fcm_errors
from chat_push.database import DatabaseRefused, DatabaseUnavailable, PushDatabase
from chat_push.expo import Expo
from chat_push.models import Claim, Delivery, Provider, ProviderReport, Push, PushResult, Recorded
from chat_push.notification import Notification, notifications
from chat_push.observability import logger
from chat_push.outcome import Outcome, request_outcome

JOBS_PER_CLAIM = 100
# The longest time that a record can take. The providers get the rest.
RECORD_RESERVE_SECONDS = 6.0
# A sweep takes no send slot that begins later than this, so that new messages never wait long behind a backlog.
SWEEP_WAIT_SECONDS = 1.0

# What an operator does about a configuration fault.
CONFIGURATION_FAULT: Mapping[str, str] = {
    "expo": expo_errors.CONFIGURATION_FAULT,
    "fcm": fcm_errors.CONFIGURATION_FAULT,
    "apns": apns_errors.CONFIGURATION_FAULT,
}
_COUNTED_CODES = expo_errors.COUNTED_CODES | fcm_errors.COUNTED_CODES | apns_errors.COUNTED_CODES


class Sender(Protocol):
    """A client of FCM or APNs."""

    def send(self, notifications: Sequence[Notification], time_left: Callable[[], float]) -> list[Outcome]:
        """One outcome for each notification, in order. `time_left` returns the seconds that may still be used.

        It never raises for a response of the provider. Once an outcome says should_stop_sending, it attempts no more.
        """

    def close(self) -> None:
        """Closes the connections, which are otherwise kept for the next send."""


@dataclass(frozen=True)
class Senders:
    """The configured providers. Expo always is. It alone has send slots."""

    expo: Expo
    direct: Mapping[Provider, Sender] = field(default_factory=dict)

    @property
    def providers(self) -> list[Provider]:
        """Their names, as the database knows them."""
        return ["expo", *self.direct]


@dataclass
class Report:
    """The counts of one invocation."""

    deliveries: Counter[str] = field(default_factory=Counter)  # by status
    errors: Counter[str] = field(default_factory=Counter)  # of deliveries, by code
    failures: Counter[str] = field(default_factory=Counter)  # failed deliveries, by counted_code
    skipped: Counter[str] = field(default_factory=Counter)  # messages that are not sent, by reason
    deferred: int = 0
    left_due: int = 0  # messages that deliver leaves to a sweep
    not_due: int = 0
    unknown: int = 0
    expired_leases: int = 0
    lost_leases: int = 0
    deactivated: int = 0  # devices
    held: int = 0  # devices with a dead token that the circuit breaker keeps active
    unrecorded: int = 0  # jobs whose result the database could not store
    accepted: Counter[str] = field(default_factory=Counter)  # deliveries, by provider
    not_accepted: Counter[str] = field(default_factory=Counter)  # retry, maybe_sent or failed, by provider
    faults: dict[Provider, Counter[str]] = field(default_factory=dict)  # configuration faults, by provider and code
    later: bool = False  # whether jobs are left that become due within a minute
    insert_to_accept: list[float] = field(default_factory=list)  # milliseconds, of each accepted alert

    @property
    def failed_attempts(self) -> int:
        """Deliveries that are sent again, without those that wait for an operator."""
        return self.deliveries["retry"] + self.deliveries["maybe_sent"]

    @property
    def has_jobs_left(self) -> bool:
        """Whether the invocation leaves jobs that may be due soon."""
        return bool(self.failed_attempts or self.deferred or self.left_due or self.later)

    def add_claim(self, claim: Claim) -> None:
        """Counts the jobs of a claim that are not sent."""
        self.skipped.update(message.reason for message in claim.finished if message.reason)
        self.deferred += len(claim.deferred)
        self.not_due += len(claim.not_due)
        self.unknown += len(claim.unknown)
        self.expired_leases += len(claim.expired_leases)
        self.later |= claim.later

    def add_outcomes(self, push: Push, outcomes: Sequence[Outcome], answered_at: datetime) -> None:
        """Counts the outcomes of one job, in the order of its devices."""
        self.deliveries.update(outcome.status for outcome in outcomes)
        self.errors.update(outcome.error for outcome in outcomes if outcome.error)
        for device, outcome in zip(push.devices, outcomes, strict=True):
            match outcome.status:
                case "accepted" | "handed_over":
                    self.accepted[device.provider] += 1
                case "configuration_fault":
                    self.faults.setdefault(device.provider, Counter())[outcome.error or "unknown"] += 1
                case _:
                    self.not_accepted[device.provider] += 1
        self.failures.update(counted_code(outcome) for outcome in outcomes if outcome.status == "failed")
        if push.sent_at and any(
            device.kind == "alert" and outcome.status in ("accepted", "handed_over")
            for device, outcome in zip(push.devices, outcomes, strict=True)
        ):
            self.insert_to_accept.append((answered_at - push.sent_at).total_seconds() * 1000)

    def add_recorded(self, recorded: Recorded) -> None:
        """Counts what the database did with the outcomes."""
        self.deactivated += recorded.deactivated
        self.held += recorded.held
        self.lost_leases += len(recorded.lost_leases)
        self.unrecorded += len(recorded.unrecorded)
        self.later |= recorded.later


def counted_code(outcome: Outcome) -> str:
    """The error code as the metric PushFailed counts it: the code itself if it is known, else `other`."""
    return outcome.error if outcome.error in _COUNTED_CODES else "other"


def deliver(
    message_ids: Iterable[UUID], database: PushDatabase, senders: Senders, time_left: Callable[[], float]
) -> Report:
    """Sends the pushes of these messages that are due. `time_left` returns the seconds that the invocation still has.

    Raises DatabaseUnavailable or DatabaseRefused. The jobs are in the database then, or leased for some seconds.
    """
    report = Report()
    ids = list(dict.fromkeys(message_ids))
    while ids:
        # Half of the time to wait for a send slot, half to send.
        wait_seconds = (time_left() - RECORD_RESERVE_SECONDS) / 2
        claim, send_at = database.claim_push_jobs(ids, len(ids), wait_seconds, senders.providers)
        _send_and_record(claim, send_at, database, senders, time_left, report)
        report.left_due = len(claim.left_due)
        ids = claim.left_due if send_at is not None and time_left() > 2 * RECORD_RESERVE_SECONDS else []
    return report


def sweep(
    database: PushDatabase, senders: Senders, time_left: Callable[[], float], *, is_one_claim: bool = False
) -> tuple[Report, bool]:
    """Sends the pushes of all messages that are due. The second value: due jobs are left that could be sent now.

    It stops when nothing is due, when time runs out, when other workers have reserved the next second, or when Expo
    rejects everything; if `is_one_claim`, after one claim. Raises like deliver.
    """
    report = Report()
    send_at: float | None = 0.0
    more_due = True
    while more_due and send_at is not None and time_left() > 2 * RECORD_RESERVE_SECONDS:
        claim, send_at = database.claim_push_jobs(None, JOBS_PER_CLAIM, SWEEP_WAIT_SECONDS, senders.providers)
        rejected = _send_and_record(claim, send_at, database, senders, time_left, report)
        more_due = not rejected and (claim.examined >= JOBS_PER_CLAIM or claim.more_due)
        if is_one_claim:
            break
    return report, more_due


def _send_and_record(
    claim: Claim,
    send_at: float | None,
    database: PushDatabase,
    senders: Senders,
    time_left: Callable[[], float],
    report: Report,
) -> bool:
    """Sends the claimed jobs, records and counts their outcomes. Returns whether Expo rejects everything now.

    If another provider does, the database pauses it.
    """
    message_of = {push.job_id: push.message_id for push in claim.jobs}
    _log_unsent(claim, message_of)
    report.add_claim(claim)
    if not claim.jobs:
        return False
    sent = notifications(claim.jobs, claim.claimed_at, claim.languages)
    outcomes = _send(sent, send_at or 0.0, database, senders, lambda: time_left() - RECORD_RESERVE_SECONDS)
    answered_at = datetime.now(UTC)
    outcome_of = {
        delivery_id: outcome
        for notification, outcome in zip(sent, outcomes, strict=True)
        for delivery_id in notification.deliveries
    }
    results = []
    for push in claim.jobs:
        of_push = [outcome_of[device.delivery_id] for device in push.devices]
        results.append(_result(push, of_push))
        report.add_outcomes(push, of_push, answered_at)
        _log_attempt(push, of_push)
    of_provider: dict[Provider, list[Outcome]] = {}
    for notification, outcome in zip(sent, outcomes, strict=True):
        of_provider.setdefault(notification.provider, []).append(outcome)
    of_expo = of_provider.pop("expo", [])
    # Merged notifications use less of the slot than was reserved.
    reserved = sum(device.provider == "expo" for push in claim.jobs for device in push.devices)
    unused = reserved - sum(outcome.attempted for outcome in of_expo)
    provider_reports = [_report(provider, given) for provider, given in of_provider.items()]
    recorded = _record(database, claim, results, unused, provider_reports, message_of)
    report.add_recorded(recorded)
    return any(outcome.should_stop_sending for outcome in of_expo)


def _send(
    sent: Sequence[Notification],
    send_at: float,
    database: PushDatabase,
    senders: Senders,
    time_left: Callable[[], float],
) -> list[Outcome]:
    """One outcome for each notification, in order. The providers send at the same time."""
    send: dict[Provider, Callable[..., list[Outcome]]] = {
        provider: sender.send for provider, sender in senders.direct.items()
    }
    send["expo"] = partial(senders.expo.send, send_at=send_at, next_slot=partial(_reserve_next_slot, database))
    parts: dict[Provider, list[int]] = {}
    for index, notification in enumerate(sent):
        parts.setdefault(notification.provider, []).append(index)

    def send_part(provider: Provider) -> list[Outcome]:
        part = [sent[index] for index in parts[provider]]
        try:
            return send[provider](part, time_left)
        except Exception as error:
            if len(parts) == 1:
                raise
            # The outcomes of the other providers must be recorded. The error's text may quote a message.
            logger.error("a sender failed", provider=provider, error=type(error).__name__)
            return [request_outcome("maybe_sent", "SenderFailed")] * len(part)

    outcomes: dict[int, Outcome] = {}
    if len(parts) < 2:
        for provider, indexes in parts.items():
            outcomes.update(zip(indexes, send_part(provider), strict=True))
    else:
        with ThreadPoolExecutor(len(parts)) as threads:
            for indexes, given in zip(parts.values(), threads.map(send_part, parts), strict=True):
                outcomes.update(zip(indexes, given, strict=True))
    return [outcomes[index] for index in range(len(sent))]


def _report(provider: Provider, outcomes: Sequence[Outcome]) -> ProviderReport:
    """What the outcomes say about a provider as a whole."""
    stop = next((outcome for outcome in outcomes if outcome.should_stop_sending), None)
    if stop is None and all(outcome.status == "maybe_sent" for outcome in outcomes):
        stop = request_outcome("retry", "NoAnswers")
    return ProviderReport(
        provider=provider,
        has_succeeded=any(outcome.status == "handed_over" for outcome in outcomes),
        fault=stop and stop.status,
        retry_after_seconds=stop and stop.retry_after_seconds,
    )


def _record(
    database: PushDatabase,
    claim: Claim,
    results: Sequence[PushResult],
    unused: int,
    provider_reports: Sequence[ProviderReport],
    message_of: Mapping[int, UUID | None],
) -> Recorded:
    try:
        recorded = database.record_push_results(claim, results, unused, provider_reports)
    except DatabaseUnavailable:
        # Recording twice is safe. Without a record all of it would be sent again.
        recorded = database.record_push_results(claim, results, unused, provider_reports)
    for job_id in recorded.lost_leases:
        logger.warning("recorded too late: the lease had run out", **_named(job_id, message_of.get(job_id)))
    for job_id in recorded.unrecorded:
        logger.error(
            "result not recorded: it is sent again when its lease has run out", **_named(job_id, message_of.get(job_id))
        )
    return recorded


def _named(job_id: int, message_id: UUID | None) -> dict[str, Any]:
    """The fields that name a job in a log line. A job that is not sent or only dismisses has no message."""
    return {"job_id": job_id, "correlation_id": str(message_id) if message_id else None}


def _log_unsent(claim: Claim, message_of: Mapping[int, UUID | None]) -> None:
    for message in claim.finished:
        # The outcome may be accepted, if an earlier claim sent it to another device.
        correlation_id = str(message.message_id)
        logger.info("no further push", correlation_id=correlation_id, outcome=message.outcome, reason=message.reason)
    for message_id in claim.deferred:
        logger.info("push deferred: explain_push gives the reason", correlation_id=str(message_id))
    for message_id in claim.left_due:
        logger.info("push left for the next claim", correlation_id=str(message_id))
    for message_id in claim.not_due:
        logger.info("push not due: done, being sent, or waiting for its time", correlation_id=str(message_id))
    for message_id in claim.unknown:
        logger.warning("no push job: not a message, or its insert was rolled back", correlation_id=str(message_id))
    for job_id in claim.expired_leases:
        logger.warning("claimed again: the last worker never reported", **_named(job_id, message_of.get(job_id)))


def _log_attempt(push: Push, outcomes: Sequence[Outcome]) -> None:
    logger.info(
        "push attempted",
        **_named(push.job_id, push.message_id),
        attempt=push.attempt,
        kinds=dict(Counter(device.kind for device in push.devices)),
        deliveries=dict(Counter(outcome.status for outcome in outcomes)),
        errors=dict(Counter(outcome.error for outcome in outcomes if outcome.error)),
    )


def _reserve_next_slot(database: PushDatabase, notifications: int) -> float:
    try:
        return database.reserve_send_slot(notifications)
    except (DatabaseUnavailable, DatabaseRefused) as error:
        # Raising would lose the outcomes of this claim, some of which Expo may have accepted.
        logger.warning("sent again without a reserved slot", error=str(error))
        return 0.0


def _result(push: Push, outcomes: Sequence[Outcome]) -> PushResult:
    pairs = zip(push.devices, outcomes, strict=True)
    deliveries = [
        Delivery.model_validate({"delivery_id": device.delivery_id} | vars(outcome)) for device, outcome in pairs
    ]
    return PushResult(job_id=push.job_id, deliveries=deliveries)
