"""The database, through Supabase's Data API. The only module that calls PostgREST.

It uses `postgrest`, the client inside supabase-py, directly: importing all of supabase-py would add 300 ms to each cold
start.
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
from chat_push.models import (
    Claim,
    DueReceipt,
    FinishedRun,
    Provider,
    ProviderReport,
    Pruned,
    PushResult,
    Recorded,
    RecordedReceipt,
    SendSlot,
)

# A call takes milliseconds. The client uses HTTP/1.1, because idle HTTP/2 connections break in a frozen Lambda.
TIMEOUT = httpx.Timeout(5, connect=2)

# Codes after which the same call may succeed later: SQLSTATE classes 08 (connection), 40 (serialization, deadlock),
# 53 (resources) and 57 (shutdown, timeout), PostgREST's own connection errors, and the HTTP status of a gateway.
# https://www.postgresql.org/docs/current/errcodes-appendix.html, https://docs.postgrest.org/en/stable/references/errors.html
_TRANSIENT = re.compile(r"(08|40|53|57)...|PGRST00[0-3]|429|5\d\d")


class DatabaseUnavailable(Exception):
    """The database did not respond. The same call may succeed later."""


class DatabaseRefused(Exception):
    """The database refused the call: a wrong key, missing migrations, or a bug. The text contains its error code."""

    def __init__(self, function: str, code: str, details: object = None) -> None:
        super().__init__(f"{function}: {code}")
        self.code = code
        self.details = details


class AccessTokenRefused(Exception):
    """The database does not accept the access token of the user. The text says why, for the user's app."""


class TooManyRegistrations(Exception):
    """The user has registered devices too often recently."""

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__(f"retry in {retry_after_seconds} s")
        self.retry_after_seconds = retry_after_seconds


class ProfileMissing(Exception):
    """The account has no row in users. A device needs one to refer to."""


class RegistrationInvalid(Exception):
    """A device with this value could never get a push. `field`: its name in the request. `rule`: what it violates."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field} is rejected by the database")
        self.field = field
        self.rule = rule


class PushDatabase:
    """Calls the worker functions of the database as service_role.

    Each call raises DatabaseUnavailable or DatabaseRefused.
    """

    def __init__(self, supabase_url: str, secret_key: str, transport: httpx.BaseTransport | None = None) -> None:
        self._url = supabase_url.rstrip("/")
        self._client = SyncPostgrestClient(
            f"{self._url}/rest/v1",
            # A secret key is no JWT: it belongs in apikey, never in Authorization.
            # https://supabase.com/docs/guides/api/api-keys
            headers={"apikey": secret_key},
            http_client=_http(transport),
        )

    def claim_push_jobs(
        self,
        message_ids: Sequence[UUID] | None,
        limit: int,
        wait_seconds: float,
        providers: Sequence[Provider] = ("expo",),
    ) -> tuple[Claim, float | None]:
        """Leases due jobs of these messages, or of any message (None), and reserves a send slot for them.

        `providers`: those that are configured. The claim returns devices of these only.
        The second value is the send slot as a time.monotonic(). It is None, and no job is leased, if no slot begins
        within `wait_seconds`.
        """
        ids = None if message_ids is None else [str(message_id) for message_id in message_ids]
        requested_at = time.monotonic()
        response = _call(
            self._client,
            "claim_push_jobs",
            {
                "p_message_ids": ids,
                "p_limit": limit,
                "p_wait_seconds": max(0.0, wait_seconds),
                "p_project_url": self._url,
                "p_providers": list(providers),
            },
        )
        claim = Claim.model_validate(response)
        return claim, _to_monotonic(claim.slot, requested_at) if claim.slot else None

    def reserve_send_slot(self, notifications: int) -> float:
        """Reserves a slot for so many notifications that Expo refused before. Returns its time.monotonic()."""
        requested_at = time.monotonic()
        response = _call(self._client, "reserve_send_slot", {"p_notifications": notifications})
        return _to_monotonic(SendSlot.model_validate(response), requested_at)

    def record_push_results(
        self,
        claim: Claim,
        results: Sequence[PushResult],
        unused_notifications: int,
        provider_reports: Sequence[ProviderReport] = (),
    ) -> Recorded:
        """Stores the outcomes, frees the unused part of the send slot, and pauses providers that refuse everything.

        Safe to repeat: an outcome without a ticket never replaces one with a ticket.
        """
        response = _call(
            self._client,
            "record_push_results",
            {
                "p_lease_id": str(claim.lease_id),
                "p_claimed_at": claim.claimed_at.isoformat(),
                "p_results": [result.model_dump(mode="json") for result in results],
                "p_unused_notifications": unused_notifications,
                "p_provider_reports": [report.model_dump(mode="json") for report in provider_reports],
            },
        )
        return Recorded.model_validate(response)

    def plan_wakeups(self, within_seconds: float, spacing_seconds: float) -> list[int]:
        """The delays in whole seconds after which to sweep for what becomes due within `within_seconds`.

        Sweeps that any worker has planned before are left out. At most two start in `spacing_seconds`.
        """
        arguments = {"p_within_seconds": within_seconds, "p_spacing_seconds": spacing_seconds}
        delays: list[int] = _call(self._client, "plan_wakeups", arguments)
        return delays

    def claim_due_receipts(self, limit: int) -> list[DueReceipt]:
        """Leases deliveries whose receipt is due, for two minutes. Those that have waited longest come first."""
        return [DueReceipt.model_validate(due) for due in _call(self._client, "claim_due_receipts", {"p_limit": limit})]

    def record_push_receipts(self, run_id: UUID, receipts: Sequence[RecordedReceipt]) -> dict[str, int]:
        """Stores receipts. Returns their number by status; one status is `receipt_lost`. Safe to repeat."""
        arguments = {"p_run_id": str(run_id), "p_receipts": [receipt.model_dump(mode="json") for receipt in receipts]}
        counts: dict[str, int] = _call(self._client, "record_push_receipts", arguments)
        return counts

    def finish_receipt_run(self, run_id: UUID) -> FinishedRun:
        """Deactivates the devices whose tokens the run found dead, unless there are suspiciously many."""
        return FinishedRun.model_validate(_call(self._client, "finish_receipt_run", {"p_run_id": str(run_id)}))

    def prune_push(self, limit: int) -> Pruned:
        """Deletes or ends old rows, at most `limit` of each kind."""
        return Pruned.model_validate(_call(self._client, "prune_push", {"p_limit": limit}))


class DeviceRegistry:
    """The devices of a user, with the rights of the access token that is passed. It has no secret key.

    Each call raises DatabaseUnavailable, DatabaseRefused or AccessTokenRefused.
    """

    def __init__(self, supabase_url: str, publishable_key: str, transport: httpx.BaseTransport | None = None) -> None:
        self._url = f"{supabase_url.rstrip('/')}/rest/v1"
        self._publishable_key = publishable_key
        self._http = _http(transport)

    def register(self, access_token: str, registration: Registration) -> Registered:
        """Registers the user's device. Raises TooManyRegistrations, ProfileMissing or RegistrationInvalid."""
        arguments = {f"p_{name}": value for name, value in registration.model_dump().items()}
        try:
            response = self._call(access_token, "register_device", arguments)
        except DatabaseRefused as error:
            if error.code == "PT429":
                raise TooManyRegistrations(json.loads(str(error.details))["retry_after_seconds"]) from None
            if error.code == "23503":
                raise ProfileMissing from None
            if error.code == "22023" and (
                named := re.fullmatch(r'{"rule": "(.+)", "field": "(\w+)"}', str(error.details))
            ):
                raise RegistrationInvalid(field=named[2], rule=named[1]) from None
            raise
        return Registered.model_validate(response)

    def unregister(self, access_token: str, device_id: str) -> None:
        """Removes the user's device, if it is registered."""
        self._call(access_token, "unregister_device", {"p_device_id": device_id})

    def devices(self, access_token: str) -> list[Device]:
        """The user's devices. The device that was seen last comes first."""
        return [Device.model_validate(device) for device in self._call(access_token, "my_devices", {})]

    def _call(self, access_token: str, function: str, arguments: Mapping[str, Any]) -> Any:
        # A client for each call: `auth()` on a shared client would pass this user's token on to the next request.
        headers = {"apikey": self._publishable_key, "Authorization": f"Bearer {access_token}"}
        client = SyncPostgrestClient(self._url, headers=headers, http_client=self._http)
        try:
            return _call(client, function, arguments)
        except DatabaseRefused as error:
            # PostgREST refuses the token with these codes. A 401 without them means that the gateway refuses our key.
            if error.code in ("PGRST301", "PGRST303"):
                raise AccessTokenRefused("the access token is not valid, or has expired") from None
            if error.code == "PT401":
                raise AccessTokenRefused("the session of the access token has ended: sign in again") from None
            raise


def _to_monotonic(slot: SendSlot, requested_at: float) -> float:
    """A send slot as a time.monotonic(), from the wall clock of the database and our own.

    The clocks may differ: the database responded between `requested_at` and now, which bounds the result.
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
    """Raises HTTPStatusError for an error response without PostgREST's code: postgrest would drop its HTTP status."""
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
        # Only the code: message and details may quote values.
        code, details = str(error.code), error.details
    if _TRANSIENT.fullmatch(code):
        raise DatabaseUnavailable(f"{function}: {code}")
    raise DatabaseRefused(function, code, details)
