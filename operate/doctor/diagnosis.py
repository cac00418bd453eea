"""What the database reports of itself: the answer of the SQL function diagnose_push."""

from uuid import UUID

import httpx
from pydantic import AwareDatetime, BaseModel, SecretStr

from operate.doctor.results import Finding, Unhealthy


class Trigger(BaseModel):
    """A trigger of chat_messages that stores a job or rings."""

    name: str
    calls: str
    enabled: bool
    readable: bool  # false: its URL and its secret are in Vault, which cannot decrypt them
    url: str | None
    secret_sha256: str | None


class OpenRight(BaseModel):
    """A right that a role of the app holds and should not."""

    right: str
    role: str


class Jobs(BaseModel):
    """Jobs that are not done."""

    waiting: int
    oldest_due_seconds: float | None
    leases_expired: int


class Receipts(BaseModel):
    """Deliveries whose receipt is to be asked for."""

    waiting: int
    oldest_due_seconds: float | None


class HeldDeactivations(BaseModel):
    """A run of cleanup_receipts that the breaker holds."""

    id: UUID
    began_at: AwareDatetime
    devices: int


class Devices(BaseModel):
    """Active devices."""

    active: int
    malformed: int
    other_provider: int


class Change(BaseModel):
    """What the migrations did to an app that was there before, by kind."""

    what: str
    subjects: int
    rows: int | None


class ExistingApp(BaseModel):
    """What became of an app that was there before."""

    report: list[Change]
    people: int  # 1,000 at most
    named: int


class Diagnosis(BaseModel):
    """What diagnose_push answers."""

    migrations: list[str] | None
    triggers: list[Trigger]
    answers: dict[str, int] | None
    row_level_security: dict[str, bool]
    open_rights: list[OpenRight]
    jobs: Jobs
    receipts: Receipts
    held_deactivations: list[HeldDeactivations]
    devices: Devices
    existing_app: ExistingApp


def read_diagnosis(http: httpx.Client, supabase_url: str, secret_key: SecretStr, write_secrets: str) -> Diagnosis:
    """Calls diagnose_push over the Data API; `write_secrets` is the command that corrects the key.

    Raises Unhealthy if the database gives no diagnosis.
    """
    nothing_sent = "No push is sent; jobs wait in the database and go out once it is mended, for 24 hours."
    try:
        answer = http.post(
            f"{supabase_url}/rest/v1/rpc/diagnose_push",
            headers={"apikey": secret_key.get_secret_value()},
            json={},
        )
    except httpx.TransportError as error:
        fault = f"Supabase does not answer at {supabase_url} ({type(error).__name__})"
        remedy = (
            "restoring the project if it is paused (supabase.com/dashboard); else sam deploy with the right SupabaseUrl"
        )
        raise Unhealthy(Finding(fault, nothing_sent, remedy)) from None
    if answer.status_code in (401, 403):
        fault = f"Supabase refuses supabase_secret_key of the secret BackendSecret (HTTP {answer.status_code})"
        raise Unhealthy(Finding(fault, nothing_sent, write_secrets))
    if answer.status_code == 404:
        fault = "the database has no function diagnose_push: its migrations are older than this checkout"
        raise Unhealthy(Finding(fault, "What the functions call may be missing as well.", "supabase db push"))
    if not answer.is_success:
        fault = f"the Data API answers {answer.status_code} to diagnose_push"
        raise Unhealthy(
            Finding(fault, nothing_sent, "the logs of the project: supabase.com/dashboard, Logs, PostgREST")
        )
    return Diagnosis.model_validate_json(answer.content)
