"""The invariants of the system, checked on the history of a run. docs/architecture.md#invariants sums them up.

Each check yields one value per case: None, or a violation.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from local.chaos.records import Claim, History, Job, LockScreen, Message, Registration, Screen

# A commit is visible to others some moments after its timestamp.
MARGIN = timedelta(milliseconds=100)

# A worker whose lease expired may still send until its invocation ends: the timeout of SendChatPush, and a moment for
# its last request.
WORKER_TIMEOUT = timedelta(seconds=22)

# A claim decides for so long after its beginning.
CLAIM_TIME = timedelta(seconds=2)

# Expo answered so until no attempt was left. The device stays active, and the message may be lost.
GIVEN_UP = {"MessageRateExceeded", "ExpoError", "ProviderError", "MessageTooBig"}

# Messages that no push shows.
NOT_SHOWN = {"unreadable", "expired", "attempts_exhausted", "muted", "snoozed"}


@dataclass(frozen=True)
class Violation:
    """A case in which an invariant did not hold. `message_id`: None if it is not about a message."""

    message_id: UUID | None
    what: str


@dataclass
class Verdict:
    """The result of one invariant: how many cases were checked, and the violations."""

    invariant: str
    checked: int = 0
    violations: list[Violation] = field(default_factory=list)


type _Case = Violation | None
type _Invariant = Callable[[History], Iterator[_Case]]


def check_invariants(history: History) -> list[Verdict]:
    """Checks every invariant. Returns one verdict each, in the order of INVARIANTS."""
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


def _lock_screens_are_right(history: History) -> Iterator[_Case]:
    """Checks each conversation of each phone that is registered at the end, and never uninstalled."""
    mutes = _grouped(history.mutes, lambda mute: (mute.user_id, mute.room_id))
    for registration, screen, truth in _phones(history):
        shown = _grouped(screen.shown, lambda card: card.room_id)
        for room_id in {*truth.cards, *shown} - truth.unknown:
            expected = truth.cards.get(room_id)
            if expected:
                message = history.messages[truth.newest[room_id]]
                job = history.jobs.get(message.id)
                # A device that registers later gets the conversation with its next message. Of the pushes for an iPhone
                # that is off, only the last one is kept: of the other conversations it shows what it showed before.
                is_late = registration.since > message.stored_at
                # The end of a mute brings nothing back that was there before.
                was_muted = any(mute.at > message.stored_at for mute in mutes[registration.user_id, room_id])
                if is_late or was_muted or not job or job.reason in NOT_SHOWN or screen.was_off:
                    continue
            wrong = shown[room_id] != ([expected] if expected else [])
            what = f"{screen.push_token} shows {shown[room_id]} instead of {expected}"
            yield Violation(truth.newest.get(room_id), what) if wrong else None


def _badges_are_right(history: History) -> Iterator[_Case]:
    """Checks each phone that got a push since it was registered for its user."""
    arrived = _grouped(history.arrivals, lambda arrival: arrival.push_token)
    for registration, screen, truth in _phones(history):
        if truth.badge is not None and any(arrival.at > registration.since for arrival in arrived[screen.push_token]):
            wrong = f"{screen.push_token} has the badge {screen.badge} instead of {truth.badge}"
            yield Violation(None, wrong) if screen.badge != truth.badge else None


def _phones(history: History) -> Iterator[tuple[Registration, Screen, LockScreen]]:
    """The phones with a working app of a user, to which Expo refused nothing for good."""
    failed = {device_id for (_, device_id), sent in history.deliveries.items() if sent.error in GIVEN_UP}
    screens = {screen.push_token: screen for screen in history.screens}
    for registration in history.registrations:
        screen = screens.get(registration.push_token)  # None: no phone has this token
        if not screen or not screen.installed or registration.until or registration.device_id in failed:
            continue
        truth = history.lock_screens.get(registration.user_id)
        if truth and registration.user_id == screen.user_id:
            yield registration, screen, truth


def _before(at: datetime | None, other: datetime | None) -> bool:
    return at is not None and (other is None or at <= other)


def _never_twice(history: History) -> Iterator[_Case]:
    for screen in history.screens:
        for room_id, times in Counter(card.room_id for card in screen.shown).items():
            twice = f"{room_id} {times} times on the phone {screen.push_token}"
            yield Violation(None, twice) if times > 1 else None


def _never_to_the_sender(history: History) -> Iterator[_Case]:
    yield from _never_to(history, lambda message, owner: owner == message.sender_id, "is the sender's")


def _never_to_another_account(history: History) -> Iterator[_Case]:
    yield from _never_to(history, lambda message, owner: owner != message.sender_id, "is of another account")


def _never_to(history: History, whose: Callable[[Message, UUID | None], bool], is_whose: str) -> Iterator[_Case]:
    """A push may reach a phone only if the phone was the recipient's at a claim that can have sent it.

    So a push that was claimed before the phone changed accounts may still arrive until its worker times out.
    """
    registrations = _grouped(history.registrations, lambda registration: registration.push_token)
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
    return [claim for claim in job.claims if claim.at <= at <= claim.at + WORKER_TIMEOUT]


def _never_when_read_or_deleted(history: History) -> Iterator[_Case]:
    for message, job in _messages_and_jobs(history):
        for claim in job.claims:
            late = [
                what
                for what, at in (("read", message.read_at), ("deleted", message.deleted_at))
                if _before(at, claim.at - MARGIN)
            ]
            yield Violation(message.id, f"claimed at {claim.at}, {' and '.join(late)} before") if late else None


def _no_ended_text_later(history: History) -> Iterator[_Case]:
    """A push that was claimed before the edit or deletion may arrive until its worker times out."""
    for arrival in history.arrivals:
        for line in arrival.lines:
            ended_at = history.ended_texts.get(line)
            late = ended_at is not None and arrival.at > ended_at + WORKER_TIMEOUT
            what = f"{arrival.push_token} got a text at {arrival.at} that ended at {ended_at}"
            yield Violation(arrival.message_id, what) if late else None


def _sounds_within_the_limit(history: History) -> Iterator[_Case]:
    """Checks pushes that a provider accepted, by the times of their claims, which their tickets name.

    A push whose answer was lost is repeated with its sound. APNs may get it twice with one apns-id.
    """
    sounds = _grouped(
        (arrival for arrival in history.arrivals if arrival.sounded and arrival.ticket_id in history.claimed_at),
        lambda arrival: (arrival.push_token, arrival.room_id),
    )
    logins = _grouped(history.registrations, lambda registration: registration.push_token)
    for series in sounds.values():
        series.sort(key=lambda arrival: history.claimed_at[arrival.ticket_id])
        for number, sound in enumerate(series):
            earlier = series[max(number - 1, 0)]
            claims = history.claimed_at[earlier.ticket_id], history.claimed_at[sound.ticket_id]
            apart = claims[1] - claims[0]
            # What is read ends the series: the next message sounds.
            is_read = _before(history.messages[earlier.message_id].read_at, sound.at)
            # So does a login, which adds a device: another account saw no earlier notification.
            is_new = any(claims[0] < login.since <= claims[1] for login in logins[sound.push_token])
            is_copy = earlier.ticket_id == sound.ticket_id
            wrong = number and apart < history.sound_interval - CLAIM_TIME and not (is_read or is_new or is_copy)
            what = f"{sound.push_token} sounded again {apart} after {earlier.message_id}"
            yield Violation(sound.message_id, what) if wrong else None


def _never_while_viewing(history: History) -> Iterator[_Case]:
    """Checks each claim, except those in whose moment the presence changed."""
    presence = _grouped(history.presence, lambda change: change.user_id)
    for message, job in _messages_and_jobs(history):
        for claim in job.claims:
            if not claim.is_alert:
                continue
            changes = [change for change in presence[job.recipient_id] if change.at <= claim.committed_at]
            if not changes or changes[-1].at > claim.at - MARGIN:
                continue
            # A claim reads the clock for each job that it plans, so the heartbeat must be fresh until the claim's end.
            fresh = claim.committed_at - history.presence_fresh_for < changes[-1].updated_at
            viewing = changes[-1].is_online and changes[-1].room_id == message.room_id and fresh
            yield Violation(message.id, f"claimed at {claim.at} while the recipient viewed it") if viewing else None


def _never_while_muted(history: History) -> Iterator[_Case]:
    """Checks each claim, except those in whose moment the user muted the conversation or ended that."""
    mutes = _grouped(history.mutes, lambda mute: (mute.user_id, mute.room_id))
    for message, job in _messages_and_jobs(history):
        for claim in job.claims:
            changes = [mute for mute in mutes[job.recipient_id, message.room_id] if mute.at <= claim.committed_at]
            if changes and changes[-1].at > claim.at - MARGIN:
                continue
            is_muted = bool(changes) and changes[-1].is_muted
            what = f"claimed at {claim.at} while the recipient had muted its conversation"
            yield Violation(message.id, what) if is_muted else None


def _grouped[T, K](items: Iterable[T], key: Callable[[T], K]) -> defaultdict[K, list[T]]:
    groups: defaultdict[K, list[T]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def _messages_and_jobs(history: History) -> Iterator[tuple[Message, Job]]:
    for message in history.messages.values():
        if job := history.jobs.get(message.id):
            yield message, job


def _each_is_decided(history: History) -> Iterator[_Case]:
    for message_id in history.messages:
        yield None if message_id in history.jobs else Violation(message_id, "has no decision")


def _each_decision_ends(history: History) -> Iterator[_Case]:
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
            missing = delivery.awaits_receipt or delivery.status == "accepted"
            yield Violation(delivery.message_id, f"no receipt for {delivery.device_id}") if missing else None


def _no_installed_device_deactivated(history: History) -> Iterator[_Case]:
    installed = {screen.push_token for screen in history.screens if screen.installed}
    for registration in history.registrations:
        wrong = registration.deactivated and registration.push_token in installed
        yield Violation(None, f"device {registration.device_id} was deactivated") if wrong else None


def _no_device_ended_by_another(history: History) -> Iterator[_Case]:
    """A login with the same token may end it: a token belongs to its last login."""
    logins = {(login.push_token, login.user_id, login.since) for login in history.registrations}
    for registration in history.registrations:
        by = registration.ended_by
        if by is None:
            continue
        allowed = by == registration.user_id or (registration.push_token, by, registration.until) in logins
        yield None if allowed else Violation(None, f"device {registration.device_id} was ended by {by}")


def _no_change_by_another(history: History) -> Iterator[_Case]:
    """Otherwise another user could suppress a push: the other checks accept that a read message is not pushed."""
    for message, job in _messages_and_jobs(history):
        for what, by, allowed in (
            ("read", message.read_by, job.recipient_id),
            ("deleted", message.deleted_by, message.sender_id),
        ):
            yield Violation(message.id, f"{what} by {by}") if by not in (None, allowed) else None
    for change in history.presence:
        wrong = change.by not in (None, change.user_id)
        yield Violation(None, f"presence of {change.user_id} is written by {change.by}") if wrong else None


def _devices_within_the_limit(history: History) -> Iterator[_Case]:
    """Counts the active devices of a user each time that one becomes active."""
    registrations = _grouped(history.registrations, lambda registration: registration.user_id)
    for user_id, own in registrations.items():
        for at in {registration.since for registration in own}:
            active = sum(other.since <= at and not _before(other.until, at) for other in own)
            wrong = active > history.device_limit
            yield Violation(None, f"{user_id} has {active} active devices at {at}") if wrong else None


def _no_server_error(history: History) -> Iterator[_Case]:
    """Checks each answer to the attacker. An outage of the database or the Data API excuses a server error."""
    for answer in history.answers:
        excused = any(
            outage.since - MARGIN <= answer.at and answer.sent_at <= outage.until + MARGIN for outage in history.outages
        )
        wrong = answer.status >= 500 and not excused
        yield Violation(None, f"{answer.request} at {answer.sent_at}: {answer.status}") if wrong else None


def _nothing_forbidden_is_stored(history: History) -> Iterator[_Case]:
    for marker, what in history.forbidden.items():
        yield Violation(None, f"{what}: {marker}") if marker in history.stored else None


INVARIANTS: dict[str, _Invariant] = {
    "each message that a user wrote is stored exactly once": _stored_once,
    "each message is decided": _each_is_decided,
    "each phone shows exactly the unread conversations of its user": _lock_screens_are_right,
    "the badge of each phone is the number of unread messages of its user": _badges_are_right,
    "no phone shows a conversation twice": _never_twice,
    "no push reaches a device of the sender": _never_to_the_sender,
    "no push reaches a device of an account other than the recipient's": _never_to_another_account,
    "no push shows a message that was read or deleted before its claim": _never_when_read_or_deleted,
    "no text reaches a phone after it was edited or deleted": _no_ended_text_later,
    "no phone sounds for a conversation more often than the interval allows": _sounds_within_the_limit,
    "no message is announced while the recipient views its conversation": _never_while_viewing,
    "no push shows a message of a conversation that its recipient has muted": _never_while_muted,
    "each decision ends before the attempts are exhausted": _each_decision_ends,
    "no push job stays leased": _no_lease_left,
    "each push that its provider accepted has a ticket": _each_acceptance_has_a_ticket,
    "each ticket has a receipt": _each_ticket_has_a_receipt,
    "no device is deactivated while the app is installed": _no_installed_device_deactivated,
    "no user ends the registration of another user, except by a login with its token": _no_device_ended_by_another,
    "no user changes a message or a presence of another user": _no_change_by_another,
    "no user has more active devices than the limit": _devices_within_the_limit,
    "nothing that a user must not write is stored": _nothing_forbidden_is_stored,
    "no request of the attacker is answered with a server error": _no_server_error,
}
