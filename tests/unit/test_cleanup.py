"""Runs of the clean-up, with HTTP fakes of the database and of Expo."""

from collections import Counter

import httpx
import pytest
from chat_push.cleanup import CleanupReport, clean_up
from chat_push.database import DatabaseUnavailable, PushDatabase
from chat_push.expo import Expo

from tests.http_fakes import (
    EXPO_URL,
    SUPABASE_URL,
    DataApi,
    Json,
    Printed,
    ReceiptAnswer,
    ReceiptService,
    due,
    errors,
    pruned,
    push_token,
    receipts,
    uuid,
)


def error(code: str) -> Json:
    return {"status": "error", "message": f"not {push_token(1)}", "details": {"error": code}}


class Cleaner:
    """Runs the clean-up with a scripted database and a scripted Expo.

    Each request to Expo and each call of prune_push takes `seconds_per_round`.
    """

    def __init__(self, *due: list[Json], expo: tuple[ReceiptAnswer, ...] = (), seconds: float = 120) -> None:
        self.api = DataApi()
        self.api.due.extend(due)
        self.service = ReceiptService(*expo)
        self.seconds = seconds
        self.seconds_per_round = 0.0
        self._database = PushDatabase(SUPABASE_URL, "key", httpx.MockTransport(self.api))
        self._expo = Expo(EXPO_URL, None, httpx.MockTransport(self.service))

    def _time_left(self) -> float:
        rounds = len(self.service.requests) + len(self.api.calls("prune_push"))
        return self.seconds - self.seconds_per_round * rounds

    def __call__(self) -> CleanupReport:
        return clean_up(self._database, self._expo, self._time_left)

    @property
    def recorded(self) -> list[Json]:
        return [receipt for call in self.api.calls("record_push_receipts") for receipt in call["p_receipts"]]


def test_each_receipt_is_recorded_with_its_delivery() -> None:
    clean = Cleaner(due(1, 2, 3), expo=(receipts({"t1": {"status": "ok"}, "t3": error("MessageTooBig")}),))
    report = clean()
    assert clean.recorded == [
        {**due(1)[0], "status": "handed_over", "error": None},
        {**due(2)[0], "status": "missing", "error": None},
        {**due(3)[0], "status": "failed", "error": "MessageTooBig"},
    ]
    assert report.receipts == Counter(handed_over=1, missing=1, failed=1)
    assert report.errors == Counter(MessageTooBig=1)


def test_the_one_receipt_of_merged_dismissals_is_requested_once_and_recorded_for_each_of_them() -> None:
    merged = [{**each, "message_id": None, "ticket_id": "t1"} for each in due(1, 2)]
    clean = Cleaner(merged)
    report = clean()
    assert clean.service.requested == [["t1"]]
    assert clean.recorded == [{**each, "status": "handed_over", "error": None} for each in merged]
    assert report.receipts == Counter(handed_over=2)


def test_the_receipt_of_a_dismissal_is_logged_without_a_message_id(printed: Printed) -> None:
    Cleaner([{**due(1)[0], "message_id": None}], expo=(receipts({"t1": error("ExpoError")}),))()
    [line] = [line for line in printed() if line["level"] == "WARNING"]
    assert (line.get("correlation_id"), line["error"]) == (None, "ExpoError")


def test_a_cleanup_reads_page_after_page_until_no_receipt_is_due() -> None:
    """A page of a thousand takes a claim, a request and a record."""
    clean = Cleaner(due(1, 2), due(3), due(4))
    report = clean()
    assert clean.api.calls("claim_due_receipts") == [{"p_limit": 1000}] * 4
    assert clean.service.requested == [["t1", "t2"], ["t3"], ["t4"]]
    assert len(clean.api.calls("record_push_receipts")) == 3
    [run] = {call["p_run_id"] for call in clean.api.calls("record_push_receipts")}
    assert clean.api.calls("finish_receipt_run") == [{"p_run_id": run}]
    assert report.receipts == Counter(handed_over=4)


def test_a_cleanup_stops_reading_receipts_before_its_time_is_over() -> None:
    clean = Cleaner(*[due(number) for number in range(1, 20)], seconds=60)
    clean.seconds_per_round = 10
    clean()
    assert len(clean.service.requests) == 4
    assert len(clean.api.due) == 15
    assert len(clean.api.calls("finish_receipt_run")) == 1, "the receipts that were read are evaluated"
    assert clean.api.calls("prune_push") == []


@pytest.mark.parametrize(
    "failure",
    [httpx.Response(429), errors(500, "INTERNAL_SERVER_ERROR"), httpx.ReadTimeout("slow"), httpx.Response(502)],
)
def test_a_cleanup_prunes_even_if_expo_returns_no_receipts(failure: ReceiptAnswer, printed: Printed) -> None:
    clean = Cleaner(due(1), due(2), due(3), expo=(lambda ids: receipts({"t1": {"status": "ok"}}), failure))
    report = clean()
    assert report.unavailable
    assert report.configuration_faults == 0
    assert clean.service.requested == [["t1"], ["t2"]], "no request after the failed one"
    assert report.receipts == Counter(handed_over=1)
    assert len(clean.api.calls("finish_receipt_run")) == len(clean.api.calls("prune_push")) == 1
    [line] = [line for line in printed() if line["level"] == "ERROR"]
    assert line["error"] == report.unavailable


@pytest.mark.parametrize(
    ("answer", "errors_"),
    [
        (errors(401, "UNAUTHORIZED"), {}),
        (errors(403, "FORBIDDEN"), {}),
        (receipts({"t1": error("InvalidCredentials")}), {"InvalidCredentials": 1}),
        (receipts({"t1": error("MismatchSenderId")}), {"MismatchSenderId": 1}),
    ],
)
def test_a_receipt_with_a_configuration_fault_is_counted(answer: ReceiptAnswer, errors_: dict[str, int]) -> None:
    report = Cleaner(due(1), expo=(answer,))()
    assert report.configuration_faults == 1
    assert report.errors == errors_


def test_a_cleanup_prunes_batch_after_batch_until_none_is_left() -> None:
    clean = Cleaner()
    clean.api.pruned.extend([pruned(jobs_deleted=1000, more=True), pruned(jobs_deleted=7, presence_offline=2)])
    report = clean()
    assert clean.api.calls("prune_push") == [{"p_limit": 1000}] * 2
    assert +report.pruned == Counter(jobs_deleted=1007, presence_offline=2)


def test_a_cleanup_stops_pruning_before_its_time_is_over() -> None:
    clean = Cleaner(seconds=60)
    clean.api.pruned.extend([pruned(jobs_deleted=1000, more=True)] * 20)
    clean.seconds_per_round = 10
    clean()
    assert len(clean.api.calls("prune_push")) == 4


def test_deactivated_and_held_devices_are_reported() -> None:
    clean = Cleaner(due(1))
    clean.api.finished_run = {"deactivated": 3, "held": 25}
    report = clean()
    assert (report.deactivated, report.held) == (3, 25)


@pytest.mark.parametrize("function", ["claim_due_receipts", "record_push_receipts", "finish_receipt_run", "prune_push"])
def test_a_cleanup_fails_if_the_database_does_not_respond(function: str) -> None:
    clean = Cleaner(due(1))
    clean.api.faults[function] = httpx.ConnectError("refused")
    with pytest.raises(DatabaseUnavailable, match=function):
        clean()


def test_a_receipt_with_an_error_is_logged_with_its_message_id_and_without_a_token(printed: Printed) -> None:
    Cleaner(due(1, 2), expo=(receipts({"t1": error("DeviceNotRegistered"), "t2": {"status": "ok"}}),))()
    lines = printed()
    [line] = [line for line in lines if line["level"] == "WARNING"]
    assert (line["correlation_id"], line["error"]) == (uuid(1), "DeviceNotRegistered")
    assert push_token(1) not in str(lines)
