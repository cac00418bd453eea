"""Each invariant of the chaos run holds in a valid history, and detects its violations."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from local.chaos.invariants import INVARIANTS, check_invariants
from local.chaos.records import (
    Answer,
    Arrival,
    Card,
    Claim,
    Delivery,
    History,
    Job,
    LockScreen,
    Message,
    Mute,
    Outage,
    Presence,
    Registration,
    Screen,
)

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
MESSAGE, ROOM, TINA, GUS, OMAR, DEVICE, LEASE = (UUID(int=number) for number in range(7))
GUS_TOKEN, TINA_TOKEN, OTHER_TOKEN = (f"ExponentPushToken[{name}]" for name in ("gus", "tina", "other"))
CARD = Card(ROOM, "Tina", "Hello")


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def valid_history() -> History:
    """Tina wrote to Gus, whose one phone showed it."""
    return History(
        presence_fresh_for=timedelta(seconds=2),
        device_limit=2,
        sound_interval=timedelta(seconds=30),
        written={"c1"},
        messages={MESSAGE: Message(MESSAGE, "c1", ROOM, TINA, at(0))},
        jobs={MESSAGE: Job(MESSAGE, GUS, "done", "accepted", claims=(Claim(at=at(1), committed_at=at(1.1)),))},
        deliveries={(MESSAGE, DEVICE): Delivery(MESSAGE, DEVICE, "handed_over", ticket_id="t1")},
        claimed_at={"t1": at(1)},
        registrations=[
            Registration(DEVICE, GUS, GUS_TOKEN, since=at(-60)),
            Registration(UUID(int=50), TINA, TINA_TOKEN, since=at(-60)),
            Registration(UUID(int=49), GUS, TINA_TOKEN, since=at(-90), until=at(-60), ended_by=TINA),
        ],
        presence=[Presence(GUS, at=at(-10), updated_at=at(-10), is_online=True, room_id=ROOM)],
        mutes=[Mute(GUS, ROOM, at(-20), is_muted=True), Mute(GUS, ROOM, at(-10), is_muted=False)],
        arrivals=[Arrival(GUS_TOKEN, MESSAGE, at(1.5), ROOM, ("Hello",), "t1", sounded=True)],
        screens=[Screen(GUS_TOKEN, GUS, shown=(CARD,), badge=1), Screen(TINA_TOKEN, TINA, shown=(), badge=0)],
        lock_screens={GUS: LockScreen({ROOM: CARD}, {ROOM: MESSAGE}, 1), TINA: LockScreen({}, {}, 0)},
        forbidden={"m1": "a text of 1.2 MB"},
        answers=[Answer("POST /rest/v1/chat_messages", 400, at(1), at(2))],
    )


def violated(history: History) -> set[str]:
    """Returns the invariants that do not hold."""
    return {verdict.invariant for verdict in check_invariants(history) if verdict.violations}


def change_message(history: History, **changes: object) -> None:
    history.messages[MESSAGE] = replace(history.messages[MESSAGE], **changes)  # type: ignore[arg-type]


def change_job(history: History, **changes: object) -> None:
    history.jobs[MESSAGE] = replace(history.jobs[MESSAGE], **changes)  # type: ignore[arg-type]


def change_delivery(history: History, **changes: object) -> None:
    history.deliveries[MESSAGE, DEVICE] = replace(history.deliveries[MESSAGE, DEVICE], **changes)  # type: ignore[arg-type]


def not_stored(history: History) -> None:
    history.written.add("c2")


def stored_twice(history: History) -> None:
    other = UUID(int=60)
    history.messages[other] = replace(history.messages[MESSAGE], id=other, deleted_at=at(0.1))
    history.jobs[other] = Job(other, GUS, "done", "skipped", "deleted")


def without_a_decision(history: History) -> None:
    history.arrivals.clear()
    history.deliveries.clear()
    del history.jobs[MESSAGE]


def change_screen(history: History, **changes: object) -> None:
    history.screens[0] = replace(history.screens[0], **changes)  # type: ignore[arg-type]


def not_shown(history: History) -> None:
    change_screen(history, shown=())


def another_text_shown(history: History) -> None:
    change_screen(history, shown=(replace(CARD, body="before the edit"),))


def shown_although_read(history: History) -> None:
    change_message(history, read_at=at(1.2))
    history.lock_screens[GUS] = LockScreen({}, {}, 1)


def shown_on_one_of_two_phones(history: History) -> None:
    history.registrations.append(Registration(UUID(int=51), GUS, OTHER_TOKEN, since=at(-1)))
    history.screens.append(Screen(OTHER_TOKEN, GUS, shown=(), badge=0))


def wrong_badge(history: History) -> None:
    change_screen(history, badge=2)


def shown_twice(history: History) -> None:
    change_screen(history, user_id=None, shown=(CARD, CARD))


def sent_to_the_sender(history: History) -> None:
    history.arrivals.append(Arrival(TINA_TOKEN, MESSAGE, at(1.5)))


def sent_to_a_former_account(history: History) -> None:
    history.registrations[0] = replace(history.registrations[0], until=at(0.5))
    history.registrations.append(Registration(UUID(int=51), OMAR, GUS_TOKEN, since=at(0.5)))


def sent_long_after_its_claim(history: History) -> None:
    history.arrivals.append(Arrival(GUS_TOKEN, MESSAGE, at(30)))


def claimed_after_reading(history: History) -> None:
    change_message(history, read_at=at(0.5))


def claimed_after_deleting(history: History) -> None:
    change_message(history, deleted_at=at(0.5))


def text_after_its_deletion(history: History) -> None:
    history.ended_texts["Hello"] = at(-30)


def sounded_too_often(history: History) -> None:
    history.claimed_at["t2"] = at(1)
    history.arrivals.append(replace(history.arrivals[0], at=at(1.6), ticket_id="t2"))


def claimed_while_viewing(history: History) -> None:
    history.presence.append(Presence(GUS, at=at(0.5), updated_at=at(0.5), is_online=True, room_id=ROOM))


def claimed_while_muted(history: History) -> None:
    history.mutes.append(Mute(GUS, ROOM, at(-5), is_muted=True))
    # Otherwise it would be wrong that the phone shows the message.
    history.lock_screens[GUS] = LockScreen({}, {}, 0)
    change_screen(history, shown=(), badge=0)


def job_still_pending(history: History) -> None:
    change_job(history, state="pending", outcome=None)


def attempts_exhausted(history: History) -> None:
    change_job(history, reason="attempts_exhausted")


def still_leased(history: History) -> None:
    change_job(history, lease_id=LEASE)


def without_a_ticket(history: History) -> None:
    change_delivery(history, ticket_id=None)


def without_a_receipt(history: History) -> None:
    change_delivery(history, status="accepted", awaits_receipt=True)


def deactivated_while_installed(history: History) -> None:
    history.registrations[0] = replace(history.registrations[0], until=at(5), deactivated=True)


def registration_ended_by_another(history: History) -> None:
    history.registrations[0] = replace(history.registrations[0], until=at(5), ended_by=OMAR)


def registration_ended_by_a_login_with_another_token(history: History) -> None:
    registration_ended_by_another(history)
    history.registrations.append(Registration(UUID(int=51), OMAR, "ExponentPushToken[omar]", since=at(5)))


def forbidden_but_stored(history: History) -> None:
    history.stored.add("m1")


def read_by_another(history: History) -> None:
    change_message(history, read_at=at(3), read_by=OMAR)


def read_by_the_sender(history: History) -> None:
    change_message(history, read_at=at(3), read_by=TINA)


def deleted_by_the_recipient(history: History) -> None:
    change_message(history, deleted_at=at(3), deleted_by=GUS)


def presence_written_by_another(history: History) -> None:
    history.presence[0] = replace(history.presence[0], by=OMAR)


def one_device_too_many(history: History) -> None:
    token_of_no_phone(history)
    history.registrations.append(Registration(UUID(int=52), GUS, "ExponentPushToken[third]", since=at(-1)))


def server_error(history: History) -> None:
    history.answers.append(Answer("POST /api/push/register", 503, at(1), at(2)))


def server_error_after_an_outage(history: History) -> None:
    server_error(history)
    history.outages.append(Outage(at(0), at(0.5)))


VIOLATIONS: list[tuple[Callable[[History], None], str]] = [
    (not_stored, "each message that a user wrote is stored exactly once"),
    (stored_twice, "each message that a user wrote is stored exactly once"),
    (without_a_decision, "each message is decided"),
    (not_shown, "each phone shows exactly the unread conversations of its user"),
    (another_text_shown, "each phone shows exactly the unread conversations of its user"),
    (shown_although_read, "each phone shows exactly the unread conversations of its user"),
    (shown_on_one_of_two_phones, "each phone shows exactly the unread conversations of its user"),
    (wrong_badge, "the badge of each phone is the number of unread messages of its user"),
    (shown_twice, "no phone shows a conversation twice"),
    (sent_to_the_sender, "no push reaches a device of the sender"),
    (sent_to_a_former_account, "no push reaches a device of an account other than the recipient's"),
    (sent_long_after_its_claim, "no push reaches a device of an account other than the recipient's"),
    (claimed_after_reading, "no push shows a message that was read or deleted before its claim"),
    (claimed_after_deleting, "no push shows a message that was read or deleted before its claim"),
    (text_after_its_deletion, "no text reaches a phone after it was edited or deleted"),
    (sounded_too_often, "no phone sounds for a conversation more often than the interval allows"),
    (claimed_while_viewing, "no message is announced while the recipient views its conversation"),
    (claimed_while_muted, "no push shows a message of a conversation that its recipient has muted"),
    (job_still_pending, "each decision ends before the attempts are exhausted"),
    (attempts_exhausted, "each decision ends before the attempts are exhausted"),
    (still_leased, "no push job stays leased"),
    (without_a_ticket, "each push that its provider accepted has a ticket"),
    (without_a_receipt, "each ticket has a receipt"),
    (deactivated_while_installed, "no device is deactivated while the app is installed"),
    (registration_ended_by_another, "no user ends the registration of another user, except by a login with its token"),
    (
        registration_ended_by_a_login_with_another_token,
        "no user ends the registration of another user, except by a login with its token",
    ),
    (read_by_another, "no user changes a message or a presence of another user"),
    (read_by_the_sender, "no user changes a message or a presence of another user"),
    (deleted_by_the_recipient, "no user changes a message or a presence of another user"),
    (presence_written_by_another, "no user changes a message or a presence of another user"),
    (one_device_too_many, "no user has more active devices than the limit"),
    (forbidden_but_stored, "nothing that a user must not write is stored"),
    (server_error, "no request of the attacker is answered with a server error"),
    (server_error_after_an_outage, "no request of the attacker is answered with a server error"),
]


def test_every_invariant_checks_a_valid_history_and_finds_no_violation() -> None:
    verdicts = check_invariants(valid_history())
    assert violated(valid_history()) == set()
    assert all(verdict.checked for verdict in verdicts)


@pytest.mark.parametrize(
    ("violation", "invariant"), VIOLATIONS, ids=[violation.__name__ for violation, _ in VIOLATIONS]
)
def test_each_violation_is_detected_by_its_invariant_alone(
    violation: Callable[[History], None], invariant: str
) -> None:
    history = valid_history()
    violation(history)
    assert violated(history) == {invariant}


def test_every_invariant_has_a_violation_that_it_detects() -> None:
    assert {invariant for _, invariant in VIOLATIONS} == INVARIANTS.keys()


def in_flight_when_the_account_changes(history: History) -> None:
    """The push was claimed before Omar logged in on the phone."""
    history.registrations[0] = replace(history.registrations[0], until=at(1.3))
    history.registrations.append(Registration(UUID(int=51), OMAR, GUS_TOKEN, since=at(1.3)))


def read_while_it_was_sent(history: History) -> None:
    change_message(history, read_at=at(1.2))


def read_before_the_claim(history: History) -> None:
    change_screen(history, shown=(), badge=0)
    history.arrivals.clear()
    history.lock_screens[GUS] = LockScreen({}, {}, 0)
    change_message(history, read_at=at(0.5))
    change_job(history, outcome="skipped", reason="read", claims=())


def registered_after_the_message(history: History) -> None:
    history.registrations.append(Registration(UUID(int=51), GUS, OTHER_TOKEN, since=at(0.5)))
    history.screens.append(Screen(OTHER_TOKEN, GUS, shown=(), badge=0))


def app_uninstalled(history: History) -> None:
    not_shown(history)
    history.screens[0] = replace(history.screens[0], installed=False)
    deactivated_while_installed(history)
    change_delivery(history, status="failed", error="DeviceNotRegistered")


def given_up_by_expo(history: History) -> None:
    not_shown(history)
    change_delivery(history, status="failed", error="MessageRateExceeded")


def sounded_again_after_a_login(history: History) -> None:
    history.claimed_at["t2"] = at(1.5)
    history.arrivals.append(replace(history.arrivals[0], at=at(1.6), ticket_id="t2"))
    history.registrations[0] = replace(history.registrations[0], until=at(1.2))
    history.registrations.append(Registration(UUID(int=51), GUS, GUS_TOKEN, since=at(1.3)))


def repeated_by_the_sender(history: History) -> None:
    history.arrivals.append(replace(history.arrivals[0], at=at(1.6)))


def unreadable_tickets(history: History) -> None:
    change_delivery(history, status="accepted", error="UnreadableResponse", ticket_id=None)


def message_that_cannot_be_composed(history: History) -> None:
    not_shown(history)
    change_job(history, outcome="failed", reason="unreadable")


def muted_for_a_while_after_the_message(history: History) -> None:
    not_shown(history)
    history.mutes += [Mute(GUS, ROOM, at(3), is_muted=True), Mute(GUS, ROOM, at(4), is_muted=False)]


def muted_when_it_was_claimed(history: History) -> None:
    history.mutes.append(Mute(GUS, ROOM, at(1.05), is_muted=True))


def snoozed_without_a_notification(history: History) -> None:
    not_shown(history)
    change_job(history, outcome="skipped", reason="snoozed")


def conversation_with_rows_of_an_older_database(history: History) -> None:
    another_text_shown(history)
    history.lock_screens[GUS] = replace(history.lock_screens[GUS], unknown=frozenset({ROOM}))


def lost_while_the_phone_was_off(history: History) -> None:
    change_screen(history, shown=(), was_off=True)


def replaced_while_the_phone_was_off(history: History) -> None:
    change_screen(history, shown=(replace(CARD, body="Before"),), was_off=True)


def sounded_again_after_reading(history: History) -> None:
    sounded_too_often(history)
    change_message(history, read_at=at(1.55))


def sounded_again_without_an_answer(history: History) -> None:
    sounded_too_often(history)
    del history.claimed_at["t2"]


def update_while_it_is_viewed(history: History) -> None:
    claimed_while_viewing(history)
    change_job(history, claims=(Claim(at(1), at(1.1), is_alert=False),))


def another_user_of_the_app(history: History) -> None:
    change_screen(history, user_id=OMAR, shown=(), badge=0)


def token_of_no_phone(history: History) -> None:
    history.registrations.append(Registration(UUID(int=51), GUS, "ExponentPushToken[no phone]", since=at(-1)))


def one_device_replaced_by_another(history: History) -> None:
    token_of_no_phone(history)
    history.registrations[-1] = replace(history.registrations[-1], until=at(3))
    history.registrations.append(Registration(UUID(int=52), GUS, "ExponentPushToken[third]", since=at(3)))


def read_and_deleted_by_its_own_users(history: History) -> None:
    change_message(history, read_at=at(3), read_by=GUS, deleted_at=at(4), deleted_by=TINA)
    history.presence[0] = replace(history.presence[0], by=GUS)


def server_error_during_an_outage(history: History) -> None:
    server_error(history)
    history.outages.append(Outage(at(0), at(1.5)))


def ended_by_a_login_of_another_user(history: History) -> None:
    history.registrations[0] = replace(history.registrations[0], until=at(5), ended_by=OMAR)
    history.registrations.append(Registration(UUID(int=51), OMAR, GUS_TOKEN, since=at(5)))


def logged_out(history: History) -> None:
    history.registrations[0] = replace(history.registrations[0], until=at(5), ended_by=GUS)


@pytest.mark.parametrize(
    "circumstance",
    [
        message_that_cannot_be_composed,
        muted_for_a_while_after_the_message,
        muted_when_it_was_claimed,
        snoozed_without_a_notification,
        conversation_with_rows_of_an_older_database,
        lost_while_the_phone_was_off,
        replaced_while_the_phone_was_off,
        sounded_again_after_reading,
        sounded_again_without_an_answer,
        update_while_it_is_viewed,
        another_user_of_the_app,
        token_of_no_phone,
        one_device_replaced_by_another,
        read_and_deleted_by_its_own_users,
        server_error_during_an_outage,
        ended_by_a_login_of_another_user,
        logged_out,
        in_flight_when_the_account_changes,
        read_while_it_was_sent,
        read_before_the_claim,
        registered_after_the_message,
        app_uninstalled,
        given_up_by_expo,
        sounded_again_after_a_login,
        repeated_by_the_sender,
        unreadable_tickets,
    ],
)
def test_an_allowed_circumstance_is_no_violation(circumstance: Callable[[History], None]) -> None:
    history = valid_history()
    circumstance(history)
    assert violated(history) == set()
