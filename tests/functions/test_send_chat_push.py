"""send_chat_push: from an event to the push and its record, with HTTP fakes of Supabase and Expo."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import boto3
import httpx
import pytest
from chat_push.database import DatabaseUnavailable
from chat_push.secrets import SecretUnavailable
from chat_push.settings import SettingsError
from pydantic import ValidationError

from tests.credentials import APNS, ec_key, pem, service_account
from tests.functions.invocation import ROOT, Context, Invoke, LoadFunction, event, numbers_of
from tests.http_fakes import (
    SUPABASE_URL,
    DataApi,
    Printed,
    PushService,
    claim,
    errors,
    push,
    push_token,
    recorded,
    uuid,
)

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

pytestmark = [
    pytest.mark.disable_socket,
    pytest.mark.usefixtures("network"),
    # chat_push.observability filters it, but pytest resets the filters for each test.
    pytest.mark.filterwarnings("ignore:No application metrics to publish:UserWarning"),
]


QUEUE_URL = "https://sqs.eu-central-1.amazonaws.com/123456789012/push"


def sqs(*bodies: str) -> dict[str, Any]:
    """A batch of records with these bodies. Their SQS message ids are sqs-0, sqs-1, …"""
    batch = event("sqs")
    [record] = batch["Records"]
    batch["Records"] = [{**record, "messageId": f"sqs-{index}", "body": body} for index, body in enumerate(bodies)]
    return batch


def failures(*indexes: int) -> dict[str, Any]:
    return {"batchItemFailures": [{"itemIdentifier": f"sqs-{index}"} for index in indexes]}


@pytest.fixture
def expo() -> PushService:
    return PushService()


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, load_function: LoadFunction) -> Invoke:
    monkeypatch.delenv("EXPO_URL", raising=False)
    handler = load_function(
        "send_chat_push", SUPABASE_URL=SUPABASE_URL, BACKEND_SECRET_ID="backend", PUSH_QUEUE_URL=QUEUE_URL
    ).lambda_handler
    return lambda payload: handler(payload, Context("send_chat_push"))


def test_a_claim_names_the_providers_that_the_secret_has_credentials_for(
    invoke: Invoke, api: DataApi, secrets_manager: "SecretsManagerClient"
) -> None:
    value = {
        "supabase_secret_key": "sb_secret_x",
        "fcm_service_account": service_account(),
        "apns_key": pem(ec_key()),
        "apns_key_id": APNS["key_id"],
        "apns_team_id": APNS["team_id"],
        "apns_topic": APNS["topic"],
    }
    secrets_manager.create_secret(Name="backend", SecretString=json.dumps(value))
    invoke(event("sqs"))
    [call] = api.calls("claim_push_jobs")
    assert call["p_providers"] == ["expo", "fcm", "apns"]


def test_pushes_of_fcm_and_apns_are_also_counted_by_provider(
    invoke: Invoke, api: DataApi, secrets_manager: "SecretsManagerClient", printed: Printed
) -> None:
    value = {"supabase_secret_key": "sb_secret_x", "apns_key": "not a key", "fcm_service_account": "not an account"}
    secrets_manager.create_secret(Name="backend", SecretString=json.dumps(value))
    job = push(1, [push_token(1), push_token(2), "0a" * 32])
    for device, provider in zip(job["devices"], ("expo", "fcm", "apns"), strict=True):
        device["provider"] = provider
    api.claims.append(claim(job))
    invoke(event("sqs"))
    lines = printed()
    metrics = numbers_of(lambda: lines)
    assert (metrics["PushAccepted"], metrics["ConfigurationFault"]) == (1, 2)
    errors = {line["provider"]: line["errors"] for line in lines if line.get("level") == "ERROR"}
    assert errors == {"fcm": {"InvalidServiceAccount": 1}, "apns": {"InvalidApnsKey": 1}}
    by_provider = {name: number for name, number in metrics.items() if name.startswith("Direct")}
    assert by_provider == {"DirectConfigurationFault{fcm}": 1, "DirectConfigurationFault{apns}": 1}


@pytest.mark.parametrize("empty", ["", None])
def test_an_empty_credential_switches_no_provider_on(
    invoke: Invoke, api: DataApi, secrets_manager: "SecretsManagerClient", empty: str | None
) -> None:
    value = {"supabase_secret_key": "sb_secret_x", "fcm_service_account": empty, "apns_key": empty}
    secrets_manager.create_secret(Name="backend", SecretString=json.dumps(value))
    invoke(event("sqs"))
    assert api.calls("claim_push_jobs")[0]["p_providers"] == ["expo"]


@pytest.mark.parametrize("function", ["send_chat_push", "cleanup_receipts", "register_device"])
def test_a_stack_with_expo_alone_loads_no_code_of_the_other_providers(function: str) -> None:
    """They import cryptography, which takes time at each cold start."""
    code = """
import sys
import app
from chat_push.backend import DirectUrls, direct_senders
from chat_push.secrets import BackendSecret

of_others = {"chat_push.http2", "chat_push.fcm", "chat_push.apns", "chat_push.credentials"}
direct_senders(BackendSecret(supabase_secret_key="x"), DirectUrls())
print(sorted(of_others & sys.modules.keys()))
direct_senders(BackendSecret(supabase_secret_key="x", fcm_service_account="x", apns_key="x"), DirectUrls())
print(sorted(of_others - sys.modules.keys()))
"""
    settings = {
        **dict.fromkeys(["SUPABASE_URL", "PUSH_QUEUE_URL"], SUPABASE_URL),
        **dict.fromkeys(["BACKEND_SECRET_ID", "APP_SECRET_ID"], "secret"),
    }
    path = os.pathsep.join(str(ROOT / folder) for folder in (f"functions/{function}", "layers/shared"))
    environment = {**os.environ, **settings, "PYTHONPATH": path}
    loaded = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert loaded.stdout.splitlines()[-2:] == ["[]", "[]"]


@pytest.mark.usefixtures("secret")
class TestQueue:
    def test_a_record_with_a_message_id_sends_its_push(self, invoke: Invoke, api: DataApi, expo: PushService) -> None:
        api.claims.append(claim(push(1, [push_token(1), push_token(2)])))
        assert invoke(event("sqs")) == failures()
        assert [call["p_message_ids"] for call in api.calls("claim_push_jobs")] == [[uuid(1)]]
        assert expo.recipients == [[push_token(1), push_token(2)]]
        assert [delivery["status"] for delivery in api.results[0]["deliveries"]] == ["accepted", "accepted"]

    @pytest.mark.parametrize("body", ["", "null", "Hello there", '{"record": {"id": 1}}', uuid(1) + "0", uuid(1)[:-1]])
    def test_a_malformed_record_fails_alone(
        self, invoke: Invoke, api: DataApi, expo: PushService, printed: Printed, body: str
    ) -> None:
        """SQS delivers only this record again, until it is a dead letter. The log names its id and not its body."""
        api.claims.append(claim(push(1, [push_token(1)]), push(2, [push_token(2)])))
        assert invoke(sqs(uuid(1), body, uuid(2))) == failures(1)
        assert [call["p_message_ids"] for call in api.calls("claim_push_jobs")] == [[uuid(1), uuid(2)]]
        assert expo.recipients == [[push_token(1), push_token(2)]]
        lines = printed()
        [line] = [line for line in lines if line.get("level") == "ERROR"]
        assert line["sqs_message_id"] == "sqs-1"
        assert "Hello" not in str(lines)
        [metrics] = [line for line in lines if "_aws" in line]
        assert metrics["MalformedRecord"] == [1]

    def test_a_batch_of_malformed_records_makes_no_request(self, invoke: Invoke, api: DataApi) -> None:
        assert invoke(sqs("a", "b")) == failures(0, 1)
        assert api.requests == []

    def test_a_message_with_two_queue_records_is_claimed_once(self, invoke: Invoke, api: DataApi) -> None:
        assert invoke(sqs(uuid(1), uuid(2), uuid(1))) == failures()
        assert [call["p_message_ids"] for call in api.calls("claim_push_jobs")] == [[uuid(1), uuid(2)]]

    @pytest.mark.parametrize("function", ["claim_push_jobs", "record_push_results"])
    @pytest.mark.parametrize(
        "fault", [httpx.ConnectError("refused"), httpx.Response(503), httpx.Response(401, json={"code": "42501"})]
    )
    def test_without_the_database_all_records_fail(
        self, invoke: Invoke, api: DataApi, printed: Printed, function: str, fault: httpx.Response | Exception
    ) -> None:
        api.claims.append(claim(push(1, [push_token(1)])))
        api.faults[function] = fault
        assert invoke(sqs(uuid(1), "x", uuid(2))) == failures(1, 0, 2)
        assert any(line.get("level") == "ERROR" and function in line.get("error", "") for line in printed())

    def test_the_record_of_a_message_without_a_job_does_not_fail(
        self, invoke: Invoke, api: DataApi, printed: Printed
    ) -> None:
        """Its insert was rolled back, or the webhook is on the wrong table. It is logged and counted."""
        api.claims.append(claim(unknown=[uuid(1)]))
        assert invoke(sqs(uuid(1))) == failures()
        metrics = numbers_of(printed)
        del metrics["QueueAge"]
        assert metrics == {"UnknownMessage": 1}

    def test_the_record_of_a_failed_push_does_not_fail(self, invoke: Invoke, api: DataApi, expo: PushService) -> None:
        """The database schedules the next attempt."""
        api.claims.append(claim(push(1, [push_token(1)])))
        expo.answers.append(httpx.Response(500))
        assert invoke(sqs(uuid(1))) == failures()
        assert [delivery["status"] for delivery in api.results[0]["deliveries"]] == ["maybe_sent"]


class TestSecret:
    @pytest.mark.parametrize("value", [None, "{}", "sb_secret_x"])
    def test_without_its_secret_all_records_fail_until_it_is_complete(
        self, invoke: Invoke, secrets_manager: "SecretsManagerClient", value: str | None, printed: Printed
    ) -> None:
        if value is not None:
            secrets_manager.create_secret(Name="backend", SecretString=value)
        assert invoke(sqs(uuid(1), uuid(2))) == failures(0, 1)
        lines = printed()
        assert "secret backend" in str(lines)
        assert "sb_secret_x" not in str(lines)
        assert numbers_of(lambda: lines)["SecretUnavailable"] == 1
        if value is None:
            secrets_manager.create_secret(Name="backend")
        secrets_manager.put_secret_value(SecretId="backend", SecretString='{"supabase_secret_key": "sb_secret_x"}')
        assert invoke(sqs(uuid(1), uuid(2))) == failures(), "a corrected secret is read at once"

    def test_without_its_secret_a_sweep_fails(
        self, invoke: Invoke, secrets_manager: "SecretsManagerClient", printed: Printed
    ) -> None:
        with pytest.raises(SecretUnavailable, match="secret backend"):
            invoke(event("sweep"))
        assert numbers_of(printed) == {"SecretUnavailable": 1}

    @pytest.mark.parametrize(("token", "bearer"), [("robot", "Bearer robot"), ("", None), (None, None)])
    def test_database_and_expo_receive_the_keys_in_the_secret(
        self,
        invoke: Invoke,
        secrets_manager: "SecretsManagerClient",
        api: DataApi,
        expo: PushService,
        token: str | None,
        bearer: str | None,
    ) -> None:
        keys = {"supabase_secret_key": "sb_secret_x", "expo_access_token": token}
        secrets_manager.create_secret(Name="backend", SecretString=json.dumps(keys))
        api.claims.append(claim(push(1, [push_token(1)])))
        invoke(event("sqs"))
        assert [request.headers["apikey"] for request in api.requests] == ["sb_secret_x"] * 2
        assert expo.requests[0].headers.get("authorization") == bearer

    def test_rotated_keys_are_used_at_once_although_the_old_ones_are_cached(
        self, invoke: Invoke, secrets_manager: "SecretsManagerClient", api: DataApi, expo: PushService
    ) -> None:
        """A refused key is read again, and the invocation succeeds."""
        old = {"supabase_secret_key": "old", "expo_access_token": "old"}
        secrets_manager.create_secret(Name="backend", SecretString=json.dumps(old))
        invoke(event("sweep"))
        new = {"supabase_secret_key": "new", "expo_access_token": "new"}
        secrets_manager.put_secret_value(SecretId="backend", SecretString=json.dumps(new))
        api.valid_key = "new"
        expo.answers.append(errors(403, "UNAUTHORIZED"))
        api.claims.append(claim(push(1, [push_token(1)])))
        assert invoke(sqs(uuid(1))) == failures()
        assert [request.headers["authorization"] for request in expo.requests] == ["Bearer old", "Bearer new"]
        assert [delivery["status"] for delivery in api.results[0]["deliveries"]] == ["accepted"]

    def test_a_rotated_secret_is_used_without_a_deploy(
        self,
        invoke: Invoke,
        secrets_manager: "SecretsManagerClient",
        forget_secrets: Callable[[], None],
        api: DataApi,
    ) -> None:
        secrets_manager.create_secret(Name="backend", SecretString='{"supabase_secret_key": "old"}')
        invoke(event("sweep"))
        secrets_manager.put_secret_value(SecretId="backend", SecretString='{"supabase_secret_key": "new"}')
        forget_secrets()
        invoke(event("sweep"))
        assert [request.headers["apikey"] for request in api.requests] == ["old", "old", "new", "new"]


@pytest.mark.usefixtures("secret")
class TestSweepAndRequests:
    def test_a_sweep_sends_due_pushes(self, invoke: Invoke, api: DataApi, expo: PushService) -> None:
        api.claims.append(claim(push(1, [push_token(1)])))
        report = invoke(event("sweep"))
        assert [call["p_message_ids"] for call in api.calls("claim_push_jobs")] == [None]
        assert expo.recipients == [[push_token(1)]]
        assert report["deliveries"] == {"accepted": 1}

    def test_an_operator_can_request_named_messages(self, invoke: Invoke, api: DataApi) -> None:
        api.claims.append(claim(not_due=[uuid(2)], deferred=[uuid(1)]))
        report = invoke({"message_ids": [uuid(1), uuid(2)]})
        assert [call["p_message_ids"] for call in api.calls("claim_push_jobs")] == [[uuid(1), uuid(2)]]
        assert (report["not_due"], report["deferred"]) == (1, 1)

    def test_the_response_of_a_sweep_is_json(self, invoke: Invoke, api: DataApi) -> None:
        api.claims.append(claim(push(1, [push_token(1)]), finished=[{**FINISHED, "message_id": uuid(2)}]))
        report = invoke(event("sweep"))
        assert json.loads(json.dumps(report)) == report

    @pytest.mark.parametrize(
        ("request_", "field"),
        [
            ({"message_ids": [uuid(1), "Hello"]}, "message_ids.1"),
            ({"message_ids": uuid(1)}, "message_ids"),
            ({"message_id": uuid(1)}, "message_id"),
            ({"sweep": "Hello"}, "sweep"),
        ],
    )
    def test_a_malformed_event_is_refused_with_the_name_of_the_field(
        self, invoke: Invoke, api: DataApi, request_: dict[str, Any], field: str
    ) -> None:
        with pytest.raises(ValidationError, match=rf"(?m)^{field}$") as raised:
            invoke(request_)
        assert "Hello" not in str(raised.value)
        assert api.requests == []

    def test_without_the_database_a_sweep_fails(self, invoke: Invoke, api: DataApi) -> None:
        api.faults["claim_push_jobs"] = httpx.ConnectError("refused")
        with pytest.raises(DatabaseUnavailable):
            invoke(event("sweep"))


@pytest.fixture
def queue(secret: None) -> Callable[[], list[dict[str, Any]]]:
    """Returns the bodies of the messages in PushQueue, each with its delay in seconds."""
    sqs_client = boto3.client("sqs", region_name="eu-central-1")
    url = sqs_client.create_queue(QueueName="push")["QueueUrl"]
    assert url == QUEUE_URL

    def bodies() -> list[dict[str, Any]]:
        from moto.sqs.models import sqs_backends

        messages = sqs_backends["123456789012"]["eu-central-1"].queues["push"]._messages
        return [
            {"delay": round((message.delayed_until - (message.sent_timestamp or 0)) / 1000), **json.loads(message.body)}
            for message in messages
        ]

    return bodies


def wakeup(hops: int = 1, seconds: float | None = None) -> str:
    """The body of a wake-up for due jobs, or of a sweep that continues for so many seconds."""
    until = None if seconds is None else (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
    return json.dumps({"hops": hops, "sweep_until": until})


def busy(api: DataApi) -> None:
    """Makes the next claim empty: more is due, but other workers have reserved the next second."""
    api.claims.append(claim(left_due=[uuid(1)], slot=None))


class TestSweepsOfTheSchedule:
    """The schedule sweeps four times a minute. A sweep that leaves due jobs continues in another invocation."""

    PAGE = claim(*[push(number) for number in range(100)])

    def test_the_scheduled_run_queues_the_other_sweeps_of_its_minute_even_if_it_fails(
        self, invoke: Invoke, api: DataApi, queue: Callable[[], list[dict[str, Any]]]
    ) -> None:
        api.faults["claim_push_jobs"] = httpx.ConnectError("refused")
        with pytest.raises(DatabaseUnavailable):
            invoke({"sweep": True, "again_after_seconds": [15, 30, 45]})
        queued = queue()
        assert [(wakeup["delay"], wakeup["hops"]) for wakeup in queued] == [(15, 1), (30, 1), (45, 1)]
        for wakeup in queued:
            seconds = (datetime.fromisoformat(wakeup["sweep_until"]) - datetime.now(UTC)).total_seconds()
            assert wakeup["delay"] + 10 < seconds <= wakeup["delay"] + 15

    def test_a_sweep_that_leaves_due_jobs_wakes_the_next_one_until_the_schedule_sweeps_again(
        self, invoke: Invoke, api: DataApi, queue: Callable[[], list[dict[str, Any]]]
    ) -> None:
        busy(api)
        invoke(event("sweep"))
        [wakeup] = queue()
        seconds = (datetime.fromisoformat(wakeup["sweep_until"]) - datetime.now(UTC)).total_seconds()
        assert 10 < seconds <= 15
        assert (wakeup["delay"], wakeup["hops"]) == (4, 1)

    def test_a_sweep_that_leaves_nothing_queues_no_wake_up(
        self, invoke: Invoke, api: DataApi, queue: Callable[[], list[dict[str, Any]]]
    ) -> None:
        api.claims.append(self.PAGE)
        invoke(event("sweep"))
        assert queue() == []

    def test_a_sweep_does_not_continue_while_expo_rejects_everything(
        self, invoke: Invoke, api: DataApi, expo: PushService, queue: Callable[[], list[dict[str, Any]]]
    ) -> None:
        api.claims.append(claim(push(1, [push_token(1)]), left_due=[uuid(2)]))
        expo.answers.append(errors(403, "UNAUTHORIZED"))
        invoke(event("sweep"))
        assert queue() == []

    def test_a_wake_up_of_the_schedule_sweeps_and_passes_its_end_on(
        self, invoke: Invoke, api: DataApi, queue: Callable[[], list[dict[str, Any]]]
    ) -> None:
        busy(api)
        body = wakeup(hops=2, seconds=10)
        assert invoke(sqs(body)) == failures()
        [passed_on] = queue()
        until = datetime.fromisoformat(passed_on["sweep_until"])
        assert (passed_on["hops"], until) == (3, datetime.fromisoformat(json.loads(body)["sweep_until"]))

    @pytest.mark.parametrize(("seconds", "claims"), [(-1, 0), (2, 1)])
    def test_a_chain_of_sweeps_ends_when_the_schedule_sweeps_again(
        self, invoke: Invoke, api: DataApi, queue: Callable[[], list[dict[str, Any]]], seconds: int, claims: int
    ) -> None:
        busy(api)
        assert invoke(sqs(wakeup(seconds=seconds))) == failures()
        assert (len(api.calls("claim_push_jobs")), queue()) == (claims, [])

    def test_the_messages_of_a_batch_are_sent_before_its_wake_ups_sweep_once(
        self, invoke: Invoke, api: DataApi, queue: Callable[[], list[dict[str, Any]]]
    ) -> None:
        assert invoke(sqs(wakeup(seconds=10), uuid(1), wakeup())) == failures()
        assert [call["p_message_ids"] for call in api.calls("claim_push_jobs")] == [[uuid(1)], None]


class TestWakeupsForDueJobs:
    """An invocation that leaves jobs wakes a sweep at the time when they are due."""

    LEFT = (
        pytest.param(claim(deferred=[uuid(1)]), None, 2, id="deferred"),
        pytest.param(claim(left_due=[uuid(1)], slot=None), None, 2, id="left due"),
        pytest.param(claim(not_due=[uuid(1)], later=True), None, 2, id="a read that is not due yet"),
        pytest.param(claim(push(1, [push_token(1)])), httpx.Response(503), 4, id="unanswered"),
        pytest.param(claim(push(1, [push_token(1)])), httpx.Response(429), 4, id="refused for now"),
    )

    @pytest.mark.parametrize(("claimed", "answer", "spacing"), LEFT)
    def test_jobs_that_a_webhook_leaves_wake_a_sweep_when_they_are_due(
        self,
        invoke: Invoke,
        api: DataApi,
        expo: PushService,
        queue: Callable[[], list[dict[str, Any]]],
        claimed: dict[str, Any],
        answer: httpx.Response | None,
        spacing: int,
    ) -> None:
        api.claims.append(claimed)
        expo.answers.extend([answer] * 5 if answer else [])
        api.delays = [1, 7]
        assert invoke(sqs(uuid(1))) == failures()
        assert api.calls("plan_wakeups") == [{"p_within_seconds": 20, "p_spacing_seconds": spacing}]
        assert queue() == [{"delay": delay, "hops": 1, "sweep_until": None} for delay in (1, 7)]

    def test_a_recorded_job_that_is_due_again_soon_wakes_a_sweep(
        self, invoke: Invoke, api: DataApi, queue: Callable[[], list[dict[str, Any]]]
    ) -> None:
        """The conversation changed while its push was sent."""
        api.claims.append(claim(push(1, [push_token(1)])))
        api.recorded = recorded(later=True)
        api.delays = [3]
        assert invoke(sqs(uuid(1))) == failures()
        assert queue() == [{"delay": 3, "hops": 1, "sweep_until": None}]

    def test_an_invocation_that_leaves_nothing_plans_nothing(self, invoke: Invoke, api: DataApi) -> None:
        api.claims.append(claim(push(1, [push_token(1)])))
        invoke(sqs(uuid(1)))
        assert api.functions == ["claim_push_jobs", "record_push_results"]

    def test_each_sweep_wakes_the_next_one_for_what_is_due_before_the_schedule_sweeps_again(
        self, invoke: Invoke, api: DataApi, queue: Callable[[], list[dict[str, Any]]]
    ) -> None:
        """For jobs that became due later than their worker looked ahead, and for leases of workers that died."""
        api.delays = [13]
        invoke(event("sweep"))
        assert queue() == [{"delay": 13, "hops": 1, "sweep_until": None}]

    def test_a_wake_up_for_due_jobs_claims_once_and_starts_no_chain(
        self, invoke: Invoke, api: DataApi, queue: Callable[[], list[dict[str, Any]]]
    ) -> None:
        """Many of them run in a storm. More claims would keep the workers from first attempts."""
        api.claims.extend([TestSweepsOfTheSchedule.PAGE] * 2)
        assert invoke(sqs(wakeup())) == failures()
        assert (len(api.calls("claim_push_jobs")), queue()) == (1, [])

    @pytest.mark.parametrize(("hops", "delays"), [(11, [12]), (12, [])])
    def test_a_chain_of_wake_ups_ends_before_aws_takes_it_for_a_loop(
        self, invoke: Invoke, api: DataApi, queue: Callable[[], list[dict[str, Any]]], hops: int, delays: list[int]
    ) -> None:
        api.delays = [1]
        invoke(sqs(wakeup(hops)))
        assert [wakeup["hops"] for wakeup in queue()] == delays

    def test_more_wake_ups_than_one_request_takes_are_all_queued(
        self, invoke: Invoke, api: DataApi, queue: Callable[[], list[dict[str, Any]]]
    ) -> None:
        api.delays = list(range(1, 21))
        invoke(event("sweep"))
        assert [wakeup["delay"] for wakeup in queue()] == api.delays

    def test_a_wake_up_that_sqs_does_not_take_fails_no_push(
        self, invoke: Invoke, api: DataApi, expo: PushService, secret: None, printed: Printed
    ) -> None:
        """The queue does not exist in this test."""
        api.claims.append(claim(push(1, [push_token(1)])))
        expo.answers.append(httpx.Response(503))
        api.delays = [1]
        assert invoke(sqs(uuid(1))) == failures()
        [line] = [line for line in printed() if line.get("level") == "ERROR"]
        assert line["message"].startswith("no wake-up sent")
        assert len(api.results) == 1

    def test_a_database_that_plans_no_wake_up_fails_no_push(
        self, invoke: Invoke, api: DataApi, secret: None, printed: Printed
    ) -> None:
        api.claims.append(claim(deferred=[uuid(1)]))
        api.faults["plan_wakeups"] = httpx.ConnectError("refused")
        assert invoke(sqs(uuid(1))) == failures()
        [line] = [line for line in printed() if line.get("level") == "ERROR"]
        assert line["message"].startswith("no wake-up planned")


FINISHED = {"message_id": uuid(3), "outcome": "skipped", "reason": "read"}


@pytest.mark.usefixtures("secret")
class TestMetrics:
    def test_every_count_of_an_invocation_is_published_as_a_metric(
        self, invoke: Invoke, api: DataApi, expo: PushService, printed: Printed
    ) -> None:
        tokens = [push_token(number) for number in range(4)]
        api.claims.append(
            claim(
                push(1, tokens[:3]),
                push(2, tokens[3:]),
                finished=[FINISHED],
                deferred=[uuid(4)],
                unknown=[uuid(5)],
                expired_leases=[1, 3],
            )
        )
        api.recorded = recorded(deactivated=1, held=20, lost_leases=[2], unrecorded=[1])
        expo.answers.append(
            httpx.Response(
                200,
                json={
                    "data": [
                        {"status": "ok", "id": "t"},
                        {"status": "error", "details": {"error": "DeviceNotRegistered"}},
                        {"status": "error", "details": {"error": "MessageRateExceeded"}},
                        {"status": "ok", "id": "u"},
                    ]
                },
            )
        )
        invoke(sqs(*[uuid(number) for number in range(1, 6)]))
        metrics = numbers_of(printed)
        for name, values in (("InsertToAccept", 2), ("QueueAge", 5)):
            milliseconds = metrics.pop(name)
            assert len(milliseconds) == values
            assert all(value > 0 for value in milliseconds)
        assert metrics == {
            "PushAccepted": 2,
            "PushFailed{DeviceNotRegistered}": 1,
            "PushRetry": 1,
            "PushSkipped{read}": 1,
            "PushDeferred": 1,
            "UnknownMessage": 1,
            "LeaseExpired": 2,
            "LeaseLost": 1,
            "ResultUnrecorded": 1,
            "DeviceDeactivated": 1,
            "DeviceDeactivationHeld": 20,
        }

    def test_refused_credentials_are_counted_and_logged_as_an_error(
        self, invoke: Invoke, api: DataApi, expo: PushService, printed: Printed
    ) -> None:
        api.claims.append(claim(push(1, [push_token(1)])))
        expo.answers.append(errors(403, "UNAUTHORIZED"))
        invoke(event("sweep"))
        lines = printed()
        [line] = [line for line in lines if line.get("level") == "ERROR"]
        assert line["errors"] == {"UNAUTHORIZED": 1}
        assert numbers_of(lambda: lines) == {"ConfigurationFault": 1, "SweepCompleted": 1}
        assert "expo_access_token" in line["message"], "the log names the fix"

    def test_unknown_error_codes_are_counted_as_other(
        self, invoke: Invoke, api: DataApi, expo: PushService, printed: Printed
    ) -> None:
        """CloudWatch bills each code as a metric."""
        api.claims.append(claim(push(1, [push_token(number) for number in range(4)])))
        codes = ("MessageTooBig", "Invented1", "Invented2", "x y")
        tickets = [{"status": "error", "details": {"error": code}} for code in codes]
        expo.answers.append(httpx.Response(200, json={"data": tickets}))
        invoke(event("sweep"))
        assert numbers_of(printed) == {"PushFailed{MessageTooBig}": 1, "PushFailed{other}": 3, "SweepCompleted": 1}

    def test_the_queue_age_metric_is_the_time_since_the_record_was_sent(self, invoke: Invoke, printed: Printed) -> None:
        batch = sqs(uuid(1))
        sent_at = int(batch["Records"][0]["attributes"]["SentTimestamp"])
        earliest = time.time() * 1000 - sent_at
        invoke(batch)
        assert earliest <= numbers_of(printed)["QueueAge"] <= time.time() * 1000 - sent_at

    def test_a_wake_up_has_no_queue_age(self, invoke: Invoke, printed: Printed) -> None:
        """It waits in the queue on purpose."""
        invoke(sqs(wakeup()))
        assert numbers_of(printed) == {}

    def test_the_queue_age_metric_is_zero_if_the_clock_of_sqs_is_ahead(self, invoke: Invoke, printed: Printed) -> None:
        batch = sqs(uuid(1))
        batch["Records"][0]["attributes"]["SentTimestamp"] = str(round(time.time() * 1000) + 60_000)
        invoke(batch)
        assert numbers_of(printed)["QueueAge"] == 0

    def test_a_failed_sweep_is_not_counted_as_completed(self, invoke: Invoke, api: DataApi, printed: Printed) -> None:
        api.faults["claim_push_jobs"] = httpx.ConnectError("refused")
        with pytest.raises(DatabaseUnavailable):
            invoke(event("sweep"))
        assert numbers_of(printed) == {}

    def test_each_log_line_has_the_correlation_id_of_its_own_message(
        self, invoke: Invoke, api: DataApi, printed: Printed
    ) -> None:
        api.claims.append(claim(push(1, [push_token(1)]), push(2, [push_token(2)])))
        invoke(sqs(uuid(1), uuid(2), "x"))
        lines = [line for line in printed() if "_aws" not in line]
        assert [line.get("correlation_id") for line in lines] == [None, uuid(1), uuid(2)]

    def test_no_log_line_or_metric_contains_a_text_a_token_or_a_key(
        self, invoke: Invoke, api: DataApi, expo: PushService, printed: Printed
    ) -> None:
        job = push(1, [push_token(1)], body="Secret text", title="Secret name")
        api.claims.append(claim(job))
        expo.answers.append(errors(400, "VALIDATION_ERROR", message=f"Secret text for {push_token(1)}"))
        invoke(event("sqs"))
        lines = str(printed())
        assert uuid(1) in lines
        for secret in ("Secret", push_token(1), "sb_secret_x"):
            assert secret not in lines


def test_without_its_settings_send_chat_push_does_not_start(
    monkeypatch: pytest.MonkeyPatch, load_function: LoadFunction
) -> None:
    for name in ("SUPABASE_URL", "BACKEND_SECRET_ID", "PUSH_QUEUE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SettingsError, match=r"SUPABASE_URL: .*; BACKEND_SECRET_ID: .*; PUSH_QUEUE_URL: Field required"):
        load_function("send_chat_push")
