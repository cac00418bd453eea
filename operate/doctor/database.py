"""The database, by diagnose_push over the Data API: migrations, webhook, access, work that waits, devices."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import httpx
from pydantic import AwareDatetime, BaseModel

from operate.doctor.results import Finding, Healthy, Result, Unhealthy, duration

if TYPE_CHECKING:
    from operate.doctor.system import System

MIGRATIONS = Path(__file__).parents[2] / "supabase" / "migrations"

# The sweep comes every minute, cleanup_receipts every 15: two in a row did not come, or did not get to it.
JOB_OVERDUE_SECONDS = timedelta(minutes=3).total_seconds()
RECEIPT_OVERDUE_SECONDS = timedelta(minutes=35).total_seconds()
# Of pg_net's requests. A few are lost in any network, and the sweep makes up for them.
FAILED_ANSWERS_SHARE = 0.1


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


def diagnose(system: "System") -> Diagnosis:
    """Asks the database. Raises Unhealthy if it gives no diagnosis."""
    nothing_sent = "No push is sent; jobs wait in the database and go out once it is mended, for 24 hours."
    try:
        answer = system.http.post(
            f"{system.supabase_url}/rest/v1/rpc/diagnose_push",
            headers={"apikey": system.backend_secret.supabase_secret_key.get_secret_value()},
            json={},
        )
    except httpx.TransportError as error:
        fault = f"Supabase does not answer at {system.supabase_url} ({type(error).__name__})"
        remedy = (
            "restoring the project if it is paused (supabase.com/dashboard); else sam deploy with the right SupabaseUrl"
        )
        raise Unhealthy(Finding(fault, nothing_sent, remedy)) from None
    if answer.status_code in (401, 403):
        fault = f"Supabase refuses supabase_secret_key of the secret BackendSecret (HTTP {answer.status_code})"
        raise Unhealthy(Finding(fault, nothing_sent, f"./dev secrets put {system.option}"))
    if answer.status_code == 404:
        fault = "the database has no function diagnose_push: its migrations are older than this checkout"
        raise Unhealthy(Finding(fault, "What the functions call may be missing as well.", "supabase db push"))
    if not answer.is_success:
        fault = f"the Data API answers {answer.status_code} to diagnose_push"
        raise Unhealthy(
            Finding(fault, nothing_sent, "the logs of the project: supabase.com/dashboard, Logs, PostgREST")
        )
    return Diagnosis.model_validate_json(answer.content)


def migrations(system: "System") -> Iterator[Result]:
    """Is every migration of this checkout applied?"""
    applied = system.diagnosis.migrations
    wanted = [file.name for file in sorted(MIGRATIONS.glob("*.sql"))]
    if applied is None:
        yield Healthy("migrations: not applied by the Supabase CLI, so nobody noted which; diagnose_push is there")
        return
    missing = [name for name in wanted if name.split("_")[0] not in applied]
    if missing:
        consequence = "Functions call what the database does not have yet: their calls are refused."
        yield Finding(f"migrations are not applied: {', '.join(missing)}", consequence, "supabase db push")
    else:
        yield Healthy(f"migrations: all {len(wanted)} are applied")


def job_trigger(system: "System") -> Iterator[Result]:
    """Is the job of a message stored with it?"""
    of_jobs = [trigger for trigger in system.diagnosis.triggers if trigger.calls == "push.create_job"]
    consequence = "New messages get no job: no push is sent for them, now or later."
    if any(trigger.enabled for trigger in of_jobs):
        yield Healthy("job trigger: every message is stored with its job")
    elif of_jobs:
        remedy = f"alter table public.chat_messages enable trigger {of_jobs[0].name};"
        yield Finding(f"the trigger {of_jobs[0].name} of chat_messages is disabled", consequence, remedy)
    else:
        remedy = (
            "create trigger create_push_job after insert on public.chat_messages"
            " referencing new table as new_messages for each statement execute function push.create_job();"
        )
        yield Finding("chat_messages has no trigger that calls push.create_job", consequence, remedy)


def answers(system: "System") -> Iterator[Result]:
    """What did the webhooks of the database get to hear?"""
    counted = system.diagnosis.answers
    late = "The webhook does not ring: pushes wait for the sweep, up to a minute."
    if counted is None:
        yield Finding("the extension pg_net is missing", late, "create extension pg_net;")
        return
    total = sum(counted.values())
    failed = {answer: count for answer, count in counted.items() if not answer.startswith("2")}
    if sum(failed.values()) > FAILED_ANSWERS_SHARE * total:
        listed = ", ".join(f"{answer}: {count}" for answer, count in sorted(failed.items()))
        yield Finding(
            f"of {total} requests of pg_net in the last hour {sum(failed.values())} failed ({listed})",
            "Pushes whose bell failed are late by up to a minute. Other webhooks of this database count as well.",
            "what the other findings say; without any: select * from net._http_response order by created desc;",
        )
    else:
        yield Healthy(f"webhook answers: {total} in the last hour, {sum(failed.values())} failed")


def row_level_security(system: "System") -> Iterator[Result]:
    """Is every chat table closed to those whom it does not concern?"""
    tables = system.diagnosis.row_level_security
    open_tables = [name for name, on in sorted(tables.items()) if not on]
    for name in open_tables:
        yield Finding(
            f"row level security of {name} is off",
            "Every signed-in person may read and write the rows of everybody, as far as the grants go.",
            f"alter table public.{name} enable row level security;",
        )
    if not open_tables:
        yield Healthy(f"row level security: on for all {len(tables)} tables")


def rights(system: "System") -> Iterator[Result]:
    """May only the workers do what the workers do?"""
    for found in system.diagnosis.open_rights:
        yield Finding(
            f"{found.role} has {found.right}",
            "Whoever holds the publishable key may take jobs away, read message texts and push tokens, or both.",
            f"revoke {found.right} from public, {found.role};",
        )
    if not system.diagnosis.open_rights:
        yield Healthy("rights: worker functions and the schema push are closed to anon and authenticated")


def jobs(system: "System") -> Iterator[Result]:
    """Does anybody do the work?"""
    found = system.diagnosis.jobs
    overdue = found.oldest_due_seconds or 0
    if overdue > JOB_OVERDUE_SECONDS:
        yield Finding(
            f"{found.waiting} jobs wait, the oldest has been due for {duration(overdue)}",
            "Pushes are late: send_chat_push does not run, fails, or cannot keep up. After 24 hours they expire.",
            system.log_of("SendChatPush"),
        )
    else:
        expired = f", {found.leases_expired} of a worker that died" if found.leases_expired else ""
        yield Healthy(f"jobs: {found.waiting} wait{expired}; none is overdue")


def receipts(system: "System") -> Iterator[Result]:
    """Does anybody read the receipts?"""
    found = system.diagnosis.receipts
    overdue = found.oldest_due_seconds or 0
    if overdue > RECEIPT_OVERDUE_SECONDS:
        yield Finding(
            f"{found.waiting} receipts wait, the oldest has been due for {duration(overdue)}",
            "Dead tokens stay on, refused pushes are not sent again. After 24 hours Expo clears the receipts.",
            system.log_of("CleanupReceipts"),
        )
    else:
        yield Healthy(f"receipts: {found.waiting} wait; none is overdue")


def held_deactivations(system: "System") -> Iterator[Result]:
    """Does the breaker wait for somebody?"""
    for run in system.diagnosis.held_deactivations:
        yield Finding(
            f"the breaker holds a run of {run.began_at:%Y-%m-%d %H:%M} UTC, in which {run.devices} devices were dead",
            "None of them was switched off. If Expo was right, each push to them is wasted until they are.",
            f"select push.review_held_deactivations('{run.id}', true);  -- true: switch them off; false: leave them on",
        )
    if not system.diagnosis.held_deactivations:
        yield Healthy("breaker: holds no run")


def devices(system: "System") -> Iterator[Result]:
    """Can Expo reach the active devices, by the form of their tokens?"""
    found = system.diagnosis.devices
    consequence = "Nothing reaches them, now or later."
    register_anew = "Their apps register anew with the token of getExpoPushTokenAsync."
    if found.malformed:
        yield Finding(
            f"{found.malformed} of {found.active} active devices have a token that is not Expo's",
            f"{consequence} {register_anew}",
            "update public.user_devices set is_active = false"
            " where is_active and push_provider = 'expo' and not private.is_expo_token(push_token);",
        )
    if found.other_provider:
        yield Finding(
            f"{found.other_provider} of {found.active} active devices are registered for another provider than expo",
            f"{consequence} {register_anew}",
            "update public.user_devices set is_active = false where is_active and push_provider <> 'expo';",
        )
    if not found.malformed and not found.other_provider:
        yield Healthy(f"devices: {found.active} active, each with a token of Expo's form or none")


def installation(system: "System") -> Iterator[Result]:
    """What did the migrations change? `supabase db push` prints no notices."""
    changes = [
        f"{change.what}: {change.subjects}" + ("" if change.rows is None else f" ({change.rows} rows)")
        for change in system.diagnosis.existing_app.report
    ]
    yield Healthy(f"installation: {', '.join(changes)}; all of it: table push.migration_report")


def names(system: "System") -> Iterator[Result]:
    """Do pushes say who writes?"""
    found = system.diagnosis.existing_app
    if found.people and not found.named:
        yield Finding(
            f"push.display_name finds no name of any person in users ({found.people} looked at)",
            "The title of each push is neutral: nobody sees who writes.",
            "replacing push.display_name by one that reads your profiles: docs/deploy.md, An app that exists",
        )
    else:
        yield Healthy(f"names: {found.named} of {found.people} people have one that pushes show")
