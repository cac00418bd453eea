"""From a message id to its push, between the HTTP borders of the database and of Expo."""

from collections import Counter
from typing import Any
from uuid import UUID

import httpx
import pytest
from chat_push.database import DatabaseUnavailable, PushDatabase
from chat_push.delivery import Report, deliver, sweep
from chat_push.expo import Expo

from tests.http_fakes import (
    EXPO_URL,
    LEASE_ID,
    SUPABASE_URL,
    DataApi,
    ExpoAnswer,
    Json,
    Printed,
    PushService,
    body_of,
    claim,
    errors,
    push,
    push_token,
    recorded,
    slot,
    ticket_id,
    uuid,
)


class Worker:
    """A worker between a scripted database and a scripted Expo."""

    def __init__(self, *claims: Json, expo: tuple[ExpoAnswer, ...] = (), seconds: float = 60) -> None:
        self.api = DataApi(*claims)
        self.service = PushService(*expo)
        self.seconds = seconds
        self._database = PushDatabase(SUPABASE_URL, "key", httpx.MockTransport(self.api))
        self.pauses: list[float] = []
        self._expo = Expo(EXPO_URL, None, httpx.MockTransport(self.service), pause=self.pauses.append)

    def deliver(self, *numbers: int) -> Report:
        return deliver([UUID(uuid(number)) for number in numbers], self._database, self._expo, lambda: self.seconds)

    def sweep(self, seconds_per_claim: float = 0) -> Report:
        claims = self.api.claims
        planned = len(claims)
        return sweep(self._database, self._expo, lambda: self.seconds - seconds_per_claim * (planned - len(claims)))


def delivery(
    number: int, token: str, status: str = "accepted", error: str | None = None, retry_after: float | None = None
) -> Json:
    return {
        "device_id": uuid(number),
        "push_token": token,
        "status": status,
        "error": error,
        "ticket_id": ticket_id(token) if status == "accepted" else None,
        "retry_after_seconds": retry_after,
    }


def result(number: int, *deliveries: Json) -> Json:
    return {"message_id": uuid(number), "deliveries": list(deliveries)}


TOKENS = [push_token(number) for number in range(6)]
OK = {"status": "ok", "id": "t"}


def error_ticket(error: str) -> Json:
    return {"status": "error", "message": "no", "details": {"error": error}}


def tickets(*given: Json) -> httpx.Response:
    return httpx.Response(200, json={"data": list(given)})


class TestDeliver:
    @pytest.mark.parametrize("messages", [1, 10, 100])
    def test_a_batch_takes_one_claim_one_request_and_one_record(self, messages: int) -> None:
        numbers = range(messages)
        worker = Worker(claim(*(push(number, [push_token(number)]) for number in numbers)))
        worker.deliver(*numbers)
        assert (len(worker.api.requests), len(worker.service.requests)) == (2, 1)

    def test_a_batch_is_sent_when_the_claim_says_so(self) -> None:
        worker = Worker(claim(push(1, TOKENS[:1]), slot=slot(30)))
        worker.deliver(1)
        [pause] = worker.pauses
        assert 0 < pause <= 30, "what composing takes is part of the wait"

    def test_what_expo_refuses_takes_another_send_slot(self) -> None:
        worker = Worker(claim(push(1, TOKENS[:2])), expo=(httpx.Response(429),))
        worker.api.next_slot = slot(30)
        assert worker.deliver(1).deliveries == {"accepted": 2}
        assert worker.api.calls("reserve_send_slot") == [{"p_notifications": 2}]
        [_, wait] = worker.pauses
        assert 0 < wait <= 30

    @pytest.mark.parametrize("fault", [httpx.ConnectError("refused"), httpx.Response(404)])
    def test_without_another_send_slot_it_is_sent_and_recorded_all_the_same(
        self, fault: httpx.Response | Exception
    ) -> None:
        worker = Worker(claim(push(1, TOKENS[:1])), expo=(httpx.Response(429),))
        worker.api.faults["reserve_send_slot"] = fault
        assert worker.deliver(1).deliveries == {"accepted": 1}
        assert worker.api.results == [result(1, delivery(100, TOKENS[0]))]

    def test_two_devices_both_get_it_and_each_outcome_is_recorded_with_its_device(self) -> None:
        worker = Worker(claim(push(1, TOKENS[:1]), push(2, TOKENS[1:4]), push(3, TOKENS[4:])))
        report = worker.deliver(1, 2, 3)
        assert worker.service.recipients == [TOKENS]
        assert [message["data"]["messageId"] for message in worker.service.accepted] == [
            uuid(number) for number in (1, 2, 2, 2, 3, 3)
        ]
        [call] = worker.api.calls("record_push_results")
        assert call["p_lease_id"] == LEASE_ID
        assert call["p_results"] == [
            result(1, delivery(100, TOKENS[0])),
            result(2, *[delivery(200 + index, token) for index, token in enumerate(TOKENS[1:4])]),
            result(3, delivery(300, TOKENS[4]), delivery(301, TOKENS[5])),
        ]
        assert report.deliveries == {"accepted": 6}
        assert len(report.insert_to_accept) == 3

    def test_a_message_that_is_named_twice_is_claimed_once(self) -> None:
        worker = Worker()
        worker.deliver(1, 2, 1)
        [call] = worker.api.calls("claim_push_jobs")
        assert (call["p_message_ids"], call["p_limit"]) == ([uuid(1), uuid(2)], 2)

    def test_without_messages_nobody_is_asked(self) -> None:
        worker = Worker()
        assert worker.deliver() == Report()
        assert worker.api.requests == []

    @pytest.mark.parametrize(
        ("fields", "report"),
        [
            ({}, Report()),
            ({"deferred": [uuid(1)]}, Report(deferred=1)),
            ({"not_due": [uuid(1)]}, Report(not_due=1)),
            ({"unknown": [uuid(1)]}, Report(unknown=1)),
            (
                {"finished": [{"message_id": uuid(1), "outcome": "skipped", "reason": "read"}]},
                Report(skipped=Counter(read=1)),
            ),
        ],
        ids=["nothing", "deferred", "not due", "unknown", "finished"],
    )
    def test_what_is_not_to_be_sent_is_reported_and_nothing_else(self, fields: dict[str, Any], report: Report) -> None:
        worker = Worker(claim(**fields))
        assert worker.deliver(1) == report
        assert (len(worker.api.requests), len(worker.service.requests)) == (1, 0)

    def test_no_token_no_request(self) -> None:
        """The last device left between the decision and the query of the devices."""
        worker = Worker(claim(push(1)))
        worker.deliver(1)
        assert worker.service.requests == []
        assert [entry["deliveries"] for entry in worker.api.results] == [[]]

    def test_what_the_database_did_with_the_results_is_reported(self) -> None:
        worker = Worker(claim(push(1, TOKENS[:1])))
        worker.api.recorded = recorded(deactivated=1, lost_leases=[uuid(1)])
        report = worker.deliver(1)
        assert (report.deactivated, report.lost_leases) == (1, 1)

    def test_time_is_kept_for_the_record(self) -> None:
        worker = Worker(claim(push(1, TOKENS[:1])), seconds=10)
        worker.deliver(1)
        assert worker.service.requests[0].extensions["timeout"]["read"] == 4

    def test_without_time_to_send_the_job_waits_for_its_next_attempt(self) -> None:
        worker = Worker(claim(push(1, TOKENS[:1])), seconds=7)
        report = worker.deliver(1)
        assert worker.service.requests == []
        assert worker.api.results == [result(1, delivery(100, TOKENS[0], "retry", "OutOfTime"))]
        assert report.insert_to_accept == []

    def test_messages_that_one_claim_left_are_claimed_next(self) -> None:
        worker = Worker(claim(push(1, TOKENS[:1]), left_due=[uuid(2)]), claim(push(2, TOKENS[1:2])))
        assert worker.deliver(1, 2).deliveries["accepted"] == 2
        assert [call["p_message_ids"] for call in worker.api.calls("claim_push_jobs")] == [
            [uuid(1), uuid(2)],
            [uuid(2)],
        ]

    def test_messages_without_a_send_slot_in_time_are_left_to_a_sweep(self) -> None:
        worker = Worker(claim(left_due=[uuid(1)], slot=None))
        assert worker.deliver(1).more_due
        assert (len(worker.api.requests), worker.service.requests) == (1, [])

    def test_a_claim_asks_for_no_send_slot_that_would_leave_no_time_to_send(self) -> None:
        worker = Worker(seconds=20)
        worker.deliver(1)
        assert worker.api.calls("claim_push_jobs")[0]["p_wait_seconds"] == 7

    @pytest.mark.parametrize(
        ("answers", "seconds", "unused"),
        [((httpx.Response(429),) * 3, 60, 1), ((errors(403, "UNAUTHORIZED"),), 60, 1), ((), 7, 101)],
        ids=["Expo refuses", "fault of the configuration", "no time"],
    )
    def test_what_was_not_tried_of_a_send_slot_is_given_back(
        self, answers: tuple[ExpoAnswer, ...], seconds: float, unused: int
    ) -> None:
        tokens = [push_token(number) for number in range(101)]
        worker = Worker(claim(push(1, tokens)), expo=answers, seconds=seconds)
        worker.deliver(1)
        assert [call["p_unused_notifications"] for call in worker.api.calls("record_push_results")] == [unused]

    def test_a_result_that_cannot_be_stored_is_reported(self, printed: Printed) -> None:
        worker = Worker(claim(push(1, TOKENS[:1])))
        worker.api.recorded = recorded(unrecorded=[uuid(1)], held=20)
        report = worker.deliver(1)
        assert (report.unrecorded, report.held) == (1, 20)
        assert [line["correlation_id"] for line in printed() if line["level"] == "ERROR"] == [uuid(1)]


class TestOutcomes:
    def test_bad_token_does_not_stop_rest(self) -> None:
        worker = Worker(
            claim(push(1, TOKENS[:2])),
            expo=(tickets(error_ticket("DeviceNotRegistered"), {"status": "ok", "id": ticket_id(TOKENS[1])}),),
        )
        report = worker.deliver(1)
        assert worker.api.results == [
            result(1, delivery(100, TOKENS[0], "failed", "DeviceNotRegistered"), delivery(101, TOKENS[1]))
        ]
        assert report.deliveries == {"accepted": 1, "failed": 1}
        assert report.errors == {"DeviceNotRegistered": 1}

    @pytest.mark.parametrize(
        "fault",
        [
            errors(401, "UNAUTHORIZED"),
            errors(403, "UNAUTHORIZED"),
            tickets(error_ticket("InvalidCredentials"), error_ticket("MismatchSenderId")),
        ],
    )
    def test_credentials_fault_keeps_devices_and_uses_up_no_attempt(self, fault: httpx.Response) -> None:
        worker = Worker(claim(push(1, TOKENS[:2])), expo=(fault,))
        report = worker.deliver(1)
        [recorded] = worker.api.results
        assert [one["status"] for one in recorded["deliveries"]] == ["configuration_fault"] * 2
        assert report.deliveries == {"configuration_fault": 2}
        assert report.insert_to_accept == []

    def test_credentials_fault_of_one_platform_leaves_the_other_alone(self) -> None:
        fault = tickets(error_ticket("InvalidCredentials"), {"status": "ok", "id": ticket_id(TOKENS[1])})
        worker = Worker(claim(push(1, TOKENS[:2])), expo=(fault,))
        worker.deliver(1)
        fault_of_the_first = delivery(100, TOKENS[0], "configuration_fault", "InvalidCredentials")
        assert worker.api.results == [result(1, fault_of_the_first, delivery(101, TOKENS[1]))]

    def test_retry_after_reaches_the_job(self) -> None:
        worker = Worker(
            claim(push(1, TOKENS[:1]), push(2, TOKENS[1:2])),
            expo=(httpx.Response(429, headers={"Retry-After": "59"}),),
        )
        worker.deliver(1, 2)
        assert worker.api.results == [
            result(number, delivery(100 * number, TOKENS[number - 1], "retry", "Http429", retry_after=59))
            for number in (1, 2)
        ]

    def test_nobody_knows_is_recorded_as_that(self) -> None:
        worker = Worker(claim(push(1, TOKENS[:1])), expo=(httpx.ReadTimeout("slow"),))
        worker.deliver(1)
        assert worker.api.results == [result(1, delivery(100, TOKENS[0], "maybe_sent", "ReadTimeout"))]

    def test_giving_up_is_reported(self) -> None:
        worker = Worker(claim(push(1, TOKENS[:1])), expo=(httpx.Response(429),) * 3)
        report = worker.deliver(1)
        assert (report.deliveries, report.errors) == ({"retry": 1}, {"Http429": 1})

    @pytest.mark.parametrize(("function", "sent"), [("claim_push_jobs", 0), ("record_push_results", 1)])
    def test_a_database_that_does_not_answer_is_no_success(self, function: str, sent: int) -> None:
        worker = Worker(claim(push(1, TOKENS[:1])))
        worker.api.faults[function] = httpx.ConnectError("refused")
        with pytest.raises(DatabaseUnavailable):
            worker.deliver(1)
        assert len(worker.service.requests) == sent

    def test_a_record_that_fails_is_repeated_and_nothing_is_sent_twice(self) -> None:
        worker = Worker(claim(push(1, TOKENS[:1])))
        worker.api.faults["record_push_results"] = httpx.ReadError("reset")
        worker.api.recover("record_push_results", after=1)
        assert worker.deliver(1).deliveries["accepted"] == 1
        assert (len(worker.service.requests), len(worker.api.calls("record_push_results"))) == (1, 2)


def page(jobs: int, **fields: Any) -> Json:
    return claim(*[push(number, [push_token(number)]) for number in range(jobs)], **fields)


class TestSweep:
    def test_pages_until_nothing_is_due(self) -> None:
        finished = [{"message_id": uuid(number), "outcome": "skipped", "reason": "expired"} for number in range(50)]
        deferred = [uuid(number) for number in range(50)]
        worker = Worker(page(100), page(0, finished=finished, deferred=deferred), page(30), page(1))
        report = worker.sweep()
        calls = worker.api.calls("claim_push_jobs")
        assert [(call["p_message_ids"], call["p_limit"], call["p_wait_seconds"]) for call in calls] == [
            (None, 100, 1)
        ] * 3
        assert (report.deliveries["accepted"], report.skipped["expired"], report.deferred) == (130, 50, 50)

    def test_with_nothing_due_asks_once(self) -> None:
        worker = Worker()
        assert worker.sweep() == Report()
        assert (len(worker.api.requests), len(worker.service.requests)) == (1, 0)

    def test_stops_when_time_runs_out(self) -> None:
        worker = Worker(*[page(100)] * 9, seconds=60)
        report = worker.sweep(seconds_per_claim=10)
        assert report.deliveries["accepted"] == 500
        assert len(worker.api.calls("record_push_results")) == 5

    def test_says_whether_more_is_due(self) -> None:
        assert not Worker(page(99)).sweep().more_due
        assert not Worker(page(100)).sweep().more_due, "the second claim found nothing"
        assert Worker(*[page(100)] * 9, seconds=20).sweep(seconds_per_claim=10).more_due
        assert Worker(page(3, left_due=[uuid(4)]), seconds=20).sweep(seconds_per_claim=10).more_due

    def test_stops_when_other_workers_have_reserved_the_next_second(self) -> None:
        worker = Worker(claim(left_due=[uuid(1)], slot=None), page(1))
        assert worker.sweep().more_due
        assert len(worker.api.calls("claim_push_jobs")) == 1

    def test_refusals_of_the_first_message_are_not_forgotten_after_the_last(self) -> None:
        """A last message without devices says nothing of Expo."""
        refused = claim(*[push(number, [push_token(number)]) for number in range(99)], push(99))
        worker = Worker(*[refused] * 9, expo=(httpx.Response(429),) * 99)
        worker.sweep()
        assert len(worker.api.calls("claim_push_jobs")) == 1

    @pytest.mark.parametrize("refusal", [httpx.Response(429), errors(403, "UNAUTHORIZED")])
    def test_stops_when_expo_turns_everything_away(self, refusal: httpx.Response) -> None:
        worker = Worker(*[page(100)] * 9, expo=(refusal,) * 99)
        worker.sweep()
        assert len(worker.api.calls("claim_push_jobs")) == 1


class TestLogs:
    def test_say_of_each_message_what_became_of_it(self, printed: Printed) -> None:
        worker = Worker(
            claim(
                push(1, TOKENS[:2], attempt=2),
                finished=[{"message_id": uuid(2), "outcome": "skipped", "reason": "read"}],
                unknown=[uuid(3)],
                deferred=[uuid(4)],
                not_due=[uuid(5)],
            ),
            expo=(tickets(error_ticket("DeviceNotRegistered"), OK),),
        )
        worker.deliver(1, 2, 3, 4, 5)
        lines = {line["correlation_id"]: line for line in printed()}
        assert lines.keys() == {uuid(number) for number in range(1, 6)}
        assert lines[uuid(1)]["deliveries"] == {"failed": 1, "accepted": 1}
        assert lines[uuid(1)]["errors"] == {"DeviceNotRegistered": 1}
        assert lines[uuid(1)]["attempt"] == 2
        assert (lines[uuid(2)]["outcome"], lines[uuid(2)]["reason"]) == ("skipped", "read")
        assert lines[uuid(3)]["level"] == "WARNING"
        assert "deferred" in lines[uuid(4)]["message"]
        assert "not due" in lines[uuid(5)]["message"]

    def test_say_of_each_message_whose_lease_ran_out(self, printed: Printed) -> None:
        """Once when it is claimed again, and once when the first worker reports after all."""
        worker = Worker(claim(push(1, TOKENS[:1]), push(2, TOKENS[1:2]), expired_leases=[uuid(1)]))
        worker.api.recorded = recorded(deactivated=0, lost_leases=[uuid(2)])
        worker.deliver(1, 2)
        warned = {line["correlation_id"]: line["message"] for line in printed() if line["level"] == "WARNING"}
        assert warned == {
            uuid(1): "claimed again: the last worker never reported",
            uuid(2): "recorded too late: the lease had run out",
        }

    @pytest.mark.parametrize(
        "answer",
        [
            tickets(error_ticket("DeviceNotRegistered")),
            errors(400, "VALIDATION_ERROR", details="Secret text"),
            httpx.Response(500, json={"error": "Secret text"}),
            httpx.ReadError("Secret text"),
        ],
    )
    def test_no_text_or_token_in_logs(
        self, answer: ExpoAnswer, printed: Printed, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Neither in ours nor, at DEBUG, in those of the libraries."""
        job = push(1, [push_token(1)], body="Secret text", title="Secret name", image_url="https://secret.example")
        worker = Worker(claim(job), expo=(answer,))
        worker.deliver(1)
        assert body_of(worker.service.requests[0])[0]["body"] == "Secret text"
        logged = f"{printed()} {caplog.text} {[record.__dict__ for record in caplog.records]}"
        assert uuid(1) in logged
        for secret in (push_token(1), "Secret", "secret.example"):
            assert secret not in logged
