"""Delivery to several providers: each gets its devices, and one that fails does not affect the others."""

from collections.abc import Iterator
from uuid import UUID

import httpx
import pytest
from chat_push.apns import Apns
from chat_push.database import PushDatabase
from chat_push.delivery import Report, Senders, deliver, sweep
from chat_push.expo import Expo
from chat_push.fcm import Fcm

from tests.credentials import APNS, ec_key, pem, service_account
from tests.http2_fakes import Action, Close, Http2Server, Reply
from tests.http_fakes import EXPO_URL, SUPABASE_URL, DataApi, Json, Printed, PushService, claim, push, push_token, uuid

FCM_TOKEN = "cXyz_9-8:APA91bH" + "x" * 140
APNS_TOKEN = "0a" * 32


class Worker:
    """A worker with a scripted database, and scripted servers of all providers."""

    def __init__(self, *claims: Json) -> None:
        self.api = DataApi(*claims)
        self.expo = PushService()
        self.fcm, self.apns = Http2Server(), Http2Server()
        self._database = PushDatabase(SUPABASE_URL, "key", httpx.MockTransport(self.api))
        expo = Expo(EXPO_URL, None, httpx.MockTransport(self.expo), pause=lambda seconds: None)
        google = httpx.MockTransport(lambda _: httpx.Response(200, json={"access_token": "t", "expires_in": 3600}))
        fcm = Fcm(service_account(), "https://fcm.example", self.fcm.connect, google)
        connect = {"production": self.apns.connect, "sandbox": self.apns.connect}
        apns = Apns(pem(ec_key()), APNS["key_id"], APNS["team_id"], APNS["topic"], connect=connect)  # type: ignore[arg-type]
        self.senders = Senders(expo, {"fcm": fcm, "apns": apns})

    def deliver(self, *numbers: int) -> Report:
        return deliver([UUID(uuid(number)) for number in numbers], self._database, self.senders, lambda: 60.0)

    def sweep(self) -> tuple[Report, bool]:
        return sweep(self._database, self.senders, lambda: 60.0)

    def statuses(self) -> list[list[str]]:
        """The recorded status of each delivery, for each job."""
        return [[delivery["status"] for delivery in result["deliveries"]] for result in self.api.results]

    @property
    def reports(self) -> dict[str, Json]:
        """What the worker reported of FCM and APNs in its last record."""
        return {
            report.pop("provider"): report for report in self.api.calls("record_push_results")[-1]["p_provider_reports"]
        }


class Workers:
    def __init__(self) -> None:
        self.made: list[Worker] = []

    def __call__(self, *claims: Json) -> Worker:
        self.made.append(Worker(*claims))
        return self.made[-1]


@pytest.fixture
def worker() -> Iterator[Workers]:
    """Makes workers. This fixture closes their connections; a function never does."""
    workers = Workers()
    yield workers
    for made in workers.made:
        for sender in made.senders.direct.values():
            sender.close()


def mixed(number: int = 1) -> Json:
    """A job with a device of each provider, in the order apns, expo, fcm."""
    job = push(number, [APNS_TOKEN, push_token(number), FCM_TOKEN])
    for device, provider, platform in zip(
        job["devices"], ("apns", "expo", "fcm"), ("ios", "ios", "android"), strict=True
    ):
        device |= {"provider": provider, "platform": platform}
    return job


OK = {"has_succeeded": True, "fault": None, "retry_after_seconds": None}


def test_one_job_is_sent_to_devices_of_all_providers_and_each_outcome_is_recorded(worker: Workers) -> None:
    made = worker(claim(mixed()))
    report = made.deliver(1)
    assert made.statuses() == [["handed_over", "accepted", "handed_over"]]
    assert [len(made.expo.accepted), len(made.fcm.requests), len(made.apns.requests)] == [1, 1, 1]
    assert made.reports == {"fcm": OK, "apns": OK}
    assert (report.deliveries, len(report.insert_to_accept)) == ({"handed_over": 2, "accepted": 1}, 1)


def test_a_claim_names_the_configured_providers(worker: Workers) -> None:
    made = worker()
    made.deliver(1)
    assert made.api.calls("claim_push_jobs")[0]["p_providers"] == ["expo", "fcm", "apns"]


def test_the_unused_part_of_a_send_slot_counts_notifications_of_expo_only(worker: Workers) -> None:
    made = worker(claim(mixed()))
    made.deliver(1)
    assert made.api.calls("record_push_results")[0]["p_unused_notifications"] == 0


@pytest.mark.parametrize(
    ("answer", "status", "fault", "retry_after"),
    [
        (Reply(403), "configuration_fault", "configuration_fault", None),
        (Reply(429, {}, {"retry-after": "90"}), "retry", "retry", 90),
        (Close(), "maybe_sent", "retry", None),
    ],
)
def test_a_provider_that_refuses_or_does_not_answer_does_not_affect_the_others(
    worker: Workers, answer: Action, status: str, fault: str, retry_after: float | None
) -> None:
    made = worker(claim(mixed()))
    made.fcm.script.append(answer)
    made.deliver(1)
    assert made.statuses() == [["handed_over", "accepted", status]]
    assert made.reports == {
        "apns": OK,
        "fcm": {"has_succeeded": False, "fault": fault, "retry_after_seconds": retry_after},
    }


def test_a_provider_that_refuses_everything_does_not_end_a_sweep(worker: Workers) -> None:
    made = worker(claim(mixed(1), examined=100), claim(mixed(2)))
    made.fcm.default = lambda request: Reply(403)
    _, more_due = made.sweep()
    assert made.statuses() == [["handed_over", "accepted", "configuration_fault"]] * 2
    assert not more_due


def test_a_fault_of_our_own_in_one_sender_loses_no_outcome_of_the_others(worker: Workers, printed: Printed) -> None:
    made = worker(claim(mixed()))
    made.fcm.connect_fault = RuntimeError(FCM_TOKEN)
    made.deliver(1)
    assert made.statuses() == [["handed_over", "accepted", "maybe_sent"]]
    [logged] = [line for line in printed() if line.get("level") == "ERROR"]
    assert (logged["provider"], logged["error"]) == ("fcm", "RuntimeError")


def test_pushes_are_counted_by_provider_and_by_what_it_did_with_them(worker: Workers) -> None:
    made = worker(claim(mixed(1), mixed(2), mixed(3)))
    made.apns.default = lambda request: Reply(403, {"reason": "InvalidProviderToken"})
    made.fcm.script += [Reply(), Reply(400), Reply(500)]
    report = made.deliver(1, 2, 3)
    assert report.faults == {"apns": {"InvalidProviderToken": 3}}
    assert report.accepted == {"expo": 3, "fcm": 1}
    assert report.not_accepted == {"fcm": 2}


def test_no_log_line_contains_a_token_a_text_or_a_key(worker: Workers, printed: Printed) -> None:
    made = worker(claim(mixed()))
    made.apns.default = lambda request: Reply(400, {"reason": APNS_TOKEN + " Hello"})
    made.deliver(1)
    logged = str(printed())
    assert uuid(1) in logged
    for secret in (APNS_TOKEN, FCM_TOKEN, "Hello", "PRIVATE", "Bearer"):
        assert secret not in logged
