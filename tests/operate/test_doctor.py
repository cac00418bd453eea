"""./dev doctor on the local cloud: what is broken is found, and mended by what the finding names."""

import asyncio
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from aiohttp import web

from local.supabase.postgres import SUPERUSER
from local.supabase.project import migrate
from operate.__main__ import main
from operate.doctor.results import Finding, Healthy, NotExamined, NotLocal
from tests.operate.conftest import BreakableCloud

PROJECT = Path(__file__).parents[2]


async def test_healthy_cloud(patient: BreakableCloud) -> None:
    results = await patient.examination()
    assert [result.what for result in results if isinstance(result, NotLocal)] == [
        "versions",
        "concurrency",
        "schedules",
        "alarms",
    ]
    assert all(isinstance(result, Healthy | NotLocal) for result in results)


async def test_exit_code_and_output_are_fit_for_monitoring(patient: BreakableCloud) -> None:
    await patient.execute("alter table public.user_devices disable row level security")
    argv = (sys.executable, "-m", "operate", "doctor", "--env", patient.env_file)
    process = await asyncio.create_subprocess_exec(*argv, cwd=PROJECT, stdout=asyncio.subprocess.PIPE)
    output = (await process.communicate())[0].decode()
    assert process.returncode == 1
    assert (
        "FINDING   row level security of user_devices is off\n"
        "  so      Every signed-in person may read and write the rows of everybody, as far as the grants go.\n"
        "  remedy by alter table public.user_devices enable row level security;\n"
    ) in output
    assert output.splitlines()[-1] == "1 findings, 0 unknown"
    await patient.recover()
    code, output = await patient.run(f"./dev doctor --env {patient.env_file}")
    assert (code, output.splitlines()[-1]) == (0, "healthy")


@pytest.mark.parametrize("options", ["", "--env missing", "--env x --stack y", "--env missing --send me"])
def test_wrong_usage_is_neither_healthy_nor_a_finding(
    options: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["./dev", "doctor", *options.split()])
    with pytest.raises(SystemExit) as ended:
        sys.exit(main())
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "./dev doctor: " in printed.err


async def test_no_secret_and_no_token_is_printed(patient: BreakableCloud, capsys: pytest.CaptureFixture[str]) -> None:
    phone = await patient.phone(patient.gus, "phone")
    await patient.execute(_vaulted("push_webhook_secret", "a secret that nobody knows"))
    await patient.examination(
        backend_secret_id=patient.secret({"supabase_secret_key": "sb_secret_of_another_project"}),
        webhook_secret_id=patient.secret('{"current": "a secret that is cut off'),
    )
    await patient.examination()
    output = capsys.readouterr().out
    secrets = ("nobody knows", "sb_secret_of", "cut off", patient.cloud.webhook_secret)
    for secret in (*secrets, patient.cloud.supabase.secret_key, phone.token):
        assert secret not in output


def _vaulted(name: str, value: str) -> str:
    """A statement that gives a secret of the database's Vault another value."""
    return f"select vault.update_secret(id, '{value}') from vault.secrets where name = '{name}'"


# What SQL mends --------------------------------------------------------------------------------

BROKEN = {
    "the trigger create_push_job of chat_messages is disabled": [
        "alter table public.chat_messages disable trigger create_push_job"
    ],
    "chat_messages has no trigger that calls push.create_job": ["drop trigger create_push_job on public.chat_messages"],
    "row level security of chat_messages is off": ["alter table public.chat_messages disable row level security"],
    "anon has execute on function public.claim_push_jobs(uuid[],integer,double precision,text)": [
        "grant execute on function public.claim_push_jobs to anon"
    ],
    "authenticated has usage on schema push": ["grant usage on schema push to authenticated"],
    "the webhook notify_webhook of chat_messages is disabled": [
        "alter table public.chat_messages disable trigger notify_webhook"
    ],
    "the database has no webhook": ["drop trigger notify_webhook on public.chat_messages"],
    "the database rings https://example.com/old": [_vaulted("push_webhook_url", "https://example.com/old")],
    "the database rings nothing": ["delete from vault.secrets"],
    "the database rings with another secret": [_vaulted("push_webhook_secret", "x" * 24)],
    "the database cannot decrypt the webhook's URL and secret": [
        "delete from vault.secrets",
        "set vault.root_key = 'of another project'",
        "select vault.create_secret('https://example.com', 'push_webhook_url')",
        "reset vault.root_key",
    ],
    "the breaker holds a run": [
        "insert into push.receipt_runs (id, state) values ('0e1d0000-0000-4000-8000-000000000000', 'held')"
    ],
    "1 of 1 active devices are registered for another provider": [
        "insert into public.user_devices (user_id, device_id, platform, push_provider, push_token)"
        " select id, 'old', 'android', 'fcm', repeat('f', 64) from public.users limit 1"
    ],
}


@pytest.mark.parametrize("what", BROKEN)
async def test_finding_is_mended_by_the_sql_that_it_names(patient: BreakableCloud, what: str) -> None:
    await patient.execute(*BROKEN[what])
    finding = await patient.finding(what)
    await patient.execute(finding.remedy.replace("<secret>", patient.cloud.webhook_secret))
    await patient.is_healthy()


async def test_profiles_without_a_name_that_pushes_show(patient: BreakableCloud) -> None:
    await patient.execute(
        "create table public.names as select id, display_name from public.users",
        "update public.users set display_name = null",
    )
    finding = await patient.finding("push.display_name finds no name of any person in users")
    assert "push.display_name" in finding.remedy
    await patient.execute(
        "update public.users person set display_name = names.display_name from public.names where names.id = person.id",
        "drop table public.names",
    )
    await patient.is_healthy()


async def test_what_the_migrations_did_to_an_existing_app_is_said(patient: BreakableCloud) -> None:
    [installed] = [result.what for result in await patient.examination() if "installation" in str(result)]
    assert installed == "installation: table created: 6; all of it: table push.migration_report"
    await patient.execute(
        "insert into push.migration_report (what, subject, affected_rows)"
        " values ('rows filled in', 'a', 2), ('rows filled in', 'b', 3), ('column added', 'users.locale', null)"
    )
    [installed] = [result.what for result in await patient.examination() if "installation" in str(result)]
    assert "table created: 6, rows filled in: 2 (5 rows), column added: 1; all of it" in installed
    await patient.execute("delete from push.migration_report where what <> 'table created'")


async def test_device_with_a_token_that_is_not_expos(patient: BreakableCloud) -> None:
    constraint = "expo_push_token_format"
    await patient.execute(
        f"alter table public.user_devices drop constraint {constraint}",
        "insert into public.user_devices (user_id, device_id, platform, push_token)"
        " select id, 'old', 'android', repeat('f', 64) from public.users limit 1",
    )
    finding = await patient.finding("1 of 1 active devices have a token that is not Expo's")
    await patient.execute(finding.remedy)
    await patient.is_healthy()
    await patient.execute(
        "delete from public.user_devices where device_id = 'old'",
        f"alter table public.user_devices add constraint {constraint} check (push_provider <> 'expo'"
        " or private.is_expo_token(push_token))",
    )


async def test_migration_that_is_not_applied(patient: BreakableCloud) -> None:
    version = sorted((PROJECT / "supabase" / "migrations").glob("*.sql"))[0].name.split("_")[0]
    table = "supabase_migrations.schema_migrations"
    await patient.execute(
        f"create table public.kept as select * from {table}", f"delete from {table} where version = '{version}'"
    )
    assert (
        await patient.finding(f"migrations are not applied: {version}_chat_tables.sql")
    ).remedy == "supabase db push"
    await patient.execute(
        f"insert into {table} select * from public.kept where version = '{version}'", "drop table public.kept"
    )
    await patient.is_healthy()


async def test_database_of_before_the_doctor(patient: BreakableCloud) -> None:
    await patient.execute(
        "drop function public.diagnose_push(), push.diagnose_existing_app(), push.diagnose_work(),"
        " push.diagnose_rights(), push.diagnose_tables(), push.diagnose_answers(), push.diagnose_triggers(),"
        " push.diagnose_migrations(), push.sha256(text)",
        "delete from supabase_migrations.schema_migrations where version = '20261122101900'",
    )
    finding = await patient.finding_alone("the database has no function diagnose_push")
    assert finding.remedy == "supabase db push"
    await migrate(patient.cloud.database_url)
    await patient.is_healthy()


async def test_diagnosis_of_another_version_is_unknown(patient: BreakableCloud) -> None:
    await patient.execute(
        "alter function public.diagnose_push() rename to right_one",
        "create function public.diagnose_push() returns jsonb language sql as $$ select jsonb_build_object() $$",
    )
    unknown = [result for result in await patient.examination() if isinstance(result, NotExamined)]
    assert {result.why for result in unknown} == {
        "the answer is no Diagnosis: is this checkout as old as what is deployed?"
    }
    await patient.execute(
        "drop function public.diagnose_push()", "alter function public.right_one() rename to diagnose_push"
    )
    await patient.is_healthy()


async def test_pg_net_is_missing(patient: BreakableCloud) -> None:
    await patient.execute("alter schema net rename to elsewhere", role=SUPERUSER)
    try:
        finding = await patient.finding("the extension pg_net is missing")
        assert finding.remedy == "create extension pg_net;"
    finally:
        await patient.execute("alter schema elsewhere rename to net", role=SUPERUSER)
    await patient.is_healthy()


@pytest.mark.parametrize("failed", [1, 2])
async def test_answers_of_the_webhook_may_fail_now_and_then(patient: BreakableCloud, failed: int) -> None:
    await patient.execute(
        f"insert into net._http_response (id, status_code) select n, case when n <= {failed} then 401 else 202 end"
        " from generate_series(1, 15) n"
    )
    if failed == 1:
        await patient.is_healthy()
    else:
        await patient.finding("of 15 requests of pg_net in the last hour 2 failed (401: 2)")


# Work that nobody does -------------------------------------------------------------------------


async def test_job_that_nobody_sends(patient: BreakableCloud) -> None:
    patient.cloud.pg_net.lose(1)
    chat = await patient.tina.open_chat(patient.gus)
    await patient.tina.send(chat, "Hello")
    await patient.execute("update push.jobs set next_attempt_at = clock_timestamp() - interval '200 seconds'")
    finding = await patient.finding("1 jobs wait, the oldest has been due for")
    assert "SendChatPush.log" in finding.remedy
    await patient.cloud.scheduler.fire("SendChatPushSweep")
    await patient.is_healthy()


async def test_receipts_that_nobody_reads(patient: BreakableCloud) -> None:
    await patient.phone(patient.gus, "phone")
    chat = await patient.tina.open_chat(patient.gus)
    message = await patient.tina.send(chat, "Hello")
    await patient.cloud.until_push(message, lambda job: job["outcome"] == "accepted", sweep=True)
    await patient.execute("update push.deliveries set receipt_due_at = clock_timestamp() - interval '40 minutes'")
    finding = await patient.finding("1 receipts wait, the oldest has been due for")
    assert "CleanupReceipts.log" in finding.remedy
    await patient.cloud.scheduler.fire("CleanupReceiptsRun")
    await patient.is_healthy()


async def test_dead_letters_go_back_by_the_command_that_the_finding_names(patient: BreakableCloud) -> None:
    dead_letters = patient.cloud.template.queues["PushDeadLetters"].url
    patient.cloud.aws.sqs.send_message(QueueUrl=dead_letters, MessageBody=str(uuid4()))
    finding = await patient.finding("1 records are in the dead-letter queue")
    assert await patient.run(finding.remedy) == (0, "1 dead letters are back in the queue\n")
    await patient.is_healthy()


# Secrets, and whoever is reached with them -----------------------------------------------------


@pytest.mark.parametrize("value", ["{}", '{"supabase_secret_key": null}', "no JSON"])
async def test_secret_of_the_workers_is_incomplete(patient: BreakableCloud, value: str) -> None:
    finding = await patient.finding_alone(
        "the secret BackendSecret is incomplete", backend_secret_id=patient.secret(value)
    )
    assert finding.remedy == f"./dev secrets put --env {patient.env_file}"
    complete = patient.secret({"supabase_secret_key": patient.cloud.supabase.secret_key})
    await patient.is_healthy(backend_secret_id=complete)


async def test_secret_of_the_webhook_is_incomplete(patient: BreakableCloud) -> None:
    secret = patient.secret("{}")
    await patient.finding_alone("the secret WebhookSecret is incomplete: current", webhook_secret_id=secret)
    await patient.is_healthy(webhook_secret_id=patient.secret({"current": patient.cloud.webhook_secret}))


async def test_secret_that_was_never_filled(patient: BreakableCloud) -> None:
    patient.cloud.aws.secrets_manager.create_secret(Name="empty")
    await patient.finding_alone("the secret BackendSecret is empty or gone", backend_secret_id="empty")


async def test_secret_key_of_another_project(patient: BreakableCloud) -> None:
    finding = await patient.finding_alone(
        "Supabase refuses supabase_secret_key of the secret BackendSecret (HTTP 401)",
        backend_secret_id=patient.secret({"supabase_secret_key": "sb_secret_of_another_project"}),
    )
    assert finding.remedy == f"./dev secrets put --env {patient.env_file}"


async def test_supabase_does_not_answer(patient: BreakableCloud) -> None:
    await patient.cloud.supabase.stop()
    try:
        await patient.finding_alone("Supabase does not answer")
    finally:
        await patient.cloud.supabase.start()
    await patient.is_healthy()


@pytest.mark.parametrize(
    ("wanted", "given", "what"),
    [
        ("a token", None, "Expo refuses requests without an access token (UNAUTHORIZED)"),
        ("a token", "another", "Expo refuses expo_access_token of the secret BackendSecret (invalid_token)"),
        (None, "a token", "Expo refuses expo_access_token of the secret BackendSecret (invalid_token)"),
    ],
)
async def test_access_token_that_expo_refuses(
    patient: BreakableCloud, wanted: str | None, given: str | None, what: str
) -> None:
    def secret(access_token: str | None) -> str:
        key = patient.cloud.supabase.secret_key
        return patient.secret({"supabase_secret_key": key, "expo_access_token": access_token})

    patient.cloud.expo.configure({"access_token": wanted})
    finding = await patient.finding(what, backend_secret_id=secret(given))
    assert finding.remedy == f"./dev secrets put --env {patient.env_file}"
    await patient.is_healthy(backend_secret_id=secret(wanted))


async def test_expo_does_not_answer(patient: BreakableCloud) -> None:
    await patient.finding("Expo does not answer (ConnectError)", expo_url="http://127.0.0.1:9")


# The door --------------------------------------------------------------------------------------


async def test_rotation_that_is_unfinished(patient: BreakableCloud) -> None:
    new = uuid4().hex
    secret = patient.secret({"current": new, "previous": patient.cloud.webhook_secret})
    results = await patient.examination(webhook_secret_id=secret)
    rotation, refusal = [result for result in results if isinstance(result, Finding)]
    assert rotation.what == "a rotation is unfinished: the database rings with the previous secret"
    # The authorizer does not know it yet: it keeps a secret for five minutes.
    assert refusal.what == "the webhook refuses its own secret"
    assert "five minutes" in refusal.consequence
    await patient.execute(rotation.remedy.replace("<secret>", new))
    await patient.finding("the webhook refuses its own secret", webhook_secret_id=secret)


async def test_previous_secret_that_still_opens_is_told(patient: BreakableCloud) -> None:
    secret = patient.secret({"current": patient.cloud.webhook_secret, "previous": "the one before"})
    results = await patient.examination(webhook_secret_id=secret)
    [told] = [result for result in results if "previous secret still opens" in str(result)]
    assert isinstance(told, Healthy)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (202, ["the webhook lets a wrong secret in"]),
        (
            500,
            [
                "the webhook answers 500 to a wrong secret, not 403",
                "the webhook answers 500 to its own secret, not 202",
            ],
        ),
        (403, ["the webhook refuses its own secret"]),
    ],
)
async def test_door_that_answers_everybody_alike(patient: BreakableCloud, status: int, expected: list[str]) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status)

    app = web.Application()
    app.router.add_post("/door", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/door"
        await patient.execute(_vaulted("push_webhook_url", url))
        results = await patient.examination(webhook_url=url)
    finally:
        await runner.cleanup()
    assert [result.what for result in results if isinstance(result, Finding)] == expected


async def test_door_that_is_not_there_is_unknown(patient: BreakableCloud) -> None:
    url = "http://127.0.0.1:9/door"
    await patient.execute(_vaulted("push_webhook_url", url))
    [unknown] = [result for result in await patient.examination(webhook_url=url) if isinstance(result, NotExamined)]
    assert str(unknown).startswith("unknown   doorbell: ConnectError")
