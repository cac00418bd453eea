"""Checks of the database, by the answer of diagnose_push: migrations, access, waiting work, devices."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from operate.doctor.results import LATE, Finding, Healthy, Result, duration
from operate.doctor.system import System

MIGRATIONS = Path(__file__).parents[2] / "supabase" / "migrations"

# The sweep runs every minute, cleanup_receipts every 15 minutes. Work this old was missed by two runs in a row.
JOB_OVERDUE_SECONDS = timedelta(minutes=3).total_seconds()
RECEIPT_OVERDUE_SECONDS = timedelta(minutes=35).total_seconds()
# Apple's reviewers expect action within a day (App Store Review Guidelines, 1.2).
REPORT_OVERDUE_SECONDS = timedelta(hours=24).total_seconds()
# The share of pg_net's requests that may fail: any network loses a few, and the sweep sends their messages.
FAILED_ANSWERS_SHARE = 0.1


def migrations(system: System) -> Iterator[Result]:
    """Checks that every migration of this checkout is applied."""
    applied = system.diagnosis.migrations
    wanted = [file.name for file in sorted(MIGRATIONS.glob("*.sql"))]
    if applied is None:
        yield Healthy("migrations: applied without the Supabase CLI, so there is no list of them; diagnose_push exists")
        return
    missing = [name for name in wanted if name.split("_")[0] not in applied]
    if missing:
        consequence = "The workers call SQL functions that the database does not have yet, and these calls fail."
        yield Finding(f"migrations are not applied: {', '.join(missing)}", consequence, "supabase db push")
    else:
        yield Healthy(f"migrations: all {len(wanted)} are applied")


# The triggers of chat_messages that make jobs due: the rest of their definition, and what a missing one breaks.
JOB_TRIGGERS = {
    "create_push_job": (
        "after insert on public.chat_messages referencing new table as new_messages"
        " for each statement execute function push.create_job()",
        "New messages get no job, so no push is ever sent for them.",
    ),
    "set_push_jobs_due": (
        "after update on public.chat_messages referencing old table as old_messages new table as new_messages"
        " for each statement execute function push.set_due_after_update()",
        "Phones go on showing messages that were read, edited or deleted.",
    ),
    "set_push_jobs_due_after_delete": (
        "after delete on public.chat_messages referencing old table as old_messages"
        " for each statement execute function push.set_due_after_delete()",
        "Phones go on showing messages whose rows were deleted.",
    ),
    "set_push_jobs_due_after_truncate": (
        "after truncate on public.chat_messages for each statement execute function push.set_due_after_delete()",
        "Phones go on showing messages after chat_messages was truncated.",
    ),
}


def job_triggers(system: System) -> Iterator[Result]:
    """Checks that triggers make a job due with each new message, and with each change of a message."""
    enabled = {trigger.name: trigger.enabled for trigger in system.diagnosis.triggers}
    if all(enabled.get(name) for name in JOB_TRIGGERS):
        yield Healthy("job triggers: each new or changed message makes its job due")
    for name, (definition, consequence) in JOB_TRIGGERS.items():
        if name not in enabled:
            yield Finding(f"chat_messages has no trigger {name}", consequence, f"create trigger {name} {definition};")
        elif not enabled[name]:
            remedy = f"alter table public.chat_messages enable trigger {name};"
            yield Finding(f"the trigger {name} of chat_messages is disabled", consequence, remedy)


def answers(system: System) -> Iterator[Result]:
    """Checks that the requests of the database's webhooks succeed."""
    counted = system.diagnosis.answers
    if counted is None:
        yield Finding("the extension pg_net is missing", LATE, "create extension pg_net;")
        return
    total = sum(counted.values())
    failed = {answer: count for answer, count in counted.items() if not answer.startswith("2")}
    if sum(failed.values()) > FAILED_ANSWERS_SHARE * total:
        listed = ", ".join(f"{answer}: {count}" for answer, count in sorted(failed.items()))
        yield Finding(
            f"of {total} requests of pg_net in the last hour {sum(failed.values())} failed ({listed})",
            "Pushes whose webhook call failed are up to a minute late (calls of other webhooks are counted too).",
            "fix the other findings first; without any: select * from net._http_response order by created desc;",
        )
    else:
        yield Healthy(f"webhook calls: {total} in the last hour, {sum(failed.values())} failed")


def row_level_security(system: System) -> Iterator[Result]:
    """Checks that row level security is on for each chat table."""
    tables = system.diagnosis.row_level_security
    open_tables = [name for name, on in sorted(tables.items()) if not on]
    for name in open_tables:
        yield Finding(
            f"row level security of {name} is off",
            "Every signed-in user can read and write the rows of all users, within the grants of the table.",
            f"alter table public.{name} enable row level security;",
        )
    if not open_tables:
        yield Healthy(f"row level security: on for all {len(tables)} tables")


def rights(system: System) -> Iterator[Result]:
    """Checks that anon and authenticated hold no right of the workers."""
    for found in system.diagnosis.open_rights:
        yield Finding(
            f"{found.role} has {found.right}",
            "Anyone with the publishable key can claim jobs, or read message texts and push tokens.",
            f"revoke {found.right} from public, {found.role};",
        )
    if not system.diagnosis.open_rights:
        yield Healthy("rights: anon and authenticated cannot use the worker functions or the schema push")


def jobs(system: System) -> Iterator[Result]:
    """Checks that workers send the jobs that are due."""
    found = system.diagnosis.jobs
    overdue = found.oldest_due_seconds or 0
    if overdue > JOB_OVERDUE_SECONDS:
        yield Finding(
            f"{found.waiting} jobs wait, the oldest has been due for {duration(overdue)}",
            "Pushes are late, and messages expire after 24 hours: send_chat_push does not run, fails, or is too slow.",
            system.log_of("SendChatPush"),
        )
    else:
        expired = f", {found.leases_expired} with the lease of a worker that died" if found.leases_expired else ""
        yield Healthy(f"jobs: {found.waiting} wait{expired}; none is overdue")


def choices(system: System) -> Iterator[Result]:
    """Tells how many messages of the last day made no notification, or no sound, because their recipients chose so."""
    stopped, silenced = (
        ", ".join(f"{reason} {number}" for reason, number in sorted(found.items())) or "none"
        for found in (system.diagnosis.stopped_by_choice, system.diagnosis.silenced_by_choice)
    )
    yield Healthy(
        f"messages of a day that users chose not to be told of: {stopped}; pushes without a sound: {silenced}"
    )


def reports(system: System) -> Iterator[Result]:
    """Checks that moderators answer what users report."""
    found = system.diagnosis.reports
    oldest = found.oldest_seconds or 0
    if oldest > REPORT_OVERDUE_SECONDS:
        yield Finding(
            f"{found.open} reports of users wait, the oldest has been open for {duration(oldest)}",
            "The App Store expects that reports are answered within 24 hours.",
            "select * from public.list_reports();  -- see docs/operate.md, Reports",
        )
    else:
        yield Healthy(f"reports of users: {found.open} open; none for longer than a day")


def receipts(system: System) -> Iterator[Result]:
    """Checks that cleanup_receipts reads the receipts that are due."""
    found = system.diagnosis.receipts
    overdue = found.oldest_due_seconds or 0
    if overdue > RECEIPT_OVERDUE_SECONDS:
        yield Finding(
            f"{found.waiting} receipts wait, the oldest has been due for {duration(overdue)}",
            "Dead devices stay active, and refused pushes are not sent again; Expo deletes receipts after 24 hours.",
            system.log_of("CleanupReceipts"),
        )
    else:
        yield Healthy(f"receipts: {found.waiting} wait; none is overdue")


def held_deactivations(system: System) -> Iterator[Result]:
    """Checks that no run of deactivations waits for a review."""
    for run in system.diagnosis.held_deactivations:
        yield Finding(
            f"the breaker holds a run of {run.began_at:%Y-%m-%d %H:%M} UTC, in which {run.devices} devices were dead",
            "None of them was deactivated; if Expo is right, each push to them is wasted.",
            f"select push.review_held_deactivations('{run.id}', true);  -- true: deactivate them; false: keep them",
        )
    if not system.diagnosis.held_deactivations:
        yield Healthy("breaker: holds no run")


def devices(system: System) -> Iterator[Result]:
    """Checks that each active device has a token in Expo's format."""
    found = system.diagnosis.devices
    consequence = "No push reaches these devices."
    register_again = "Their apps must register again with the token of getExpoPushTokenAsync."
    if found.malformed:
        yield Finding(
            f"{found.malformed} of {found.active} active devices have a token that is not in Expo's format",
            f"{consequence} {register_again}",
            "update public.user_devices set is_active = false"
            " where is_active and push_provider = 'expo' and not private.is_expo_token(push_token);",
        )
    if found.provider_not_configured:
        yield Finding(
            f"{found.provider_not_configured} of {found.active} active devices have an unconfigured push_provider",
            f"{consequence} Write the credentials with ./dev secrets put, or their apps must register for Expo.",
            "update public.user_devices set is_active = false"
            " where is_active and push_provider <> all (push.configured_providers());",
        )
    if found.web:
        yield Finding(
            f"{found.web} of {found.active} active devices have an unsupported platform: web",
            "Pushes to them are sent, but Expo has no push tokens for the web. The app must register its platform.",
            "update public.user_devices set is_active = false where is_active and platform = 'web';",
        )
    if not found.malformed and not found.provider_not_configured and not found.web:
        yield Healthy(f"devices: {found.active} active, each without a token or with one in Expo's format")


def installation(system: System) -> Iterator[Result]:
    """Reports what the migrations changed, because `supabase db push` prints no notices."""
    changes = [
        f"{change.what}: {change.subjects}" + ("" if change.rows is None else f" ({change.rows} rows)")
        for change in system.diagnosis.existing_app.report
    ]
    yield Healthy(f"installation: {', '.join(changes)}; details are in the table push.migration_report")


def names(system: System) -> Iterator[Result]:
    """Checks that pushes show the name of the sender."""
    found = system.diagnosis.existing_app
    if found.people and not found.named:
        yield Finding(
            f"push.display_name finds no name for any of {found.people} rows of users",
            "Each push has a neutral title and does not show who wrote the message.",
            "replace push.display_name by a function that reads your profiles: docs/deploy.md, An app that exists",
        )
    else:
        yield Healthy(f"names: {found.named} of {found.people} users have a name that pushes show")
