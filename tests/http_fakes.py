"""Fakes of Supabase's Data API and of Expo at the HTTP border, and the JSON that they return."""

import gzip
import json
from collections import Counter, deque
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import httpx

type Json = dict[str, Any]
type Messages = list[Json]
type ExpoAnswer = httpx.Response | Exception | Callable[[Messages], httpx.Response]
type Printed = Callable[[], list[Json]]  # the log lines and metrics since the last call

SUPABASE_URL = "https://project.supabase.co"
EXPO_URL = "https://exp.host"

LEASE_ID = "1ea5e000-0000-4000-8000-000000000000"
CLAIMED_AT = "2026-11-22T10:00:01+00:00"


def body_of(request: httpx.Request) -> Any:
    """The JSON body of a request, decompressed if necessary."""
    content = request.content
    return json.loads(gzip.decompress(content) if request.headers.get("content-encoding") == "gzip" else content)


def ticket_id(push_token: str) -> str:
    """The ticket that PushService returns for a token, so that a test can assign tickets to tokens."""
    return f"ticket of {push_token}"


def ok(messages: Messages) -> httpx.Response:
    """Expo's response that accepts all messages."""
    return httpx.Response(
        200, json={"data": [{"status": "ok", "id": ticket_id(message["to"])} for message in messages]}
    )


def errors(status: int, code: str, **fields: Any) -> httpx.Response:
    """Expo's error response to a whole request."""
    return httpx.Response(status, json={"errors": [{"code": code, "message": "refused", **fields}]})


class PushService:
    """Expo's send endpoint: returns the scripted responses in order, then accepts all. For httpx.MockTransport."""

    def __init__(self, *answers: ExpoAnswer) -> None:
        self.answers = deque(answers)
        self.requests: list[httpx.Request] = []
        self.accepted: list[Json] = []  # messages of requests with status 200, in order

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        messages = body_of(request)
        answer = self.answers.popleft() if self.answers else ok
        if isinstance(answer, Exception):
            raise answer
        response = answer if isinstance(answer, httpx.Response) else answer(messages)
        if response.status_code == 200:
            self.accepted += messages
        return response

    @property
    def recipients(self) -> list[list[str]]:
        """The tokens of each request."""
        return [[message["to"] for message in body_of(request)] for request in self.requests]


type ReceiptAnswer = httpx.Response | Exception | Callable[[list[str]], httpx.Response]


def receipts(ready: Json) -> httpx.Response:
    """Expo's response to a receipt request: the receipts that are ready, by ticket id."""
    return httpx.Response(200, json={"data": ready})


class ReceiptService:
    """Expo's receipt endpoint: returns the scripted responses in order, then `ok` for every ticket."""

    def __init__(self, *answers: ReceiptAnswer) -> None:
        self.answers = deque(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        ids = self.requested[-1]
        answer = self.answers.popleft() if self.answers else receipts({id_: {"status": "ok"} for id_ in ids})
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx.Response) else answer(ids)

    @property
    def requested(self) -> list[list[str]]:
        """The ticket ids of each request."""
        return [body_of(request)["ids"] for request in self.requests]


def due(*numbers: int) -> list[Json]:
    """The result of claim_due_receipts: deliveries whose tickets are t1, t2, …"""
    return [{"delivery_id": number, "message_id": uuid(number), "ticket_id": f"t{number}"} for number in numbers]


class DataApi:
    """PostgREST: returns the scripted claims in order, then empty ones. For httpx.MockTransport."""

    def __init__(self, *claims: Json) -> None:
        self.claims = deque(claims)
        self.due: deque[list[Json]] = deque()  # due receipts, by claim
        self.pruned: deque[Json] = deque()
        self.delays: list[int] = []  # of the next planned wake-ups
        self.finished_run: Json = {"deactivated": 0, "held": 0}
        self.faults: dict[str, httpx.Response | Exception] = {}  # by function
        self.valid_key: str | None = None  # the only key that the gateway accepts; None: any
        self._recovers_after: dict[str, int] = {}
        self.next_slot: Json = slot()
        self.recorded: Json = recorded()
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.valid_key not in (None, request.headers["apikey"]):
            return httpx.Response(401, json={"message": "Unregistered API key"})
        function = request.url.path.removeprefix("/rest/v1/rpc/")
        if function in self._recovers_after and len(self.calls(function)) > self._recovers_after[function]:
            self.faults.pop(function, None)
        match self.faults.get(function):
            case None:
                pass
            case httpx.Response() as refusal:
                return refusal
            case error:
                raise error
        return httpx.Response(200, json=self._answer(function, body_of(request)))

    def _answer(self, function: str, arguments: Json) -> Any:
        match function:
            case "claim_push_jobs":
                return self.claims.popleft() if self.claims else claim()
            case "reserve_send_slot":
                return self.next_slot
            case "record_push_results":
                return self.recorded
            case "plan_wakeups":
                return self.delays
            case "claim_due_receipts":
                return self.due.popleft() if self.due else []
            case "record_push_receipts":
                return Counter(receipt["status"] for receipt in arguments["p_receipts"])
            case "finish_receipt_run":
                return self.finished_run
            case "prune_push":
                return self.pruned.popleft() if self.pruned else pruned()
        raise AssertionError(function)

    def recover(self, function: str, after: int) -> None:
        """Ends the fault of a function after so many calls."""
        self._recovers_after[function] = after

    @property
    def functions(self) -> list[str]:
        """The functions that were called, in order."""
        return [request.url.path.removeprefix("/rest/v1/rpc/") for request in self.requests]

    def calls(self, function: str) -> list[Json]:
        """The arguments of each call of a function."""
        return [body_of(request) for request in self.requests if request.url.path.endswith(f"/{function}")]

    @property
    def results(self) -> list[Json]:
        """All results that were passed to record_push_results."""
        return [result for call in self.calls("record_push_results") for result in call["p_results"]]


def recorded(**fields: Any) -> Json:
    """The result of record_push_results."""
    return {"deactivated": 0, "held": 0, "lost_leases": [], "unrecorded": [], "later": False, **fields}


def pruned(**counts: Any) -> Json:
    """The result of prune_push."""
    kinds = ("presence_offline", "devices_deactivated", "devices_deleted", "decisions_deleted", "jobs_deleted")
    return {**dict.fromkeys(kinds, 0), "more": False, **counts}


def uuid(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


def push_token(number: int) -> str:
    return f"ExponentPushToken[{number:022}]"


def push(number: int, tokens: Sequence[str] = (), **fields: Any) -> Json:
    """A claimed job, as claim_push_jobs returns it. Its deliveries have the ids 100 * number, 100 * number + 1, …

    The keys of _OF_DEVICE are those of all devices.
    """
    of_device = {key: fields.pop(key, default) for key, default in _OF_DEVICE.items()}
    return {
        "job_id": number,
        "message_id": uuid(number),
        "room_id": uuid(7001),
        "sender_id": uuid(7002),
        "recipient_id": uuid(7003),
        "sound_name": None,
        "title": "Ana",
        "body": "Hello",
        "image_url": None,
        "unread": 1,
        "badge": 3,
        "expires_at": "2999-11-23T10:00:00.123456+00:00",
        "sent_at": "2026-11-22T10:00:00.123456+00:00",
        "attempt": 1,
        "devices": [
            {
                "delivery_id": 100 * number + index,
                "device_id": uuid(100 * number + index),
                "push_token": token,
                **of_device,
            }
            for index, token in enumerate(tokens)
        ],
        **fields,
    }


_OF_DEVICE = {
    "kind": "alert",
    "sound": True,
    "preview": "full",
    "platform": "ios",
    "provider": "expo",
    "environment": "production",
    "registered_at": "2026-11-01T10:00:00+00:00",
}


def slot(in_seconds: float = 0, answered_at: datetime | None = None) -> Json:
    """The result of reserve_send_slot."""
    answered_at = answered_at or datetime.fromisoformat(CLAIMED_AT)
    return {
        "send_at": (answered_at + timedelta(seconds=in_seconds)).isoformat(),
        "answered_at": answered_at.isoformat(),
    }


def claim(*jobs: Json, **fields: Any) -> Json:
    """The result of claim_push_jobs."""
    return {
        "lease_id": LEASE_ID,
        "claimed_at": CLAIMED_AT,
        "jobs": list(jobs),
        "finished": [],
        "deferred": [],
        "left_due": [],
        "not_due": [],
        "unknown": [],
        "expired_leases": [],
        "examined": len(jobs),
        "more_due": bool(fields.get("left_due")),
        "later": bool(fields.get("deferred")),
        "slot": slot(),
        **fields,
    }
