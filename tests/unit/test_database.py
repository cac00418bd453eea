"""The database client, with an HTTP fake of the Data API."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from chat_push.database import DatabaseRefused, DatabaseUnavailable, PushDatabase
from chat_push.models import Claim, Delivery, ProviderReport, PushResult
from pydantic import ValidationError

from tests.http_fakes import CLAIMED_AT, LEASE_ID, SUPABASE_URL, DataApi, claim, push, push_token, recorded, slot, uuid


def database(api: DataApi, url: str = SUPABASE_URL) -> PushDatabase:
    return PushDatabase(url, "sb_secret_x", httpx.MockTransport(api))


def postgrest_error(status: int, code: str) -> httpx.Response:
    body = {"code": code, "message": "value too long: Hello", "details": "Hello", "hint": None}
    return httpx.Response(status, json=body)


RESULT = PushResult(
    job_id=1,
    deliveries=[
        Delivery(delivery_id=100, status="accepted", ticket_id="t"),
        Delivery(delivery_id=101, status="failed", error="DeviceNotRegistered", retry_after_seconds=1.5),
    ],
)

REPORT = ProviderReport(provider="fcm", has_succeeded=False, fault="retry", retry_after_seconds=60)


class TestCalls:
    @pytest.mark.parametrize("url", [SUPABASE_URL, SUPABASE_URL + "/"])
    def test_the_secret_key_is_sent_as_apikey_and_not_as_bearer(self, url: str) -> None:
        """A secret key is no JWT."""
        api = DataApi()
        database(api, url).claim_push_jobs(None, 100, 5)
        [request] = api.requests
        assert (request.method, str(request.url)) == ("POST", f"{SUPABASE_URL}/rest/v1/rpc/claim_push_jobs")
        assert request.headers["apikey"] == "sb_secret_x"
        assert "authorization" not in request.headers
        assert request.extensions["timeout"] == {"connect": 2, "read": 5, "write": 5, "pool": 5}

    def test_a_claim_of_named_messages_passes_their_ids_and_returns_the_claim(self) -> None:
        job = push(1, [push_token(1)], image_url="https://example.com/a.jpg", title=None)
        ended = {"message_id": uuid(2), "outcome": "skipped", "reason": "read"}
        answer = claim(job, finished=[ended], deferred=[uuid(3)], not_due=[uuid(4)], unknown=[uuid(5)])
        api = DataApi(answer)
        claimed, _ = database(api).claim_push_jobs(
            [UUID(uuid(number)) for number in range(1, 6)], 5, -1, ["expo", "apns"]
        )
        assert api.calls("claim_push_jobs") == [
            {
                "p_message_ids": [uuid(number) for number in range(1, 6)],
                "p_limit": 5,
                "p_wait_seconds": 0,
                "p_project_url": SUPABASE_URL,
                "p_providers": ["expo", "apns"],
            }
        ]
        assert claimed == Claim.model_validate(answer)
        assert claimed.jobs[0].devices[0].push_token == push_token(1)

    def test_a_claim_without_ids_is_for_all_due_jobs(self) -> None:
        api = DataApi()
        claimed, _ = database(api).claim_push_jobs(None, 100, 5)
        assert claimed.jobs == []
        [call] = api.calls("claim_push_jobs")
        assert (call["p_message_ids"], call["p_limit"], call["p_wait_seconds"]) == (None, 100, 5)

    def test_a_send_slot_is_reserved_for_a_number_of_notifications(self) -> None:
        api = DataApi()
        database(api).reserve_send_slot(7)
        assert api.calls("reserve_send_slot") == [{"p_notifications": 7}]

    def test_a_slow_response_does_not_make_a_send_slot_later(self) -> None:
        def answer(request: httpx.Request) -> httpx.Response:
            answered_at = datetime.now(UTC)
            on_its_way = time.monotonic() + 0.05
            while time.monotonic() < on_its_way:
                pass
            return httpx.Response(200, json=slot(30, answered_at))

        send_at = PushDatabase(SUPABASE_URL, "key", httpx.MockTransport(answer)).reserve_send_slot(1)
        assert send_at <= time.monotonic() + 30 - 0.05

    @pytest.mark.parametrize("ahead", [timedelta(hours=-1), timedelta(hours=1)], ids=["slow", "fast"])
    @pytest.mark.parametrize("function", ["claim_push_jobs", "reserve_send_slot"])
    def test_a_wrong_clock_of_the_database_does_not_move_a_send_slot(self, function: str, ahead: timedelta) -> None:
        api = DataApi(claim(slot=slot(30, datetime.now(UTC) + ahead)))
        api.next_slot = slot(30, datetime.now(UTC) + ahead)
        before = time.monotonic()
        if function == "claim_push_jobs":
            _, send_at = database(api).claim_push_jobs(None, 1, 60)
        else:
            send_at = database(api).reserve_send_slot(1)
        assert send_at is not None
        assert before + 30 <= send_at <= time.monotonic() + 30

    def test_a_claim_without_a_send_slot_has_no_time_to_send(self) -> None:
        assert database(DataApi(claim(slot=None))).claim_push_jobs(None, 1, 5)[1] is None

    def test_a_record_passes_lease_and_outcomes_and_returns_what_the_database_did(self) -> None:
        api = DataApi()
        api.recorded = recorded(deactivated=1, lost_leases=[1])
        answer = database(api).record_push_results(Claim.model_validate(claim()), [RESULT], 3, [REPORT])
        assert api.calls("record_push_results") == [
            {
                "p_lease_id": LEASE_ID,
                "p_claimed_at": CLAIMED_AT,
                "p_results": [
                    {
                        "job_id": 1,
                        "deliveries": [
                            {
                                "delivery_id": 100,
                                "status": "accepted",
                                "error": None,
                                "ticket_id": "t",
                                "retry_after_seconds": None,
                            },
                            {
                                "delivery_id": 101,
                                "status": "failed",
                                "error": "DeviceNotRegistered",
                                "ticket_id": None,
                                "retry_after_seconds": 1.5,
                            },
                        ],
                    }
                ],
                "p_unused_notifications": 3,
                "p_provider_reports": [
                    {"provider": "fcm", "has_succeeded": False, "fault": "retry", "retry_after_seconds": 60}
                ],
            }
        ]
        assert (answer.deactivated, answer.lost_leases) == (1, [1])


class TestFaults:
    @pytest.mark.parametrize(
        ("fault", "text"),
        [
            (httpx.ConnectError("refused"), "ConnectError"),
            (httpx.ReadTimeout("slow"), "ReadTimeout"),
            (httpx.RemoteProtocolError("closed"), "RemoteProtocolError"),
            (postgrest_error(503, "PGRST000"), "PGRST000"),
            (postgrest_error(503, "PGRST001"), "PGRST001"),
            (postgrest_error(503, "PGRST002"), "PGRST002"),
            (postgrest_error(504, "PGRST003"), "PGRST003"),
            (postgrest_error(503, "08006"), "08006"),
            (postgrest_error(500, "40001"), "40001"),
            (postgrest_error(500, "40P01"), "40P01"),
            (postgrest_error(503, "53300"), "53300"),
            (postgrest_error(500, "57014"), "57014"),
            (postgrest_error(503, "57P03"), "57P03"),
            (httpx.Response(502, html="<h1>Bad gateway</h1>"), "502"),
            (httpx.Response(503), "503"),
            (httpx.Response(521, text="web server is down"), "521"),
            (httpx.Response(429, text="slow down"), "429"),
            (httpx.Response(503, json={"message": "name resolution failed"}), "503"),  # from a gateway
            (httpx.Response(503, json={"code": 503, "message": "restarting"}), "503"),
            (httpx.Response(500, json=["odd"]), "500"),
        ],
    )
    def test_a_temporary_fault_raises_database_unavailable(self, fault: httpx.Response | Exception, text: str) -> None:
        api = DataApi()
        api.faults["claim_push_jobs"] = fault
        with pytest.raises(DatabaseUnavailable, match=f"^claim_push_jobs: {text}$"):
            database(api).claim_push_jobs(None, 1, 5)
        assert len(api.requests) == 1

    @pytest.mark.parametrize(
        ("fault", "text"),
        [
            (postgrest_error(401, "PGRST301"), "PGRST301"),
            (postgrest_error(401, "42501"), "42501"),
            (postgrest_error(404, "PGRST202"), "PGRST202"),
            (postgrest_error(400, "22P02"), "22P02"),
            (postgrest_error(400, "P0001"), "P0001"),
            (httpx.Response(401, json={"message": "Invalid API key", "hint": "Check it"}), "401"),
            (httpx.Response(404, text="no project"), "404"),
        ],
    )
    def test_a_permanent_fault_raises_database_refused_without_quoting_values(
        self, fault: httpx.Response, text: str
    ) -> None:
        api = DataApi()
        api.faults["record_push_results"] = fault
        with pytest.raises(DatabaseRefused, match=f"^record_push_results: {text}$") as raised:
            database(api).record_push_results(Claim.model_validate(claim()), [RESULT], 0)
        assert raised.value.__context__ is None  # A traceback would show the values that the database quotes.


class TestModels:
    @pytest.mark.parametrize(
        "wrong", [claim(lease_id=None), {}, claim({**push(1, [push_token(1)]), "badge": "many"}), [], None]
    )
    def test_a_malformed_response_is_an_error_that_does_not_quote_it(self, wrong: Any) -> None:
        with pytest.raises(ValidationError) as raised:
            database(DataApi(wrong)).claim_push_jobs(None, 1, 5)
        for secret in ("Hello", push_token(1), "many"):
            assert secret not in str(raised.value)

    def test_the_repr_of_a_model_contains_no_text_and_no_token(self) -> None:
        job = push(1, [push_token(1)], body="Secret text", title="Secret name", image_url="https://secret.example")
        for model in (Claim.model_validate(claim(job)), RESULT):
            for secret in (push_token(1), "Secret", "secret.example"):
                assert secret not in f"{model!r} {model}"
            assert "delivery_id=100" in repr(model)
