"""diagnose_push: the facts by which ./dev doctor judges a database; no secret, no token and no text is among them."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from local.supabase.postgres import SUPERUSER
from tests.database.chat import Chat, Database, acting_as, as_user, claim, claim_one, record, value, worker_report
from tests.database.test_access import WORKER_FUNCTIONS
from tests.database.test_block import block
from tests.database.test_mute import mute
from tests.database.test_notification_state import sent
from tests.database.test_push_webhook import RESTORED, SECRET, URL, configure
from tests.database.test_quiet_hours import ALWAYS, choose
from tests.database.test_reports import report, resolve

MIGRATIONS = Path(__file__).parents[2] / "supabase" / "migrations"


async def diagnose(chat: Chat) -> Any:
    async with acting_as(chat.connection, "service_role"):
        return await value(chat.connection, "select public.diagnose_push()")


async def execute(chat: Chat, *statements: str) -> None:
    for statement in statements:
        await chat.connection.execute(statement.encode())


async def test_diagnosis_lists_each_applied_migration(chat: Chat) -> None:
    files = sorted(file.name.split("_")[0] for file in MIGRATIONS.glob("*.sql"))
    assert (await diagnose(chat))["migrations"] == files


async def test_diagnosis_lists_no_migrations_that_were_applied_without_the_cli(chat: Chat) -> None:
    await execute(chat, "drop schema supabase_migrations cascade")
    assert (await diagnose(chat))["migrations"] is None


async def test_diagnosis_shows_no_webhook_before_it_is_configured(chat: Chat) -> None:
    triggers = (await diagnose(chat))["triggers"]
    assert {trigger["name"]: (trigger["calls"], trigger["enabled"]) for trigger in triggers} == {
        "create_push_job": ("push.create_job", True),
        "set_push_jobs_due": ("push.set_due_after_update", True),
        "set_push_jobs_due_after_delete": ("push.set_due_after_delete", True),
        "set_push_jobs_due_after_truncate": ("push.set_due_after_delete", True),
    }


async def test_diagnosis_shows_the_url_and_a_hash_of_the_secret_of_the_webhook(chat: Chat) -> None:
    await configure(chat)
    diagnosis = await diagnose(chat)
    [webhook] = [trigger for trigger in diagnosis["triggers"] if trigger["calls"] == "push.notify_webhook"]
    assert webhook == {
        "name": "notify_webhook",
        "calls": "push.notify_webhook",
        "enabled": True,
        "readable": True,
        "url": URL,
        "secret_sha256": sha256(SECRET.encode()).hexdigest(),
    }
    assert SECRET not in json.dumps(diagnosis)


async def test_diagnosis_shows_a_webhook_whose_secrets_vault_cannot_decrypt(chat: Chat) -> None:
    await configure(chat)
    await execute(chat, RESTORED)
    triggers = {trigger["name"]: trigger for trigger in (await diagnose(chat))["triggers"]}
    webhook = triggers.pop("notify_webhook")
    assert (webhook["readable"], webhook["url"]) == (False, None)
    assert all(trigger["readable"] for trigger in triggers.values())


@pytest.mark.parametrize("how", ["disable trigger", "enable replica trigger"])
async def test_diagnosis_shows_a_disabled_trigger(chat: Chat, how: str) -> None:
    await configure(chat)
    await execute(chat, f"alter table chat_messages {how} notify_webhook")
    enabled = {trigger["name"]: trigger["enabled"] for trigger in (await diagnose(chat))["triggers"]}
    assert [name for name, is_enabled in enabled.items() if not is_enabled] == ["notify_webhook"]


async def test_diagnosis_finds_a_webhook_of_the_dashboard(chat: Chat) -> None:
    await execute(
        chat,
        "create schema supabase_functions",
        "create function supabase_functions.http_request() returns trigger language plpgsql as"
        " $$ begin return null; end $$",
        "create trigger my_hook after insert on chat_messages for each row execute function"
        f" supabase_functions.http_request('{URL}', 'POST',"
        f""" '{{"Content-type":"application/json", "X-Webhook-Secret": "{SECRET}"}}', '{{}}', '5000')""",
    )
    [hook] = [trigger for trigger in (await diagnose(chat))["triggers"] if trigger["name"] == "my_hook"]
    assert (hook["calls"], hook["url"]) == ("supabase_functions.http_request", URL)
    assert hook["secret_sha256"] == sha256(SECRET.encode()).hexdigest()


async def test_diagnosis_counts_webhook_answers_of_the_last_hour_by_status(chat: Chat) -> None:
    await execute(
        chat,
        "insert into net._http_response (id, status_code, timed_out, created) values (1, 202, false, now()),"
        " (2, 202, false, now()), (3, 401, false, now()), (4, null, true, now()), (5, null, false, now()),"
        " (6, 500, false, now() - interval '61 minutes')",
    )
    assert (await diagnose(chat))["answers"] == {"202": 2, "401": 1, "timeout": 1, "no answer": 1}


async def test_diagnosis_has_no_webhook_answers_without_pg_net(database: Database) -> None:
    connection = await database.connect(SUPERUSER)
    await connection.execute("drop schema net cascade")
    assert await value(connection, "select public.diagnose_push() -> 'answers'") is None


async def test_diagnosis_shows_row_level_security_of_each_table(chat: Chat) -> None:
    await execute(chat, "alter table user_devices disable row level security")
    assert (await diagnose(chat))["row_level_security"] == {
        **dict.fromkeys(("users", "chat_rooms", "chat_messages", "message_receipts", "user_presence"), True),
        "user_devices": False,
    }


async def test_diagnosis_finds_no_open_right_after_the_migrations(chat: Chat) -> None:
    assert (await diagnose(chat))["open_rights"] == []


@pytest.mark.parametrize("name", WORKER_FUNCTIONS)
async def test_diagnosis_finds_a_worker_function_that_an_app_may_call(chat: Chat, name: str) -> None:
    query = "select 'execute on function public.' || oid::regprocedure from pg_proc where proname = %s"
    right = await value(chat.connection, query, name)
    await execute(chat, f"grant {right} to anon")
    assert (await diagnose(chat))["open_rights"] == [{"right": right, "role": "anon"}]


async def test_diagnosis_finds_an_open_schema_push(chat: Chat) -> None:
    await execute(chat, "grant usage on schema push to authenticated")
    assert (await diagnose(chat))["open_rights"] == [{"right": "usage on schema push", "role": "authenticated"}]


async def test_diagnosis_counts_waiting_jobs_and_the_age_of_the_oldest(chat: Chat) -> None:
    assert (await diagnose(chat))["jobs"] == {"waiting": 0, "oldest_due_seconds": None, "leases_expired": 0}
    await execute(chat, "update push.settings set lease_for = '1 hour'")
    await chat.device()
    await claim_one(chat.connection, await chat.message())
    await chat.pass_time(4000)
    await chat.separate_message()
    jobs = (await diagnose(chat))["jobs"]
    assert (jobs["waiting"], jobs["leases_expired"]) == (2, 1)
    assert 400 <= jobs["oldest_due_seconds"] < 4000  # since the end of the lease


async def test_a_job_that_waits_until_what_a_phone_shows_expires_is_not_waiting_work(chat: Chat) -> None:
    await chat.device()
    claimed, job = await claim_one(chat.connection, await chat.message())
    await record(chat.connection, claimed, worker_report(job))
    assert (await diagnose(chat))["jobs"]["waiting"] == 0
    await chat.pass_time(24 * 3600 + 100)
    jobs = (await diagnose(chat))["jobs"]
    assert (jobs["waiting"], int(jobs["oldest_due_seconds"])) == (1, 100), "the dismissal is due"


async def test_diagnosis_counts_waiting_receipts(chat: Chat) -> None:
    await chat.device()
    claimed, job = await claim_one(chat.connection, await chat.message())
    await record(chat.connection, claimed, worker_report(job))
    receipts = (await diagnose(chat))["receipts"]
    assert receipts["waiting"] == 1
    assert receipts["oldest_due_seconds"] < 0
    await chat.pass_time(3600)
    assert (await diagnose(chat))["receipts"]["oldest_due_seconds"] > 2600


async def test_diagnosis_lists_runs_that_the_breaker_holds(chat: Chat) -> None:
    run: UUID = uuid4()
    await execute(
        chat,
        f"insert into push.receipt_runs (id, state) values ('{run}', 'held'), (gen_random_uuid(), 'finished')",
        "insert into push.dead_tokens (run_id, device_id, push_token, sent_at)"
        f" select '{run}', gen_random_uuid(), 'token', now() from generate_series(1, 3)",
    )
    [held] = (await diagnose(chat))["held_deactivations"]
    assert (held["id"], held["devices"]) == (str(run), 3)


async def test_diagnosis_counts_devices_by_the_form_of_their_tokens(chat: Chat) -> None:
    await execute(chat, "alter table user_devices drop constraint expo_push_token_format")
    good = ("ExponentPushToken[a]", "ExpoPushToken[b]", str(uuid4()))
    bad = ("a" * 64, "ExponentPushToken[]", "ExponentPushToken[c]\n", "exponentPushToken[d]")
    for token in (*good, *bad):
        await chat.device(push_token=token)
    await chat.device(push_token="e" * 64, push_provider="fcm")
    await chat.device(platform="web")
    await chat.device(push_token=None)
    await chat.device(push_token="f" * 64, is_active=False)
    diagnosis = await diagnose(chat)
    assert diagnosis["devices"] == {
        "active": 10,
        "malformed": 4,
        "provider_not_configured": 1,
        "web": 1,
    }
    assert "PushToken" not in json.dumps(diagnosis)


async def test_diagnosis_counts_the_messages_that_each_choice_of_their_recipients_stopped(chat: Chat) -> None:
    assert (await diagnose(chat))["stopped_by_choice"] == {}
    await mute(chat)
    for _ in range(2):
        await chat.message()
    other = await chat.conversation()
    await block(other)
    await other.message()
    await claim(chat.connection)
    assert (await diagnose(chat))["stopped_by_choice"] == {"muted": 2, "blocked": 1}
    await chat.pass_time(25 * 3600)
    assert (await diagnose(chat))["stopped_by_choice"] == {}


async def test_diagnosis_counts_the_open_reports_and_the_age_of_the_oldest(chat: Chat) -> None:
    assert (await diagnose(chat))["reports"] == {"open": 0, "oldest_seconds": None}
    for _ in range(2):
        await report(chat, await chat.message())
    await resolve(chat, await report(chat, await chat.message()), "dismissed")
    await chat.connection.execute("update private.reports set created_at = created_at - interval '1 day'")
    found = (await diagnose(chat))["reports"]
    assert (found["open"], round(found["oldest_seconds"] / 3600)) == (2, 24)


async def test_diagnosis_counts_the_pushes_that_a_choice_of_their_recipients_silenced(chat: Chat) -> None:
    await chat.device()
    await choose(chat, quiet_hours=ALWAYS)
    await chat.message()
    await sent(chat)
    other = await chat.conversation()
    await choose(chat, quiet_hours=None)
    async with as_user(chat.connection, chat.guide):
        await chat.connection.execute("select public.set_conversation_sound(%s, 'none')", (other.room,))
    await other.message()
    await sent(chat)
    await chat.connection.execute("update push.settings set message_requests = 'all'")
    await chat.separate_message()
    await sent(chat)
    found = await diagnose(chat)
    assert found["silenced_by_choice"] == {"quiet_hours": 1, "no_sound": 1, "request": 1}
    assert found["stopped_by_choice"] == {}
    await chat.pass_time(25 * 3600)
    assert (await diagnose(chat))["silenced_by_choice"] == {}
