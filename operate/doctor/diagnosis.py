"""What the database reports about itself: the answer of the SQL function diagnose_push."""

from typing import Literal
from uuid import UUID

import httpx
from pydantic import AwareDatetime, BaseModel, SecretStr

from operate.doctor.results import NOTHING_SENT, Finding, Unhealthy


class Trigger(BaseModel):
    """A trigger of chat_messages that makes jobs due or calls the webhook."""

    name: str
    calls: str
    enabled: bool
    readable: bool  # false: Vault cannot decrypt its URL and its secret
    url: str | None
    secret_sha256: str | None


class OpenRight(BaseModel):
    """A right that a role of the app holds and must not hold."""

    right: str
    role: str


class Jobs(BaseModel):
    """Jobs that are not finished."""

    waiting: int
    oldest_due_seconds: float | None
    leases_expired: int


class Receipts(BaseModel):
    """Deliveries whose receipt was not read yet."""

    waiting: int
    oldest_due_seconds: float | None


class HeldDeactivations(BaseModel):
    """A run of cleanup_receipts whose deactivations the breaker holds for review."""

    id: UUID
    began_at: AwareDatetime
    devices: int


class Reports(BaseModel):
    """Reports of users that no moderator has resolved."""

    open: int
    oldest_seconds: float | None


class Devices(BaseModel):
    """Active devices."""

    active: int
    malformed: int
    provider_not_configured: int
    web: int


class PausedProvider(BaseModel):
    """FCM or APNs, which refused everything `failures` times in a row."""

    provider: Literal["fcm", "apns"]
    paused_until: AwareDatetime
    failures: int


class Change(BaseModel):
    """One kind of change that the migrations made to the schema and the rows of an existing app."""

    what: str
    subjects: int
    rows: int | None


class ExistingApp(BaseModel):
    """The effects of the migrations on an existing app."""

    report: list[Change]
    people: int  # rows of users that were examined, at most 1,000
    named: int  # those for which push.display_name finds a name


class Diagnosis(BaseModel):
    """The answer of diagnose_push."""

    migrations: list[str] | None
    triggers: list[Trigger]
    answers: dict[str, int] | None
    row_level_security: dict[str, bool]
    open_rights: list[OpenRight]
    jobs: Jobs
    receipts: Receipts
    held_deactivations: list[HeldDeactivations]
    paused_providers: list[PausedProvider]
    stopped_by_choice: dict[str, int]  # messages of the last day, by the reason of their decision
    silenced_by_choice: dict[str, int]  # pushes of the last day that made no sound, by the reason
    reports: Reports
    devices: Devices
    existing_app: ExistingApp


def read_diagnosis(http: httpx.Client, supabase_url: str, secret_key: SecretStr, write_secrets: str) -> Diagnosis:
    """Calls diagnose_push over the Data API. `write_secrets` is the command that corrects the key.

    Raises Unhealthy if there is no answer with a diagnosis.
    """
    try:
        answer = http.post(
            f"{supabase_url}/rest/v1/rpc/diagnose_push",
            headers={"apikey": secret_key.get_secret_value()},
            json={},
        )
    except httpx.TransportError:
        fault = f"Supabase does not answer at {supabase_url}"
        remedy = (
            "restore the project at supabase.com/dashboard if it is paused; else sam deploy with the right SupabaseUrl"
        )
        raise Unhealthy(Finding(fault, NOTHING_SENT, remedy)) from None
    if answer.status_code in (401, 403):
        fault = f"Supabase refuses supabase_secret_key of the secret BackendSecret (HTTP {answer.status_code})"
        raise Unhealthy(Finding(fault, NOTHING_SENT, write_secrets))
    if answer.status_code == 404:
        fault = "the database has no function diagnose_push: its migrations are older than this checkout"
        raise Unhealthy(
            Finding(fault, "Other SQL functions that the workers call may be missing too.", "supabase db push")
        )
    if not answer.is_success:
        fault = f"the Data API answers {answer.status_code} to diagnose_push"
        raise Unhealthy(
            Finding(fault, NOTHING_SENT, "read the project's logs: supabase.com/dashboard, Logs, PostgREST")
        )
    return Diagnosis.model_validate_json(answer.content)
