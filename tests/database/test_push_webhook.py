"""push.configure_webhook and the trigger that calls it, with the stand-ins of pg_net and Vault of the local cloud."""

import json
from base64 import b64decode
from datetime import UTC, datetime
from uuid import UUID

import psycopg
import pytest

from local.supabase.postgres import SUPERUSER
from tests.database.chat import (
    LONG_AGO,
    Chat,
    Database,
    Row,
    as_user,
    claim,
    person,
    record,
    rows,
    start_chat,
    value,
    worker_report,
)

URL = "https://example.com/api/push/chat-message"
SECRET = "a secret of at least 24 characters"

# The database comes from a dump of another server, whose Vault has another key.
RESTORED = "set local vault.root_key = 'of another project'"


async def configure(chat: Chat, url: str | None = URL, secret: str | None = SECRET) -> None:
    await chat.connection.execute("select push.configure_webhook(%s, %s)", (url, secret))


async def requests(chat: Chat) -> list[Row]:
    return await rows(chat.connection, "select * from net.http_request_queue order by id")


async def test_the_webhook_is_not_called_before_it_is_configured(chat: Chat) -> None:
    await chat.message()
    assert await requests(chat) == []


async def test_the_payload_is_that_of_a_database_webhook_with_ids_only(chat: Chat) -> None:
    await configure(chat)
    message = await chat.message("A text that stays in the database")
    [request] = await requests(chat)
    assert (request["method"], request["url"], request["timeout_milliseconds"]) == ("POST", URL, 5000)
    assert request["headers"] == {"Content-Type": "application/json", "x-webhook-secret": SECRET}
    assert json.loads(request["body"]) == {
        "type": "INSERT",
        "table": "chat_messages",
        "schema": "public",
        "record": {"id": str(message), "room_id": str(chat.room)},
        "old_record": None,
    }


async def test_a_message_of_a_signed_in_person_calls_the_webhook(chat: Chat) -> None:
    await configure(chat)
    async with as_user(chat.connection, chat.tourist):
        await chat.message()
    assert len(await requests(chat)) == 1


async def test_a_handover_of_conversations_calls_no_webhook(chat: Chat) -> None:
    """There may be thousands of them. The next sweep takes them."""
    await chat.message()
    await configure(chat)
    successor = await person(chat.connection)
    await chat.connection.execute("update chat_rooms set user2_id = %s", (successor,))
    assert await rows(chat.connection, "select from push.jobs where recipient_id = %s", successor) != []
    assert await requests(chat) == []


async def test_a_bulk_insert_calls_the_webhook_once_for_each_conversation(chat: Chat) -> None:
    """A conversation has one job, which one id names."""
    await configure(chat)
    other = await chat.conversation()
    await chat.connection.execute(
        "insert into chat_messages (room_id, sender_id, message) select room, sender, 'Hi'"
        " from (values (%s::uuid, %s::uuid), (%s, %s)) conversation (room, sender), generate_series(1, 50)",
        (chat.room, chat.tourist, other.room, other.tourist),
    )
    notified = [json.loads(request["body"])["record"]["room_id"] for request in await requests(chat)]
    assert sorted(notified) == sorted([str(chat.room), str(other.room)])


async def send(chat: Chat) -> None:
    """Sends what is due, and Expo accepts it."""
    claimed = await claim(chat.connection)
    await record(chat.connection, claimed, *map(worker_report, claimed["jobs"]))


EDIT = "update public.chat_messages set message = 'edited'"
CHANGES = {
    "edit": EDIT,
    "read": "update public.chat_messages set is_read = true",
    "read by receipts": (
        "insert into public.message_receipts (message_id, user_id, read_at) select message.id, user2_id, now()"
        " from public.chat_messages message join public.chat_rooms room on room.id = room_id"
    ),
    "soft delete": "update public.chat_messages set deleted_at = now()",
    "hard delete": "delete from public.chat_messages",
    "deletion of the conversation": "delete from public.chat_rooms",
}


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_of_messages_that_a_phone_shows_calls_the_webhook_once_for_each_conversation(
    chat: Chat, change: str
) -> None:
    await chat.device()
    other = await chat.conversation()
    messages = [await one.message() for one in (chat, other) for _ in range(3)]
    await send(chat)
    await configure(chat)
    await chat.connection.execute(CHANGES[change].encode())
    payloads = [json.loads(request["body"]) for request in await requests(chat)]
    assert sorted(payload["record"]["room_id"] for payload in payloads) == sorted([str(chat.room), str(other.room)])
    assert {payload["type"] for payload in payloads} == {"UPDATE"}
    assert {payload["record"]["id"] for payload in payloads} <= set(map(str, messages))
    # The webhook names a message by which the job is found, even if the message was deleted.
    await chat.pass_time(3)
    claimed = await claim(chat.connection, *(UUID(payload["record"]["id"]) for payload in payloads))
    assert len(claimed["jobs"]) == 2


async def test_a_change_of_a_conversation_whose_job_is_due_already_does_not_call_the_webhook(chat: Chat) -> None:
    await chat.device()
    messages = [await chat.message() for _ in range(3)]
    await send(chat)
    await configure(chat)
    await chat.connection.execute(EDIT.encode())
    await chat.read()
    await chat.connection.execute("delete from public.chat_messages where id = %s", (messages[0],))
    assert len(await requests(chat)) == 1


async def test_a_read_of_a_message_that_only_a_viewer_saw_does_not_call_the_webhook(chat: Chat) -> None:
    await chat.device()
    await chat.look(chat.room)
    await chat.message()
    assert (await claim(chat.connection))["deferred"]
    await configure(chat)
    await chat.read()
    assert await requests(chat) == []


async def test_a_read_on_the_only_phone_does_not_call_the_webhook(chat: Chat) -> None:
    phone = await chat.device()
    await chat.message()
    await send(chat)
    await configure(chat)
    read = "select public.mark_messages_read(%s, %s, p_device_id => %s)"
    async with as_user(chat.connection, chat.guide):
        await value(chat.connection, read, chat.guide, chat.room, phone["device_id"])
    assert await requests(chat) == []
    await chat.pass_time(3)
    assert (await claim(chat.connection))["jobs"] == []
    assert await rows(chat.connection, "select from push.jobs where state <> 'idle'") == [], "a sweep settles the job"


async def test_a_read_on_one_of_two_phones_calls_the_webhook(chat: Chat) -> None:
    phone, _ = await chat.device(), await chat.device()
    await chat.message()
    await send(chat)
    await configure(chat)
    read = "select public.mark_messages_read(%s, %s, p_device_id => %s)"
    async with as_user(chat.connection, chat.guide):
        await value(chat.connection, read, chat.guide, chat.room, phone["device_id"])
    assert len(await requests(chat)) == 1


async def test_a_change_that_no_phone_shows_does_not_call_the_webhook(chat: Chat) -> None:
    await chat.message()
    await claim(chat.connection)
    await configure(chat)
    await chat.read()
    await chat.connection.execute("delete from public.chat_messages")
    assert await requests(chat) == []


@pytest.mark.parametrize(
    "columns",
    [{"is_read": True}, {"deleted_at": datetime.now(UTC)}, {"created_at": LONG_AGO}],
    ids=["read", "deleted", "created long ago"],
)
async def test_an_import_of_messages_that_are_not_pushed_does_not_call_the_webhook(chat: Chat, columns: Row) -> None:
    await configure(chat)
    await chat.message(**columns)
    assert await requests(chat) == []


async def test_a_rolled_back_message_does_not_call_the_webhook(chat: Chat) -> None:
    await configure(chat)
    async with chat.connection.transaction(force_rollback=True):
        await chat.message()
    assert await requests(chat) == []


async def test_configuring_again_changes_target_and_secret(chat: Chat) -> None:
    await configure(chat)
    await configure(chat, "https://example.com/other", SECRET * 2)
    await chat.message()
    [request] = await requests(chat)
    assert (request["url"], request["headers"]["x-webhook-secret"]) == (
        "https://example.com/other",
        SECRET * 2,
    )


async def test_vault_keeps_target_and_secret_and_they_are_not_readable_in_its_table(chat: Chat) -> None:
    await configure(chat, "https://example.com/first")
    await configure(chat)
    kept = await rows(chat.connection, "select name, secret from vault.secrets order by name")
    assert [secret["name"] for secret in kept] == ["push_webhook_secret", "push_webhook_url"]
    for secret in kept:
        assert SECRET.encode() not in b64decode(secret["secret"])
        assert URL.encode() not in b64decode(secret["secret"])


async def test_after_a_restore_messages_are_stored_and_configuring_again_repairs_the_webhook(chat: Chat) -> None:
    await configure(chat)
    await chat.connection.execute(RESTORED)
    warnings: list[str | None] = []
    chat.connection.add_notice_handler(lambda notice: warnings.append(notice.message_primary))
    async with as_user(chat.connection, chat.tourist):
        message = await chat.message()
    assert (await chat.job(message))["state"] == "pending"
    assert await requests(chat) == []
    [warning] = warnings
    assert warning
    assert warning.endswith("invalid ciphertext")

    await configure(chat)
    await chat.message()
    [request] = await requests(chat)
    assert (request["url"], request["headers"]["x-webhook-secret"]) == (URL, SECRET)


async def test_secrets_of_others_that_vault_cannot_decrypt_do_not_stop_the_webhook(chat: Chat) -> None:
    await chat.connection.execute("select vault.create_secret('of the app', 'of the app')")
    await chat.connection.execute(RESTORED)
    await configure(chat)
    await chat.message()
    assert len(await requests(chat)) == 1


@pytest.mark.parametrize(
    ("url", "secret", "argument"),
    [
        (None, SECRET, "url"),
        ("", SECRET, "url"),
        ("http://example.com/api", SECRET, "url"),
        ("http://localhost.example.com", SECRET, "url"),
        ("example.com", SECRET, "url"),
        (URL, None, "secret"),
        (URL, "too short", "secret"),
    ],
)
async def test_configure_webhook_names_a_wrong_argument(
    chat: Chat, url: str | None, secret: str | None, argument: str
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=f"^{argument} must"):
        async with chat.connection.transaction():
            await configure(chat, url, secret)
    assert await value(chat.connection, "select count(*) from pg_trigger where tgname = 'notify_webhook'") == 0


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/api", "http://localhost/api"])
async def test_configure_webhook_accepts_a_url_without_tls_on_this_machine(chat: Chat, url: str) -> None:
    await configure(chat, url)


# Breaking an extension takes the superuser that it belongs to, and so a database of the test's own.


async def break_extension(database: Database, statement: str) -> None:
    superuser = await database.connect(SUPERUSER)
    await superuser.execute(statement.encode())


@pytest.mark.parametrize(("schema", "extension"), [("net", "pg_net"), ("vault", "supabase_vault")])
async def test_configure_webhook_names_a_missing_extension(database: Database, schema: str, extension: str) -> None:
    await break_extension(database, f"drop schema {schema} cascade")
    chat = await start_chat(await database.connect())
    with pytest.raises(psycopg.errors.UndefinedObject, match=f"{extension} is missing"):
        await configure(chat)
    await chat.message()


@pytest.mark.parametrize(
    "fault",
    [
        "drop schema net cascade",
        "drop schema vault cascade",
        "drop table net.http_request_queue",
        "revoke insert on net.http_request_queue from public, postgres",
        "alter table net.http_request_queue add check (false)",
    ],
)
async def test_a_failing_webhook_never_aborts_the_insert_of_a_message(database: Database, fault: str) -> None:
    chat = await start_chat(await database.connect())
    await configure(chat)
    await break_extension(database, fault)
    warnings: list[str | None] = []
    chat.connection.add_notice_handler(lambda notice: warnings.append(notice.message_primary))
    async with as_user(chat.connection, chat.tourist):
        message = await chat.message()
    assert (await chat.job(message))["state"] == "pending"
    [warning] = warnings
    assert warning
    assert warning.startswith("Chat Push: the webhook was not called: ")
    assert SECRET not in warning


async def test_a_missing_target_never_aborts_the_insert_of_a_message(chat: Chat) -> None:
    await configure(chat)
    await chat.connection.execute("delete from vault.secrets")
    await chat.job(await chat.message())
    assert await requests(chat) == []
