"""The judge of the chaos run sees what is wrong: a sound history, and how each invariant breaks in it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from local.chaos.history import (
    Answer,
    Arrival,
    Claim,
    Delivery,
    History,
    Job,
    Message,
    Outage,
    Presence,
    Registration,
    Screen,
)
from local.chaos.invariants import INVARIANTS, judge

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
MESSAGE, ROOM, TINA, GUS, OMAR, DEVICE, LEASE = (UUID(int=number) for number in range(7))
TOKEN, TINAS = "ExponentPushToken[gus]", "ExponentPushToken[tina]"


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def sound() -> History:
    """Tina wrote to Gus, whose one phone showed it."""
    return History(
        presence_fresh_for=timedelta(seconds=2),
        device_limit=2,
        written={"c1"},
        messages={MESSAGE: Message(MESSAGE, "c1", ROOM, TINA, at(0))},
        jobs={
            MESSAGE: Job(
                MESSAGE, GUS, "done", "accepted", done_at=at(2), claims=(Claim(at=at(1), committed_at=at(1.1)),)
            )
        },
        deliveries={(MESSAGE, DEVICE): Delivery(MESSAGE, DEVICE, "handed_over", ticket_id="t1")},
        registrations=[
            Registration(DEVICE, GUS, TOKEN, since=at(-60)),
            Registration(UUID(int=50), TINA, TINAS, since=at(-60)),
            Registration(UUID(int=49), GUS, TINAS, since=at(-90), until=at(-60), ended_by=TINA),
        ],
        presence=[Presence(GUS, at=at(-10), updated_at=at(-10), is_online=True, room_id=ROOM)],
        arrivals=[Arrival(TOKEN, MESSAGE, at(1.5))],
        screens=[Screen(TOKEN, shown=(MESSAGE,)), Screen(TINAS, shown=())],
        forbidden={"m1": "a text of 1.2 MB"},
        answers=[Answer("POST /rest/v1/chat_messages", 400, at(1), at(2))],
    )


def broken(history: History) -> set[str]:
    """The invariants that do not hold."""
    return {verdict.invariant for verdict in judge(history) if verdict.violations}


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
    history.jobs[other] = Job(other, GUS, "done", "skipped", "deleted", done_at=at(1))


def without_job(history: History) -> None:
    history.arrivals.clear()
    history.deliveries.clear()
    del history.jobs[MESSAGE]


def not_shown(history: History) -> None:
    history.arrivals.clear()
    history.screens[0] = Screen(TOKEN, shown=())


def on_one_phone_only(history: History) -> None:
    history.registrations.append(Registration(UUID(int=51), GUS, "ExponentPushToken[other]", since=at(-1)))
    history.screens.append(Screen("ExponentPushToken[other]", shown=()))


def shown_twice(history: History) -> None:
    history.screens[0] = Screen(TOKEN, shown=(MESSAGE, MESSAGE))


def to_the_sender(history: History) -> None:
    history.arrivals.append(Arrival(TINAS, MESSAGE, at(1.5)))


def to_a_former_account(history: History) -> None:
    history.registrations[0] = replace(history.registrations[0], until=at(0.5))
    history.registrations.append(Registration(UUID(int=51), OMAR, TOKEN, since=at(0.5)))


def long_after_its_claim(history: History) -> None:
    history.arrivals.append(Arrival(TOKEN, MESSAGE, at(30)))


def claimed_after_reading(history: History) -> None:
    change_message(history, read_at=at(0.5))


def claimed_after_deleting(history: History) -> None:
    change_message(history, deleted_at=at(0.5))


def claimed_while_looking(history: History) -> None:
    history.presence.append(Presence(GUS, at=at(0.5), updated_at=at(0.5), is_online=True, room_id=ROOM))


def job_waits(history: History) -> None:
    change_job(history, state="pending", outcome=None)


def job_gave_up(history: History) -> None:
    change_job(history, reason="attempts_exhausted")


def still_leased(history: History) -> None:
    change_job(history, lease_id=LEASE)


def no_ticket(history: History) -> None:
    change_delivery(history, ticket_id=None)


def no_receipt(history: History) -> None:
    change_delivery(history, status="accepted", awaits_receipt=True)


def deactivated(history: History) -> None:
    history.registrations[0] = replace(history.registrations[0], until=at(5), deactivated=True)


def taken_without_a_login(history: History) -> None:
    history.registrations[0] = replace(history.registrations[0], until=at(5), ended_by=OMAR)


def removed_by_another(history: History) -> None:
    taken_without_a_login(history)
    history.registrations.append(Registration(UUID(int=51), OMAR, "ExponentPushToken[omar]", since=at(5)))


def forbidden_but_stored(history: History) -> None:
    history.stored.add("m1")


def read_by_another(history: History) -> None:
    change_message(history, read_at=at(3), read_by=OMAR)


def read_by_the_sender(history: History) -> None:
    change_message(history, read_at=at(3), read_by=TINA)


def deleted_by_the_recipient(history: History) -> None:
    change_message(history, deleted_at=at(3), deleted_by=GUS)


def presence_of_another(history: History) -> None:
    history.presence[0] = replace(history.presence[0], by=OMAR)


def one_device_too_many(history: History) -> None:
    made_up_tokens(history)
    history.registrations.append(Registration(UUID(int=52), GUS, "ExponentPushToken[third]", since=at(-1)))


def servers_error(history: History) -> None:
    history.answers.append(Answer("POST /api/push/register", 503, at(1), at(2)))


def servers_error_after_an_outage(history: History) -> None:
    servers_error(history)
    history.outages.append(Outage(at(0), at(0.5)))


def unreadable(history: History) -> None:
    not_shown(history)
    change_job(history, outcome="failed", reason="unreadable")


BREACHES: list[tuple[Callable[[History], None], str]] = [
    (not_stored, "each message that was written is stored once"),
    (stored_twice, "each message that was written is stored once"),
    (without_job, "each message has a push job"),
    (not_shown, "never lost"),
    (on_one_phone_only, "never lost"),
    (shown_twice, "never twice visible"),
    (to_the_sender, "never to the sender"),
    (to_a_former_account, "never to a wrong or former account"),
    (long_after_its_claim, "never to a wrong or former account"),
    (claimed_after_reading, "never claimed after it was read or deleted"),
    (claimed_after_deleting, "never claimed after it was read or deleted"),
    (claimed_while_looking, "never claimed while being looked at"),
    (job_waits, "each job ends"),
    (job_gave_up, "each job ends"),
    (still_leased, "no lease is left"),
    (no_ticket, "each accepted push has a ticket"),
    (no_receipt, "each ticket has a receipt"),
    (deactivated, "no living device is switched off"),
    (unreadable, "never lost"),
    (taken_without_a_login, "no device is ended by another person"),
    (removed_by_another, "no device is ended by another person"),
    (read_by_another, "no message or presence is changed by another person"),
    (read_by_the_sender, "no message or presence is changed by another person"),
    (deleted_by_the_recipient, "no message or presence is changed by another person"),
    (presence_of_another, "no message or presence is changed by another person"),
    (one_device_too_many, "nobody has more active devices than the limit"),
    (forbidden_but_stored, "nothing is stored of what one may not write"),
    (servers_error, "no request of the attacker ends in a server's error"),
    (servers_error_after_an_outage, "no request of the attacker ends in a server's error"),
]


def test_a_sound_history_breaks_nothing_and_every_invariant_looked_at_it() -> None:
    verdicts = judge(sound())
    assert broken(sound()) == set()
    assert all(verdict.checked for verdict in verdicts)


@pytest.mark.parametrize(("breach", "invariant"), BREACHES, ids=[breach.__name__ for breach, _ in BREACHES])
def test_each_breach_is_seen_as_what_it_is(breach: Callable[[History], None], invariant: str) -> None:
    history = sound()
    breach(history)
    assert broken(history) == {invariant}


def test_every_invariant_can_be_broken() -> None:
    assert {invariant for _, invariant in BREACHES} == INVARIANTS.keys()


def in_flight_when_the_account_is_switched(history: History) -> None:
    """Claimed before Omar logged in on the phone."""
    history.registrations[0] = replace(history.registrations[0], until=at(1.3))
    history.registrations.append(Registration(UUID(int=51), OMAR, TOKEN, since=at(1.3)))


def read_while_it_was_being_sent(history: History) -> None:
    change_message(history, read_at=at(1.2))


def read_before_anybody_claimed_it(history: History) -> None:
    not_shown(history)
    change_message(history, read_at=at(0.5))
    change_job(history, outcome="skipped", reason="read", claims=())


def registered_after_the_message(history: History) -> None:
    history.registrations.append(Registration(UUID(int=51), GUS, "ExponentPushToken[other]", since=at(0.5)))
    history.screens.append(Screen("ExponentPushToken[other]", shown=()))


def app_removed(history: History) -> None:
    not_shown(history)
    history.screens[0] = replace(history.screens[0], installed=False)
    deactivated(history)
    change_delivery(history, status="failed", error="DeviceNotRegistered")


def refused_for_good(history: History) -> None:
    not_shown(history)
    change_delivery(history, status="failed", error="MessageRateExceeded")


def unreadable_tickets(history: History) -> None:
    change_delivery(history, status="accepted", error="UnreadableResponse", ticket_id=None)


def an_older_row_that_the_apps_own_preview_fails_for(history: History) -> None:
    change_message(history, client_msg_id=None)
    history.written.clear()
    unreadable(history)


def made_up_tokens(history: History) -> None:
    history.registrations.append(Registration(UUID(int=51), GUS, "ExponentPushToken[nobody]", since=at(-1)))


def one_device_in_place_of_another(history: History) -> None:
    made_up_tokens(history)
    history.registrations[-1] = replace(history.registrations[-1], until=at(3))
    history.registrations.append(Registration(UUID(int=52), GUS, "ExponentPushToken[third]", since=at(3)))


def read_and_deleted_by_those_who_may(history: History) -> None:
    change_message(history, read_at=at(3), read_by=GUS, deleted_at=at(4), deleted_by=TINA)
    history.presence[0] = replace(history.presence[0], by=GUS)


def servers_error_in_an_outage(history: History) -> None:
    servers_error(history)
    history.outages.append(Outage(at(0), at(1.5)))


def logged_in_by_another(history: History) -> None:
    history.registrations[0] = replace(history.registrations[0], until=at(5), ended_by=OMAR)
    history.registrations.append(Registration(UUID(int=51), OMAR, TOKEN, since=at(5)))


def logged_out(history: History) -> None:
    history.registrations[0] = replace(history.registrations[0], until=at(5), ended_by=GUS)


@pytest.mark.parametrize(
    "circumstance",
    [
        an_older_row_that_the_apps_own_preview_fails_for,
        made_up_tokens,
        one_device_in_place_of_another,
        read_and_deleted_by_those_who_may,
        servers_error_in_an_outage,
        logged_in_by_another,
        logged_out,
        in_flight_when_the_account_is_switched,
        read_while_it_was_being_sent,
        read_before_anybody_claimed_it,
        registered_after_the_message,
        app_removed,
        refused_for_good,
        unreadable_tickets,
    ],
)
def test_what_only_looks_like_a_breach_is_none(circumstance: Callable[[History], None]) -> None:
    history = sound()
    circumstance(history)
    assert broken(history) == set()
