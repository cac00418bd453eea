"""cleanup_receipts: from the event of the schedule to records, metrics and logs."""

import json
from typing import TYPE_CHECKING

import httpx
import pytest
from chat_push.database import DatabaseUnavailable
from chat_push.secrets import SecretUnavailable
from chat_push.settings import SettingsError

from tests.functions.invocation import Context, Invoke, LoadFunction, event, numbers_of
from tests.http_fakes import SUPABASE_URL, DataApi, Json, Printed, ReceiptService, due, errors, pruned, receipts

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient

pytestmark = [
    pytest.mark.disable_socket,
    pytest.mark.usefixtures("network", "secret"),
    # chat_push.observability filters it, but pytest resets the filters for each test.
    pytest.mark.filterwarnings("ignore:No application metrics to publish:UserWarning"),
]


@pytest.fixture
def expo() -> ReceiptService:
    return ReceiptService()


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, load_function: LoadFunction) -> Invoke:
    monkeypatch.delenv("EXPO_URL", raising=False)
    handler = load_function("cleanup_receipts", SUPABASE_URL=SUPABASE_URL, BACKEND_SECRET_ID="backend").lambda_handler
    return lambda payload: handler(payload, Context("cleanup_receipts", seconds_left=120))


def error(code: str) -> Json:
    return {"status": "error", "message": "no", "details": {"error": code}}


def test_a_cleanup_reads_receipts_and_prunes(invoke: Invoke, api: DataApi, expo: ReceiptService) -> None:
    api.due.append(due(1, 2))
    report = invoke(event("cleanup"))
    assert expo.requested == [["t1", "t2"]]
    assert report["receipts"] == {"handed_over": 2}
    assert len(api.calls("prune_push")) == 1
    assert json.loads(json.dumps(report)) == report


def test_a_cleanup_with_nothing_due_makes_no_expo_request(
    invoke: Invoke, expo: ReceiptService, printed: Printed
) -> None:
    invoke(event("cleanup"))
    assert expo.requests == []
    assert numbers_of(printed) == {"CleanupCompleted": 1}


def test_without_time_left_a_cleanup_claims_nothing(
    monkeypatch: pytest.MonkeyPatch, load_function: LoadFunction, api: DataApi
) -> None:
    monkeypatch.delenv("EXPO_URL", raising=False)
    handler = load_function("cleanup_receipts", SUPABASE_URL=SUPABASE_URL, BACKEND_SECRET_ID="backend").lambda_handler
    api.due.append(due(1))
    handler(event("cleanup"), Context("cleanup_receipts", seconds_left=15))
    assert len(api.due) == 1


def test_every_count_of_a_cleanup_is_published_as_a_metric(
    invoke: Invoke, api: DataApi, expo: ReceiptService, printed: Printed
) -> None:
    api.due.append(due(1, 2, 3, 4, 5))
    api.finished_run = {"deactivated": 1, "held": 0}
    api.pruned.append(
        pruned(presence_offline=2, devices_deactivated=3, devices_deleted=4, decisions_deleted=5, jobs_deleted=6)
    )
    expo.answers.append(
        receipts(
            {
                "t1": {"status": "ok"},
                "t2": error("DeviceNotRegistered"),
                "t3": error("ExpoError"),
                "t4": error("InvalidCredentials"),
            }
        )
    )
    invoke(event("cleanup"))
    assert numbers_of(printed) == {
        "ReceiptHandedOver": 1,
        "ReceiptFailed": 1,
        "ReceiptRetry": 1,
        "ReceiptConfigurationFault": 1,
        "ReceiptMissing": 1,
        "ConfigurationFault": 1,
        "DeviceDeactivated": 1,
        "PrunedPresenceOffline": 2,
        "PrunedDevicesDeactivated": 3,
        "PrunedDevicesDeleted": 4,
        "PrunedDecisionsDeleted": 5,
        "PrunedJobsDeleted": 6,
        "CleanupCompleted": 1,
    }


def test_held_devices_are_counted_and_logged_with_the_remedy(invoke: Invoke, api: DataApi, printed: Printed) -> None:
    api.due.append(due(1))
    api.finished_run = {"deactivated": 0, "held": 25}
    invoke(event("cleanup"))
    lines = printed()
    [line] = [line for line in lines if line.get("level") == "ERROR"]
    assert "push.review_held_deactivations" in line["message"]
    assert line["held"] == 25
    assert [line["DeviceDeactivationHeld"] for line in lines if "_aws" in line] == [[25]]


@pytest.mark.parametrize(
    ("answer", "fix"),
    [
        (receipts({"t1": error("InvalidCredentials")}), "eas credentials"),
        (receipts({"t1": error("MismatchSenderId")}), "google-services.json"),
        (errors(401, "UNAUTHORIZED"), "expo_access_token"),
        (errors(403, "FORBIDDEN"), "expo_access_token"),
    ],
)
def test_a_receipt_with_a_configuration_fault_is_counted_and_logged_with_its_remedy(
    invoke: Invoke, api: DataApi, expo: ReceiptService, printed: Printed, answer: httpx.Response, fix: str
) -> None:
    api.due.append(due(1))
    expo.answers.append(answer)
    invoke(event("cleanup"))
    lines = printed()
    assert any(fix in line["message"] for line in lines if line.get("level") == "ERROR")
    assert [line["ConfigurationFault"] for line in lines if "_aws" in line] == [[1]]


def test_a_cleanup_succeeds_while_expo_is_down(
    invoke: Invoke, api: DataApi, expo: ReceiptService, printed: Printed
) -> None:
    api.due.append(due(1))
    expo.answers.append(httpx.ConnectError("refused"))
    assert invoke(event("cleanup"))["unavailable"] == "ConnectError"
    assert numbers_of(printed) == {"ReceiptsUnavailable": 1, "CleanupCompleted": 1}


@pytest.mark.parametrize(("status", "metric"), [("receipt_lost", "ReceiptLost"), ("unrecorded", "ResultUnrecorded")])
def test_receipts_are_counted_as_the_database_recorded_them(
    invoke: Invoke, api: DataApi, printed: Printed, status: str, metric: str
) -> None:
    api.due.append(due(1))
    api.faults["record_push_receipts"] = httpx.Response(200, json={status: 1})
    invoke(event("cleanup"))
    assert numbers_of(printed) == {metric: 1, "CleanupCompleted": 1}


def test_a_cleanup_fails_if_the_database_does_not_respond(invoke: Invoke, api: DataApi, printed: Printed) -> None:
    """Lambda counts the failed invocation, and the next run continues."""
    api.faults["claim_due_receipts"] = httpx.ConnectError("refused")
    with pytest.raises(DatabaseUnavailable):
        invoke(event("cleanup"))
    assert numbers_of(printed) == {}


def test_a_cleanup_fails_until_its_secret_is_complete(
    invoke: Invoke, secrets_manager: "SecretsManagerClient", printed: Printed
) -> None:
    secrets_manager.put_secret_value(SecretId="backend", SecretString="{}")
    with pytest.raises(SecretUnavailable, match="secret backend is incomplete: supabase_secret_key"):
        invoke(event("cleanup"))
    assert numbers_of(printed) == {"SecretUnavailable": 1}
    secrets_manager.put_secret_value(SecretId="backend", SecretString='{"supabase_secret_key": "sb_secret_x"}')
    invoke(event("cleanup"))
    assert numbers_of(printed) == {"CleanupCompleted": 1}


def test_without_its_settings_cleanup_receipts_does_not_start(
    monkeypatch: pytest.MonkeyPatch, load_function: LoadFunction
) -> None:
    for name in ("SUPABASE_URL", "BACKEND_SECRET_ID"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SettingsError, match="SUPABASE_URL: Field required; BACKEND_SECRET_ID: Field required"):
        load_function("cleanup_receipts")
