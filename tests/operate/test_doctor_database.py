"""./dev doctor finds each fault of the database, and the remedy that it names fixes the fault."""

from pathlib import Path
from uuid import uuid4

import pytest

from local.supabase.postgres import SUPERUSER
from local.supabase.project import migrate
from operate.doctor.database import JOB_TRIGGERS
from operate.doctor.results import NotExamined
from tests.operate.conftest import BreakableCloud, vault_update

PROJECT = Path(__file__).parents[2]


BROKEN = {
    "the trigger create_push_job of chat_messages is disabled": [
        "alter table public.chat_messages disable trigger create_push_job"
    ],
    **{
        f"chat_messages has no trigger {name}": [f"drop trigger {name} on public.chat_messages"]
        for name in JOB_TRIGGERS
    },
    "the trigger set_push_jobs_due of chat_messages is disabled": [
        "alter table public.chat_messages disable trigger set_push_jobs_due"
    ],
    "row level security of chat_messages is off": ["alter table public.chat_messages disable row level security"],
    "anon has execute on function public.claim_push_jobs(uuid[],integer,double precision,text,text[])": [
        "grant execute on function public.claim_push_jobs to anon"
    ],
    "authenticated has usage on schema push": ["grant usage on schema push to authenticated"],
    "the webhook notify_webhook of chat_messages is disabled": [
        "alter table public.chat_messages disable trigger notify_webhook"
    ],
    "the database has no webhook": ["drop trigger notify_webhook on public.chat_messages"],
    "the database calls https://example.com/old": [vault_update("push_webhook_url", "https://example.com/old")],
    "the database calls no URL": ["delete from vault.secrets"],
    "the database sends a secret that WebhookSecret does not hold": [vault_update("push_webhook_secret", "x" * 24)],
    "the database cannot decrypt the webhook's URL and secret": [
        "delete from vault.secrets",
        "set vault.root_key = 'of another project'",
        "select vault.create_secret('https://example.com', 'push_webhook_url')",
        "reset vault.root_key",
    ],
    "the breaker holds a run": [
        "insert into push.receipt_runs (id, state) values ('0e1d0000-0000-4000-8000-000000000000', 'held')"
    ],
    "1 of 1 active devices have an unsupported platform: web": [
        "insert into public.user_devices (user_id, device_id, platform, push_token)"
        " select id, 'browser', 'web', 'ExponentPushToken[web]' from public.users limit 1"
    ],
    "1 of 1 active devices have an unconfigured push_provider": [
        "insert into public.user_devices (user_id, device_id, platform, push_provider, push_token)"
        " select id, 'old', 'android', 'fcm', repeat('f', 64) from public.users limit 1"
    ],
}


@pytest.mark.parametrize("what", BROKEN)
async def test_the_sql_of_a_finding_fixes_its_fault(breakable: BreakableCloud, what: str) -> None:
    await breakable.execute(*BROKEN[what])
    finding = await breakable.finding(what)
    await breakable.execute(finding.remedy.replace("<secret>", breakable.cloud.webhook_secret))
    await breakable.is_healthy()


async def test_a_report_that_is_open_for_more_than_a_day_is_a_finding_until_it_is_resolved(
    breakable: BreakableCloud,
) -> None:
    await breakable.execute(
        "insert into private.reports (created_at, reported_id, reason)"
        " values (now() - interval '25 hours', gen_random_uuid(), 'spam'), (now(), gen_random_uuid(), 'spam')"
    )
    finding = await breakable.finding("2 reports of users wait, the oldest has been open for")
    assert "public.list_reports()" in finding.remedy
    await breakable.execute("select public.resolve_report(id, 'dismissed') from public.list_reports(p_limit => 1)")
    await breakable.is_healthy()
    await breakable.execute("delete from private.reports")


async def test_profiles_without_a_display_name_are_a_finding(breakable: BreakableCloud) -> None:
    await breakable.execute(
        "create table public.names as select id, display_name from public.users",
        "update public.users set display_name = null",
    )
    finding = await breakable.finding("push.display_name finds no name for any of 2 rows of users")
    assert "push.display_name" in finding.remedy
    await breakable.execute(
        "update public.users person set display_name = names.display_name from public.names where names.id = person.id",
        "drop table public.names",
    )
    await breakable.is_healthy()


async def test_the_doctor_reports_what_the_migrations_changed(breakable: BreakableCloud) -> None:
    [installed] = [result.what for result in await breakable.examination() if "installation" in str(result)]
    assert installed == "installation: table created: 6; details are in the table push.migration_report"
    await breakable.execute(
        "insert into push.migration_report (what, subject, affected_rows)"
        " values ('rows filled in', 'a', 2), ('rows filled in', 'b', 3), ('column added', 'users.locale', null)"
    )
    [installed] = [result.what for result in await breakable.examination() if "installation" in str(result)]
    assert "table created: 6, rows filled in: 2 (5 rows), column added: 1; details" in installed
    await breakable.execute("delete from push.migration_report where what <> 'table created'")


async def test_a_device_with_a_token_in_another_format_is_a_finding(breakable: BreakableCloud) -> None:
    constraint = "expo_push_token_format"
    await breakable.execute(
        f"alter table public.user_devices drop constraint {constraint}",
        "insert into public.user_devices (user_id, device_id, platform, push_token)"
        " select id, 'old', 'android', repeat('f', 64) from public.users limit 1",
    )
    finding = await breakable.finding("1 of 1 active devices have a token that is not in Expo's format")
    await breakable.execute(finding.remedy)
    await breakable.is_healthy()
    await breakable.execute(
        "delete from public.user_devices where device_id = 'old'",
        f"alter table public.user_devices add constraint {constraint} check (push_provider <> 'expo'"
        " or private.is_expo_token(push_token))",
    )


async def test_a_missing_migration_is_a_finding(breakable: BreakableCloud) -> None:
    version = sorted((PROJECT / "supabase" / "migrations").glob("*.sql"))[0].name.split("_")[0]
    table = "supabase_migrations.schema_migrations"
    await breakable.execute(
        f"create table public.kept as select * from {table}", f"delete from {table} where version = '{version}'"
    )
    assert (
        await breakable.finding(f"migrations are not applied: {version}_chat_tables.sql")
    ).remedy == "supabase db push"
    await breakable.execute(
        f"insert into {table} select * from public.kept where version = '{version}'", "drop table public.kept"
    )
    await breakable.is_healthy()


async def test_a_database_without_diagnose_push_is_a_finding(breakable: BreakableCloud) -> None:
    await breakable.execute(
        "drop function public.diagnose_push(), push.diagnose_existing_app(), push.diagnose_work(),"
        " push.diagnose_rights(), push.diagnose_tables(), push.diagnose_answers(), push.diagnose_triggers(),"
        " push.diagnose_migrations(), push.sha256(text)",
        "delete from supabase_migrations.schema_migrations where version = '20261122101900'",
    )
    finding = await breakable.finding_alone("the database has no function diagnose_push")
    assert finding.remedy == "supabase db push"
    await migrate(breakable.cloud.database_url)
    await breakable.is_healthy()


async def test_a_diagnosis_of_another_release_is_reported_as_unknown(breakable: BreakableCloud) -> None:
    await breakable.execute(
        "alter function public.diagnose_push() rename to right_one",
        "create function public.diagnose_push() returns jsonb language sql as $$ select jsonb_build_object() $$",
    )
    unknown = [result for result in await breakable.examination() if isinstance(result, NotExamined)]
    assert {result.why for result in unknown} == {
        "the answer is not a valid Diagnosis: check out the release that is deployed"
    }
    await breakable.execute(
        "drop function public.diagnose_push()", "alter function public.right_one() rename to diagnose_push"
    )
    await breakable.is_healthy()


async def test_a_missing_pg_net_is_a_finding(breakable: BreakableCloud) -> None:
    await breakable.execute("alter schema net rename to elsewhere", role=SUPERUSER)
    try:
        finding = await breakable.finding("the extension pg_net is missing")
        assert finding.remedy == "create extension pg_net;"
    finally:
        await breakable.execute("alter schema elsewhere rename to net", role=SUPERUSER)
    await breakable.is_healthy()


@pytest.mark.parametrize("failed", [1, 2])
async def test_failed_webhook_calls_are_a_finding_above_a_tenth(breakable: BreakableCloud, failed: int) -> None:
    await breakable.execute(
        f"insert into net._http_response (id, status_code) select n, case when n <= {failed} then 401 else 202 end"
        " from generate_series(1, 15) n"
    )
    if failed == 1:
        await breakable.is_healthy()
    else:
        await breakable.finding("of 15 requests of pg_net in the last hour 2 failed (401: 2)")


async def test_an_overdue_job_is_a_finding(breakable: BreakableCloud) -> None:
    breakable.cloud.pg_net.lose(1)
    chat = await breakable.tina.open_chat(breakable.gus)
    await breakable.tina.send(chat, "Hello")
    await breakable.execute("update push.jobs set next_attempt_at = clock_timestamp() - interval '200 seconds'")
    finding = await breakable.finding("1 jobs wait, the oldest has been due for")
    assert "SendChatPush.log" in finding.remedy
    await breakable.cloud.sweep()
    await breakable.is_healthy()


async def test_an_overdue_receipt_is_a_finding(breakable: BreakableCloud) -> None:
    await breakable.phone(breakable.gus, "phone")
    chat = await breakable.tina.open_chat(breakable.gus)
    message = await breakable.tina.send(chat, "Hello")
    await breakable.cloud.until_push(message, lambda job: job["outcome"] == "accepted", sweep=True)
    await breakable.execute("update push.deliveries set receipt_due_at = clock_timestamp() - interval '40 minutes'")
    finding = await breakable.finding("1 receipts wait, the oldest has been due for")
    assert "CleanupReceipts.log" in finding.remedy
    await breakable.cloud.scheduler.fire("CleanupReceiptsRun")
    await breakable.is_healthy()


async def test_the_command_of_the_finding_moves_dead_letters_back(breakable: BreakableCloud) -> None:
    dead_letters = breakable.cloud.template.queues["PushDeadLetters"].url
    breakable.cloud.aws.sqs.send_message(QueueUrl=dead_letters, MessageBody=str(uuid4()))
    finding = await breakable.finding("1 records are in the dead-letter queue")
    assert await breakable.run(finding.remedy) == (0, "1 dead letters are back in the queue\n")
    await breakable.is_healthy()
