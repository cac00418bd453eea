"""The database, through Supabase's Data API. The only module that knows PostgREST.

It uses `postgrest`, the client that supabase-py itself is made of, alone: the whole of supabase-py costs another 300 ms
of each cold start.
"""

import json
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
from postgrest import APIError, SyncPostgrestClient

from chat_push import https
from chat_push.devices import Device, Registered, Registration
from chat_push.models import Claim, DueReceipt, FinishedRun, Pruned, PushResult, Recorded, RecordedReceipt, SendSlot

# A claim or a record takes milliseconds. HTTP/1.1, because idle HTTP/2 connections break in a frozen Lambda.
TIMEOUT = httpx.Timeout(5, connect=2)

# States in which the same call may succeed later: SQLSTATE classes 08 (connection), 40 (serialization, deadlock),
# 53 (resources) and 57 (shutting down, timeout), PostgREST's own connection errors, and a gateway's HTTP status.
_TRANSIENT = re.compile(r"(08|40|53|57)...|PGRST00[0-3]|429|5\d\d")


class DatabaseUnavailable(Exception):
    """The database did not answer; the same call may succeed later."""


class DatabaseRefused(Exception):
    """The database refused the call: a wrong key, missing migrations, or a bug of ours. The text holds its code."""

    def __init__(self, function: str, code: str, details: object = None) -> None:
        super().__init__(f"{function}: {code}")
        self.code = code
        self.details = details


class AccessTokenRefused(Exception):
    """The Data API does not accept the person's access token, for example because it has expired meanwhile."""


class TooManyRegistrations(Exception):
    """The person has registered devices too often of late."""

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__(f"again in {retry_after_seconds} s")
        self.retry_after_seconds = retry_after_seconds


class ProfileMissing(Exception):
    """The account has no row in users, which a device belongs to."""


class PushDatabase:
    """The worker functions of the database, called as service_role."""

    def __init__(self, supabase_url: str, secret_key: str, transport: httpx.BaseTransport | None = None) -> None:
        self._url = supabase_url.rstrip("/")
        self._client = SyncPostgrestClient(
            f"{self._url}/rest/v1",
            # Secret keys are no JWTs: they go into apikey, never into Authorization.
            headers={"apikey": secret_key},
            http_client=_http(transport),
        )

    def claim_push_jobs(self, message_ids: Sequence[UUID] | None, limit: int, wait_seconds: float) -> Claim:
        """Leases due jobs: those of the given messages or, with None, first attempts before retries.

        It leases none for which there is no send slot within `wait_seconds`.
        """
        ids = None if message_ids is None else [str(message_id) for message_id in message_ids]
        requested_at = time.monotonic()
        answer = _call(
            self._client,
            "claim_push_jobs",
            {
                "p_message_ids": ids,
                "p_limit": limit,
                "p_wait_seconds": max(0.0, wait_seconds),
                "p_project_url": self._url,
            },
        )
        claim = Claim.model_validate(answer)
        return claim.model_copy(update={"send_at": _to_monotonic(claim.slot, requested_at)}) if claim.slot else claim

    def reserve_send_slot(self, notifications: int) -> float:
        """The time.monotonic() from which so many notifications may be sent that Expo refused in their first slot."""
        requested_at = time.monotonic()
        answer = _call(self._client, "reserve_send_slot", {"p_notifications": notifications})
        return _to_monotonic(SendSlot.model_validate(answer), requested_at)

    def record_push_results(self, claim: Claim, results: Sequence[PushResult], unused_notifications: int) -> Recorded:
        """Stores what Expo said, and frees what was not used of the send slot.

        Safe to repeat: a ticket is never replaced by less.
        """
        answer = _call(
            self._client,
            "record_push_results",
            {
                "p_lease_id": str(claim.lease_id),
                "p_claimed_at": claim.claimed_at.isoformat(),
                "p_results": [result.model_dump(mode="json") for result in results],
                "p_unused_notifications": unused_notifications,
            },
        )
        return Recorded.model_validate(answer)

    def claim_due_receipts(self, limit: int) -> list[DueReceipt]:
        """Leases deliveries whose receipt is due, the longest waiting first, for two minutes."""
        return [DueReceipt.model_validate(due) for due in _call(self._client, "claim_due_receipts", {"p_limit": limit})]

    def record_push_receipts(self, run_id: UUID, receipts: Sequence[RecordedReceipt]) -> dict[str, int]:
        """Stores what Expo said; the counts by status, `receipt_lost` being one of them. Safe to repeat."""
        arguments = {"p_run_id": str(run_id), "p_receipts": [receipt.model_dump(mode="json") for receipt in receipts]}
        counts: dict[str, int] = _call(self._client, "record_push_receipts", arguments)
        return counts

    def finish_receipt_run(self, run_id: UUID) -> FinishedRun:
        """Switches off the devices that the run found dead, unless they are suspiciously many."""
        return FinishedRun.model_validate(_call(self._client, "finish_receipt_run", {"p_run_id": str(run_id)}))

    def prune_push(self, limit: int) -> Pruned:
        """Ends what is old, at most `limit` rows of each kind."""
        return Pruned.model_validate(_call(self._client, "prune_push", {"p_limit": limit}))


class DeviceRegistry:
    """The devices of the person whose access token is passed, under their own rights: it holds no secret key."""

    def __init__(self, supabase_url: str, publishable_key: str, transport: httpx.BaseTransport | None = None) -> None:
        self._url = f"{supabase_url.rstrip('/')}/rest/v1"
        self._publishable_key = publishable_key
        self._http = _http(transport)

    def register(self, access_token: str, registration: Registration) -> Registered:
        """Registers the person's device. Raises TooManyRegistrations or ProfileMissing."""
        arguments = {f"p_{name}": value for name, value in registration.model_dump().items()}
        try:
            answer = self._call(access_token, "register_device", arguments)
        except DatabaseRefused as error:
            if error.code == "PT429":
                raise TooManyRegistrations(json.loads(str(error.details))["retry_after_seconds"]) from None
            if error.code == "23503":
                raise ProfileMissing from None
            raise
        return Registered.model_validate(answer)

    def unregister(self, access_token: str, device_id: str) -> None:
        """Removes the person's device, if there is one."""
        self._call(access_token, "unregister_device", {"p_device_id": device_id})

    def devices(self, access_token: str) -> list[Device]:
        """The person's devices, the one that was seen last first."""
        return [Device.model_validate(device) for device in self._call(access_token, "my_devices", {})]

    def _call(self, access_token: str, function: str, arguments: Mapping[str, Any]) -> Any:
        # A client for each call: `auth()` on a shared one would leave this person's identity to the next request.
        headers = {"apikey": self._publishable_key, "Authorization": f"Bearer {access_token}"}
        client = SyncPostgrestClient(self._url, headers=headers, http_client=self._http)
        try:
            return _call(client, function, arguments)
        except DatabaseRefused as error:
            # PostgREST checks the token once more. A 401 without its code is the gateway's: it refuses our key.
            if error.code in ("PGRST301", "PGRST303"):
                raise AccessTokenRefused from None
            raise


def _to_monotonic(slot: SendSlot, requested_at: float) -> float:
    """A send slot by time.monotonic(), from the two wall clocks, ours and the database's.

    Clocks that are not in step do no harm: the answer was given between the question and now: so both bounds are known.
    """
    now = time.monotonic()
    in_seconds = (slot.send_at - slot.answered_at).total_seconds()
    by_wall_clocks = now + (slot.send_at - datetime.now(UTC)).total_seconds()
    return min(max(by_wall_clocks, requested_at + in_seconds), now + in_seconds)


def _http(transport: httpx.BaseTransport | None) -> httpx.Client:
    return httpx.Client(
        transport=transport or https.transport(),
        timeout=TIMEOUT,
        event_hooks={"response": [_raise_gateway_errors]},
    )


def _raise_gateway_errors(response: httpx.Response) -> None:
    """Raises HTTPStatusError for an error without a code of PostgREST's: postgrest would drop its HTTP status."""
    if response.is_error:
        response.read()
        try:
            has_code = isinstance(response.json()["code"], str)
        except (ValueError, KeyError, TypeError):
            has_code = False
        if not has_code:
            response.raise_for_status()


def _call(client: SyncPostgrestClient, function: str, arguments: Mapping[str, Any]) -> Any:
    try:
        return client.rpc(function, dict(arguments)).execute().data
    except httpx.TransportError as error:
        raise DatabaseUnavailable(f"{function}: {type(error).__name__}") from error
    except httpx.HTTPStatusError as error:
        code, details = str(error.response.status_code), None
    except APIError as error:
        # Only the code is shown: message and details may quote values.
        code, details = str(error.code), error.details
    if _TRANSIENT.fullmatch(code):
        raise DatabaseUnavailable(f"{function}: {code}")
    raise DatabaseRefused(function, code, details)
