"""Delivery from a message id to the recorded outcome, against HTTP fakes of the database and of Expo."""

from collections import Counter
from typing import Any
from uuid import UUID

import httpx
import pytest
from chat_push.database import DatabaseUnavailable, PushDatabase
from chat_push.delivery import Report, Senders, deliver, sweep
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
    """A worker with a scripted database and a scripted Expo."""

    def __init__(self, *claims: Json, expo: tuple[ExpoAnswer, ...] = (), seconds: float = 60) -> None:
        self.api = DataApi(*claims)
        self.service = PushService(*expo)
        self.seconds = seconds
        self._database = PushDatabase(SUPABASE_URL, "key", httpx.MockTransport(self.api))
        self.pauses: list[float] = []
        self._senders = Senders(Expo(EXPO_URL, None, httpx.MockTransport(self.service), pause=self.pauses.append))

    def deliver(self, *numbers: int) -> Report:
        return deliver([UUID(uuid(number)) for number in numbers], self._database, self._senders, lambda: self.seconds)

    def sweep(self, seconds_per_claim: float = 0) -> tuple[Report, bool]:
        """The report, and whether more is due. Each claim takes so many seconds."""
        claims = self.api.claims
        planned = len(claims)
        return sweep(self._database, self._senders, lambda: self.seconds - seconds_per_claim * (planned - len(claims)))


def delivery(
    number: int, token: str, status: str = "accepted", error: str | None = None, retry_after: float | None = None
) -> Json:
    return {
        "delivery_id": number,
        "status": status,
        "error": error,
        "ticket_id": ticket_id(token) if status == "accepted" else None,
        "retry_after_seconds": retry_after,
    }


def result(number: int, *deliveries: Json) -> Json:
    return {"job_id": number, "deliveries": list(deliveries)}


TOKENS = [push_token(number) for number in range(6)]
OK = {"status": "ok", "id": "t"}


def error_ticket(error: str) -> Json:
    return {"status": "error", "message": "no", "details": {"error": error}}


def tickets(*given: Json) -> httpx.Response:
    return httpx.Response(200, json={"data": list(given)})


class TestDeliver:
    @pytest.mark.parametrize("messages", [1, 10, 100])
    def test_a_batch_takes_one_claim_one_expo_request_and_one_record(self, messages: int) -> None:
        numbers = range(messages)
        worker = Worker(claim(*(push(number, [push_token(number)]) for number in numbers)))
        worker.deliver(*numbers)
        assert worker.api.functions == ["claim_push_jobs", "record_push_results"]
        assert worker.service.recipients == [[push_token(number) for number in numbers]]

    def test_a_batch_waits_for_its_send_slot(self) -> None:
        worker = Worker(claim(push(1, TOKENS[:1]), slot=slot(30)))
        worker.deliver(1)
        [pause] = worker.pauses
        assert 0 < pause <= 30, "the time for composing is part of the wait"

    def test_a_refused_request_is_repeated_in_another_send_slot(self) -> None:
        worker = Worker(claim(push(1, TOKENS[:2])), expo=(httpx.Response(429),))
        worker.api.next_slot = slot(30)
        assert worker.deliver(1).deliveries == {"accepted": 2}
        assert worker.api.calls("reserve_send_slot") == [{"p_notifications": 2}]
        [_, wait] = worker.pauses
        assert 0 < wait <= 30

    @pytest.mark.parametrize("fault", [httpx.ConnectError("refused"), httpx.Response(404)])
    def test_a_refused_request_is_repeated_even_if_no_other_send_slot_can_be_reserved(
        self, fault: httpx.Response | Exception
    ) -> None:
        worker = Worker(claim(push(1, TOKENS[:1])), expo=(httpx.Response(429),))
        worker.api.faults["reserve_send_slot"] = fault
        assert worker.deliver(1).deliveries == {"accepted": 1}
        assert worker.api.results == [result(1, delivery(100, TOKENS[0]))]

    def test_each_device_of_a_recipient_is_sent_the_push_and_its_outcome_is_recorded(self) -> None:
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

    def test_a_message_id_that_occurs_twice_is_claimed_once(self) -> None:
        worker = Worker()
        worker.deliver(1, 2, 1)
        [call] = worker.api.calls("claim_push_jobs")
        assert (call["p_message_ids"], call["p_limit"]) == ([uuid(1), uuid(2)], 2)

    def test_without_message_ids_nothing_is_requested(self) -> None:
        worker = Worker()
        assert worker.deliver() == Report()
        assert worker.api.functions == []

    @pytest.mark.parametrize(
        ("fields", "report"),
        [
            ({}, Report()),
            ({"deferred": [uuid(1)]}, Report(deferred=1, later=True)),
            ({"not_due": [uuid(1)]}, Report(not_due=1)),
            ({"unknown": [uuid(1)]}, Report(unknown=1)),
            (
                {"finished": [{"message_id": uuid(1), "outcome": "skipped", "reason": "read"}]},
                Report(skipped=Counter(read=1)),
            ),
        ],
        ids=["nothing", "deferred", "not due", "unknown", "finished"],
    )
    def test_a_job_that_the_claim_ended_is_not_sent_and_is_reported(
        self, fields: dict[str, Any], report: Report
    ) -> None:
        worker = Worker(claim(**fields))
        assert worker.deliver(1) == report
        assert worker.api.functions == ["claim_push_jobs"]
        assert worker.service.recipients == []

    def test_a_push_without_devices_makes_no_expo_request_and_is_recorded(self) -> None:
        """The last device was removed between the decision and the query of the devices."""
        worker = Worker(claim(push(1)))
        worker.deliver(1)
        assert worker.service.recipients == []
        assert worker.api.results == [result(1)]

    def test_deactivated_devices_and_lost_leases_are_reported(self) -> None:
        worker = Worker(claim(push(1, TOKENS[:1])))
        worker.api.recorded = recorded(deactivated=1, lost_leases=[1])
        report = worker.deliver(1)
        assert (report.deactivated, report.lost_leases) == (1, 1)

    @pytest.mark.parametrize("answered", [{"later": True}, {"not_due": [uuid(1)], "later": True}])
    def test_a_job_that_is_due_later_leaves_work_of_the_invocation(self, answered: Json) -> None:
        assert Worker(claim(**answered)).deliver(1).has_jobs_left

    def test_a_recorded_job_that_is_due_again_leaves_work_of_the_invocation(self) -> None:
        worker = Worker(claim(push(1, TOKENS[:1])))
        worker.api.recorded = recorded(later=True)
        assert worker.deliver(1).has_jobs_left

    def test_only_an_accepted_alert_of_a_new_message_measures_the_time_since_its_insert(self) -> None:
        worker = Worker(
            claim(
                push(1, TOKENS[:1], kind="update"),
                push(2, TOKENS[1:2], sent_at=None),
                push(3, TOKENS[2:3], kind="dismiss", message_id=None, sent_at=None),
                push(4, TOKENS[3:4], kind="badge"),
                push(5, TOKENS[4:6]),
            )
        )
        assert len(worker.deliver(1, 2, 3, 4, 5).insert_to_accept) == 1

    def test_a_send_leaves_time_to_record_its_outcome(self) -> None:
        worker = Worker(claim(push(1, TOKENS[:1])), seconds=10)
        worker.deliver(1)
        assert worker.service.requests[0].extensions["timeout"]["read"] == 4

    def test_without_time_to_send_a_retry_is_recorded(self) -> None:
        worker = Worker(claim(push(1, TOKENS[:1])), seconds=7)
        report = worker.deliver(1)
        assert worker.service.recipients == []
        assert worker.api.results == [result(1, delivery(100, TOKENS[0], "retry", "OutOfTime"))]
        assert report.insert_to_accept == []

    def test_messages_that_one_claim_leaves_are_claimed_next(self) -> None:
        worker = Worker(claim(push(1, TOKENS[:1]), left_due=[uuid(2)]), claim(push(2, TOKENS[1:2])))
        report = worker.deliver(1, 2)
        assert (report.deliveries, report.left_due) == ({"accepted": 2}, 0)
        assert worker.service.recipients == [TOKENS[:1], TOKENS[1:2]]
        assert [call["p_message_ids"] for call in worker.api.calls("claim_push_jobs")] == [
            [uuid(1), uuid(2)],
            [uuid(2)],
        ]

    def test_messages_without_a_send_slot_in_time_are_left_to_a_sweep(self) -> None:
        worker = Worker(claim(left_due=[uuid(1)], slot=None))
        assert worker.deliver(1).left_due == 1
        assert worker.api.functions == ["claim_push_jobs"]
        assert worker.service.recipients == []

    def test_a_claim_waits_for_a_send_slot_half_of_the_time_at_most(self) -> None:
        worker = Worker(seconds=20)
        worker.deliver(1)
        assert worker.api.calls("claim_push_jobs")[0]["p_wait_seconds"] == 7

    @pytest.mark.parametrize(
        ("answers", "seconds", "unused"),
        [((httpx.Response(429),) * 3, 60, 1), ((errors(403, "UNAUTHORIZED"),), 60, 1), ((), 7, 101)],
        ids=["Expo refuses", "fault of the configuration", "no time"],
    )
    def test_the_unused_part_of_a_send_slot_is_returned(
        self, answers: tuple[ExpoAnswer, ...], seconds: float, unused: int
    ) -> None:
        tokens = [push_token(number) for number in range(101)]
        worker = Worker(claim(push(1, tokens)), expo=answers, seconds=seconds)
        worker.deliver(1)
        assert [call["p_unused_notifications"] for call in worker.api.calls("record_push_results")] == [unused]

    def test_a_result_that_cannot_be_stored_is_reported_and_logged(self, printed: Printed) -> None:
        worker = Worker(claim(push(1, TOKENS[:1])))
        worker.api.recorded = recorded(unrecorded=[1], held=20)
        report = worker.deliver(1)
        assert (report.unrecorded, report.held) == (1, 20)
        assert [line["correlation_id"] for line in printed() if line["level"] == "ERROR"] == [uuid(1)]


class TestMergedNotifications:
    @pytest.mark.parametrize("kind", ["dismiss", "badge"])
    def test_each_delivery_of_a_merged_notification_gets_its_outcome(self, kind: str) -> None:
        worker = Worker(
            claim(push(1, TOKENS[:2], kind=kind), push(2, TOKENS[2:3]), push(3, TOKENS[:1], kind=kind)),
            expo=(lambda sent: tickets(*[_ticket(message["to"], dead=TOKENS[1]) for message in sent]),),
        )
        report = worker.deliver(1, 2, 3)
        assert worker.service.recipients == [[TOKENS[2], TOKENS[0], TOKENS[1]]]
        assert worker.api.results == [
            result(1, delivery(100, TOKENS[0]), delivery(101, TOKENS[1], "failed", "DeviceNotRegistered")),
            result(2, delivery(200, TOKENS[2])),
            result(3, delivery(300, TOKENS[0])),
        ]
        assert report.deliveries == {"accepted": 3, "failed": 1}

    @pytest.mark.parametrize(("answers", "unused"), [((), 2), ((errors(403, "UNAUTHORIZED"),), 2)])
    def test_a_merged_notification_uses_one_place_of_the_send_slot(
        self, answers: tuple[ExpoAnswer, ...], unused: int
    ) -> None:
        worker = Worker(claim(*[push(number, TOKENS[:1], kind="dismiss") for number in (1, 2, 3)]), expo=answers)
        worker.deliver(1)
        assert [call["p_unused_notifications"] for call in worker.api.calls("record_push_results")] == [unused]

    def test_merged_notifications_that_are_not_attempted_use_nothing_of_the_send_slot(self) -> None:
        worker = Worker(claim(*[push(number, TOKENS[:1], kind="dismiss") for number in (1, 2, 3)]), seconds=7)
        worker.deliver(1)
        assert [call["p_unused_notifications"] for call in worker.api.calls("record_push_results")] == [3]


def _ticket(token: str, dead: str) -> Json:
    return error_ticket("DeviceNotRegistered") if token == dead else {"status": "ok", "id": ticket_id(token)}


class TestOutcomes:
    def test_a_dead_token_does_not_stop_the_other_devices(self) -> None:
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
    def test_a_credentials_fault_is_recorded_as_a_configuration_fault(self, fault: httpx.Response) -> None:
        worker = Worker(claim(push(1, TOKENS[:2])), expo=(fault,))
        report = worker.deliver(1)
        [recorded] = worker.api.results
        assert [one["status"] for one in recorded["deliveries"]] == ["configuration_fault"] * 2
        assert report.deliveries == {"configuration_fault": 2}
        assert report.insert_to_accept == []

    def test_a_credentials_fault_of_one_platform_does_not_affect_the_other(self) -> None:
        fault = tickets(error_ticket("InvalidCredentials"), {"status": "ok", "id": ticket_id(TOKENS[1])})
        worker = Worker(claim(push(1, TOKENS[:2])), expo=(fault,))
        worker.deliver(1)
        fault_of_the_first = delivery(100, TOKENS[0], "configuration_fault", "InvalidCredentials")
        assert worker.api.results == [result(1, fault_of_the_first, delivery(101, TOKENS[1]))]

    def test_retry_after_is_recorded_for_each_job_of_the_request(self) -> None:
        worker = Worker(
            claim(push(1, TOKENS[:1]), push(2, TOKENS[1:2])),
            expo=(httpx.Response(429, headers={"Retry-After": "59"}),),
        )
        worker.deliver(1, 2)
        assert worker.api.results == [
            result(number, delivery(100 * number, TOKENS[number - 1], "retry", "Http429", retry_after=59))
            for number in (1, 2)
        ]

    def test_a_request_without_a_response_is_recorded_as_maybe_sent(self) -> None:
        worker = Worker(claim(push(1, TOKENS[:1])), expo=(httpx.ReadTimeout("slow"),))
        worker.deliver(1)
        assert worker.api.results == [result(1, delivery(100, TOKENS[0], "maybe_sent", "ReadTimeout"))]

    def test_a_push_that_expo_rejects_at_each_call_is_reported_as_retry(self) -> None:
        worker = Worker(claim(push(1, TOKENS[:1])), expo=(httpx.Response(429),) * 3)
        report = worker.deliver(1)
        assert (report.deliveries, report.errors) == ({"retry": 1}, {"Http429": 1})

    @pytest.mark.parametrize(
        ("function", "sent"), [("claim_push_jobs", []), ("record_push_results", [TOKENS[:1]])], ids=["claim", "record"]
    )
    def test_a_database_that_does_not_respond_raises_database_unavailable(
        self, function: str, sent: list[list[str]]
    ) -> None:
        worker = Worker(claim(push(1, TOKENS[:1])))
        worker.api.faults[function] = httpx.ConnectError("refused")
        with pytest.raises(DatabaseUnavailable):
            worker.deliver(1)
        assert worker.service.recipients == sent

    def test_a_failed_record_is_repeated_and_no_push_is_sent_twice(self) -> None:
        worker = Worker(claim(push(1, TOKENS[:1])))
        worker.api.faults["record_push_results"] = httpx.ReadError("reset")
        worker.api.recover("record_push_results", after=1)
        assert worker.deliver(1).deliveries["accepted"] == 1
        assert worker.service.recipients == [TOKENS[:1]]
        assert worker.api.functions == ["claim_push_jobs", "record_push_results", "record_push_results"]
        assert worker.api.results == [result(1, delivery(100, TOKENS[0]))] * 2


def page(jobs: int, **fields: Any) -> Json:
    return claim(*[push(number, [push_token(number)]) for number in range(jobs)], **fields)


class TestSweep:
    def test_a_sweep_claims_page_after_page_until_nothing_is_due(self) -> None:
        finished = [{"message_id": uuid(number), "outcome": "skipped", "reason": "expired"} for number in range(50)]
        deferred = [uuid(number) for number in range(50)]
        worker = Worker(page(100), page(0, finished=finished, deferred=deferred, examined=100), page(30), page(1))
        report, is_more_due = worker.sweep()
        assert not is_more_due
        calls = worker.api.calls("claim_push_jobs")
        assert [(call["p_message_ids"], call["p_limit"], call["p_wait_seconds"]) for call in calls] == [
            (None, 100, 1)
        ] * 3
        assert (report.deliveries["accepted"], report.skipped["expired"], report.deferred) == (130, 50, 50)

    def test_a_sweep_with_nothing_due_makes_one_claim(self) -> None:
        worker = Worker()
        assert worker.sweep() == (Report(), False)
        assert worker.api.functions == ["claim_push_jobs"]
        assert worker.service.recipients == []

    def test_a_sweep_stops_when_its_time_runs_out(self) -> None:
        worker = Worker(*[page(100)] * 9, seconds=60)
        report, is_more_due = worker.sweep(seconds_per_claim=10)
        assert is_more_due
        assert report.deliveries == {"accepted": 500}
        assert worker.api.functions == ["claim_push_jobs", "record_push_results"] * 5

    def test_a_sweep_returns_whether_more_is_due(self) -> None:
        assert not Worker(page(99)).sweep()[1]
        assert not Worker(page(100)).sweep()[1], "the second claim finds nothing"
        assert Worker(*[page(100)] * 9, seconds=20).sweep(seconds_per_claim=10)[1]
        assert Worker(page(3, left_due=[uuid(4)]), seconds=20).sweep(seconds_per_claim=10)[1]

    def test_a_sweep_stops_when_other_workers_have_reserved_the_next_second(self) -> None:
        worker = Worker(claim(left_due=[uuid(1)], slot=None), page(1))
        assert worker.sweep()[1]
        assert worker.api.functions == ["claim_push_jobs"]

    def test_a_last_push_without_devices_does_not_hide_that_expo_rejects_everything(self) -> None:
        refused = claim(*[push(number, [push_token(number)]) for number in range(99)], push(99))
        worker = Worker(*[refused] * 9, expo=(httpx.Response(429),) * 99)
        assert not worker.sweep()[1]
        assert len(worker.api.calls("claim_push_jobs")) == 1

    @pytest.mark.parametrize("refusal", [httpx.Response(429), errors(403, "UNAUTHORIZED")])
    def test_a_sweep_stops_when_expo_rejects_everything(self, refusal: httpx.Response) -> None:
        worker = Worker(*[page(100)] * 9, expo=(refusal,) * 99)
        assert not worker.sweep()[1]
        assert len(worker.api.calls("claim_push_jobs")) == 1


class TestLogs:
    def test_each_message_has_one_log_line_with_its_outcome(self, printed: Printed) -> None:
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

    def test_the_log_line_of_a_job_names_the_kinds_of_its_pushes(self, printed: Printed) -> None:
        worker = Worker(
            claim(
                push(1, TOKENS[:2], kind="update"),
                push(2, TOKENS[2:3], kind="dismiss", message_id=None, sent_at=None),
            )
        )
        worker.deliver(1)
        lines = {line["job_id"]: line for line in printed() if line["message"] == "push attempted"}
        assert (lines[1]["correlation_id"], lines[1]["kinds"]) == (uuid(1), {"update": 2})
        assert (lines[2].get("correlation_id"), lines[2]["kinds"]) == (None, {"dismiss": 1})

    def test_an_expired_lease_is_logged_at_the_next_claim_and_at_the_late_record(self, printed: Printed) -> None:
        worker = Worker(claim(push(1, TOKENS[:1]), push(2, TOKENS[1:2]), expired_leases=[1, 3]))
        worker.api.recorded = recorded(deactivated=0, lost_leases=[2])
        worker.deliver(1, 2)
        warned = [line for line in printed() if line["level"] == "WARNING"]
        assert [(line["job_id"], line.get("correlation_id"), line["message"]) for line in warned] == [
            (1, uuid(1), "claimed again: the last worker never reported"),
            (3, None, "claimed again: the last worker never reported"),
            (2, uuid(2), "recorded too late: the lease had run out"),
        ]

    @pytest.mark.parametrize(
        "answer",
        [
            tickets(error_ticket("DeviceNotRegistered")),
            errors(400, "VALIDATION_ERROR", details="Secret text"),
            httpx.Response(500, json={"error": "Secret text"}),
            httpx.ReadError("Secret text"),
        ],
    )
    def test_no_log_line_contains_a_text_or_a_token(
        self, answer: ExpoAnswer, printed: Printed, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The logs of the libraries at DEBUG are included."""
        job = push(1, [push_token(1)], body="Secret text", title="Secret name", image_url="https://secret.example")
        worker = Worker(claim(job), expo=(answer,))
        worker.deliver(1)
        assert body_of(worker.service.requests[0])[0]["body"] == "Secret text"
        logged = f"{printed()} {caplog.text} {[record.__dict__ for record in caplog.records]}"
        assert uuid(1) in logged
        for secret in (push_token(1), "Secret", "secret.example"):
            assert secret not in logged
