"""The invariants of the system, judged on the history of a run: what must hold whatever went wrong meanwhile."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from local.chaos.history import Claim, History, Job, Message, Registration

# A commit is seen by others some moments after its time.
MARGIN = timedelta(milliseconds=100)

# A worker that was overtaken may still send until its time is over: the timeout of SendChatPush.
WORKER_LIVES = timedelta(seconds=20)

# Named by Expo, after it was asked as often as is worth it: the phone is not at fault, and the message may be lost.
GIVEN_UP = {"MessageRateExceeded", "ExpoError", "ProviderError", "MessageTooBig"}


@dataclass(frozen=True)
class Violation:
    """One case in which an invariant did not hold."""

    message_id: UUID | None
    what: str


@dataclass
class Verdict:
    """One invariant: how many cases were looked at, and those in which it did not hold."""

    invariant: str
    checked: int = 0
    violations: list[Violation] = field(default_factory=list)


type _Case = Violation | None
type _Invariant = Callable[[History], Iterator[_Case]]


def judge(history: History) -> list[Verdict]:
    """Every invariant, judged."""
    verdicts = []
    for name, invariant in INVARIANTS.items():
        cases = list(invariant(history))
        verdicts.append(Verdict(name, len(cases), [case for case in cases if case]))
    return verdicts


def _stored_once(history: History) -> Iterator[_Case]:
    stored = Counter(message.client_msg_id for message in history.messages.values())
    for client_msg_id in sorted(history.written):
        times = stored[client_msg_id]
        yield None if times == 1 else Violation(None, f"client_msg_id {client_msg_id} is stored {times} times")


def _never_lost(history: History) -> Iterator[_Case]:
    """Each phone that was registered and installed all the time from before the message until its job was done."""
    registrations = defaultdict(list)
    for registration in history.registrations:
        registrations[registration.user_id].append(registration)
    screens = {screen.push_token: screen for screen in history.screens}
    for message, job in _messages_and_jobs(history):
        # An app's own function may fail for an odd row, but not for what people write.
        if job.reason == "unreadable" and message.client_msg_id not in history.written:
            continue
        if job.reason == "expired" or any(_before(at, job.done_at) for at in (message.read_at, message.deleted_at)):
            continue
        for registration in registrations[job.recipient_id]:
            screen = screens.get(registration.push_token)  # None: the token was made up
            if screen is None or not screen.installed or not _lasted(registration, message, job):
                continue
            delivery = history.deliveries.get((message.id, registration.device_id))
            if delivery and delivery.status == "failed" and delivery.error in GIVEN_UP:
                continue
            lost = message.id not in screen.shown
            yield Violation(message.id, f"not on the phone {registration.push_token}") if lost else None


def _lasted(registration: Registration, message: Message, job: Job) -> bool:
    return (
        registration.since <= message.stored_at
        and job.done_at is not None
        and not _before(registration.until, job.done_at)
    )


def _before(at: datetime | None, other: datetime | None) -> bool:
    return at is not None and (other is None or at <= other)


def _never_twice(history: History) -> Iterator[_Case]:
    for screen in history.screens:
        for message_id, times in Counter(screen.shown).items():
            twice = f"{times} times on the phone {screen.push_token}"
            yield Violation(message_id, twice) if times > 1 else None


def _never_to_the_sender(history: History) -> Iterator[_Case]:
    yield from _never_to(history, lambda message, owner: owner == message.sender_id, "is the sender's")


def _never_to_another_account(history: History) -> Iterator[_Case]:
    yield from _never_to(history, lambda message, owner: owner != message.sender_id, "is of another account")


def _never_to(history: History, whose: Callable[[Message, UUID | None], bool], is_whose: str) -> Iterator[_Case]:
    """A push may reach a phone only if the phone was the recipient's at a claim that can have sent it.

    So one that was claimed before the phone changed hands may still arrive while its worker lives, and no other.
    """
    registrations = defaultdict(list)
    for registration in history.registrations:
        registrations[registration.push_token].append(registration)
    for arrival in history.arrivals:
        message, job = history.messages[arrival.message_id], history.jobs[arrival.message_id]
        owners: set[UUID | None] = {
            registration.user_id
            for claim in _can_have_sent(job, arrival.at)
            for registration in registrations[arrival.push_token]
            if registration.since <= claim.committed_at and not _before(registration.until, claim.at - MARGIN)
        }
        wrong = job.recipient_id not in owners and any(whose(message, owner) for owner in owners or {None})
        yield Violation(message.id, f"to {arrival.push_token}, which {is_whose}") if wrong else None


def _can_have_sent(job: Job, at: datetime) -> list[Claim]:
    return [claim for claim in job.claims if claim.at <= at <= claim.at + WORKER_LIVES]


def _never_when_read_or_deleted(history: History) -> Iterator[_Case]:
    for message, job in _messages_and_jobs(history):
        for claim in job.claims:
            late = [
                what
                for what, at in (("read", message.read_at), ("deleted", message.deleted_at))
                if _before(at, claim.at - MARGIN)
            ]
            yield Violation(message.id, f"claimed at {claim.at}, {' and '.join(late)} before") if late else None


def _never_while_looking(history: History) -> Iterator[_Case]:
    """At each claim, unless the presence changed in the same moment."""
    presence = defaultdict(list)
    for change in history.presence:
        presence[change.user_id].append(change)
    for message, job in _messages_and_jobs(history):
        for claim in job.claims:
            known = [change for change in presence[job.recipient_id] if change.at <= claim.committed_at]
            if not known or known[-1].at > claim.at - MARGIN:
                continue
            fresh = claim.at - history.presence_fresh_for < known[-1].updated_at
            looking = known[-1].is_online and known[-1].room_id == message.room_id and fresh
            yield Violation(message.id, f"claimed at {claim.at} while being looked at") if looking else None


def _messages_and_jobs(history: History) -> Iterator[tuple[Message, Job]]:
    for message in history.messages.values():
        if job := history.jobs.get(message.id):
            yield message, job


def _each_has_a_job(history: History) -> Iterator[_Case]:
    for message_id in history.messages:
        yield None if message_id in history.jobs else Violation(message_id, "has no push job")


def _each_job_ends(history: History) -> Iterator[_Case]:
    for job in history.jobs.values():
        ended = job.state == "done" and job.reason != "attempts_exhausted"
        yield None if ended else Violation(job.message_id, f"{job.state}, {job.outcome}: {job.reason}")


def _no_lease_left(history: History) -> Iterator[_Case]:
    for job in history.jobs.values():
        yield Violation(job.message_id, f"leased as {job.lease_id}") if job.lease_id else None


def _each_acceptance_has_a_ticket(history: History) -> Iterator[_Case]:
    for delivery in history.deliveries.values():
        if delivery.status in ("accepted", "handed_over", "receipt_lost"):
            known = delivery.ticket_id is not None or delivery.error == "UnreadableResponse"
            yield None if known else Violation(delivery.message_id, f"{delivery.device_id} accepted without a ticket")


def _each_ticket_has_a_receipt(history: History) -> Iterator[_Case]:
    for delivery in history.deliveries.values():
        if delivery.ticket_id:
            waits = delivery.awaits_receipt or delivery.status == "accepted"
            yield Violation(delivery.message_id, f"no receipt for {delivery.device_id}") if waits else None


def _no_living_device_deactivated(history: History) -> Iterator[_Case]:
    installed = {screen.push_token for screen in history.screens if screen.installed}
    for registration in history.registrations:
        wrong = registration.deactivated and registration.push_token in installed
        yield Violation(None, f"device {registration.device_id} was switched off") if wrong else None


def _no_device_ended_by_another(history: History) -> Iterator[_Case]:
    """Except by a login with its token: that phone belongs to its last login."""
    logins = {(known.push_token, known.user_id, known.since) for known in history.registrations}
    for registration in history.registrations:
        by = registration.ended_by
        if by is None:
            continue
        right = by == registration.user_id or (registration.push_token, by, registration.until) in logins
        yield None if right else Violation(None, f"device {registration.device_id} was ended by {by}")


def _changed_by_its_own_people(history: History) -> Iterator[_Case]:
    """Otherwise a message that somebody else marks as read or deletes would pass for one that need not be pushed."""
    for message, job in _messages_and_jobs(history):
        for what, by, whose in (
            ("read", message.read_by, job.recipient_id),
            ("deleted", message.deleted_by, message.sender_id),
        ):
            yield Violation(message.id, f"{what} by {by}") if by not in (None, whose) else None
    for change in history.presence:
        wrong = change.by not in (None, change.user_id)
        yield Violation(None, f"presence of {change.user_id} is written by {change.by}") if wrong else None


def _devices_within_their_limit(history: History) -> Iterator[_Case]:
    """Counted whenever one becomes active."""
    registrations = defaultdict(list)
    for registration in history.registrations:
        registrations[registration.user_id].append(registration)
    for user_id, own in registrations.items():
        for at in {registration.since for registration in own}:
            active = sum(known.since <= at and not _before(known.until, at) for known in own)
            wrong = active > history.device_limit
            yield Violation(None, f"{user_id} has {active} active devices at {at}") if wrong else None


def _answered_as_a_fault_of_the_caller(history: History) -> Iterator[_Case]:
    """Unless the database or its API was down meanwhile."""
    for answer in history.answers:
        excused = any(
            outage.since - MARGIN <= answer.at and answer.asked_at <= outage.until + MARGIN
            for outage in history.outages
        )
        wrong = answer.status >= 500 and not excused
        yield Violation(None, f"{answer.request} at {answer.asked_at}: {answer.status}") if wrong else None


def _nothing_forbidden_is_stored(history: History) -> Iterator[_Case]:
    for marker, what in history.forbidden.items():
        yield Violation(None, f"{what}: {marker}") if marker in history.stored else None


INVARIANTS: dict[str, _Invariant] = {
    "each message that was written is stored once": _stored_once,
    "each message has a push job": _each_has_a_job,
    "never lost": _never_lost,
    "never twice visible": _never_twice,
    "never to the sender": _never_to_the_sender,
    "never to a wrong or former account": _never_to_another_account,
    "never claimed after it was read or deleted": _never_when_read_or_deleted,
    "never claimed while being looked at": _never_while_looking,
    "each job ends": _each_job_ends,
    "no lease is left": _no_lease_left,
    "each accepted push has a ticket": _each_acceptance_has_a_ticket,
    "each ticket has a receipt": _each_ticket_has_a_receipt,
    "no living device is switched off": _no_living_device_deactivated,
    "no device is ended by another person": _no_device_ended_by_another,
    "no message or presence is changed by another person": _changed_by_its_own_people,
    "nobody has more active devices than the limit": _devices_within_their_limit,
    "nothing is stored of what one may not write": _nothing_forbidden_is_stored,
    "no request of the attacker ends in a server's error": _answered_as_a_fault_of_the_caller,
}
