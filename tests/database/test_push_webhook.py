"""push.configure_webhook and the trigger that rings it, with the stand-in of pg_net that the local cloud has."""

import json
from datetime import UTC, datetime

import psycopg
import pytest

from local.postgres import SUPERUSER
from tests.database.chat import Chat, Database, Row, as_user, rows, start_chat, value

URL = "https://example.com/api/push/chat-message"
SECRET = "a secret of at least 24 characters"


async def configure(chat: Chat, url: str | None = URL, secret: str | None = SECRET) -> None:
    await chat.connection.execute("select push.configure_webhook(%s, %s)", (url, secret))


async def requests(chat: Chat) -> list[Row]:
    return await rows(chat.connection, "select * from net.http_request_queue order by id")


@pytest.fixture
async def vault(chat: Chat) -> None:
    """As much of Supabase Vault as is called, without its encryption."""
    await chat.connection.execute("""
        create schema vault;
        create table vault.secrets (
          id uuid primary key default gen_random_uuid(), name text unique, secret text not null
        );
        create view vault.decrypted_secrets as select id, name, secret as decrypted_secret from vault.secrets;
        create function vault.create_secret(new_secret text, new_name text default null,
          new_description text default '', new_key_id uuid default null) returns uuid
        language sql as $$ insert into vault.secrets (name, secret) values (new_name, new_secret) returning id $$;
        create function vault.update_secret(secret_id uuid, new_secret text default null,
          new_name text default null, new_description text default null, new_key_id uuid default null) returns void
        language sql as $$ update vault.secrets set secret = coalesce(new_secret, secret) where id = secret_id $$;
    """)


async def test_nothing_rings_before_it_is_configured(chat: Chat) -> None:
    await chat.message()
    assert await requests(chat) == []


async def test_payload_is_a_database_webhooks_with_ids_only(chat: Chat) -> None:
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


async def test_message_of_a_signed_in_person_rings(chat: Chat) -> None:
    await configure(chat)
    async with as_user(chat.connection, chat.tourist):
        await chat.message()
    assert len(await requests(chat)) == 1


async def test_each_message_of_a_bulk_insert_rings_once(chat: Chat) -> None:
    await configure(chat)
    await chat.connection.execute(
        "insert into chat_messages (room_id, sender_id, message) select %s, %s, 'Hi' from generate_series(1, 50)",
        (chat.room, chat.tourist),
    )
    rung = {json.loads(request["body"])["record"]["id"] for request in await requests(chat)}
    assert len(rung) == 50


@pytest.mark.parametrize("columns", [{"is_read": True}, {"deleted_at": datetime.now(UTC)}], ids=["read", "deleted"])
async def test_import_of_old_messages_does_not_ring(chat: Chat, columns: Row) -> None:
    await configure(chat)
    await chat.message(**columns)
    assert await requests(chat) == []


async def test_rolled_back_message_does_not_ring(chat: Chat) -> None:
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


@pytest.mark.usefixtures("vault")
async def test_vault_keeps_target_and_secret_where_there_is_one(chat: Chat) -> None:
    await configure(chat, "https://example.com/first")
    await configure(chat)
    assert await rows(chat.connection, "table push.webhook") == []
    names = await rows(chat.connection, "select name from vault.secrets order by name")
    assert [secret["name"] for secret in names] == ["push_webhook_secret", "push_webhook_url"]
    await chat.message()
    [request] = await requests(chat)
    assert (request["url"], request["headers"]["x-webhook-secret"]) == (URL, SECRET)


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
async def test_bad_argument_is_named(chat: Chat, url: str | None, secret: str | None, argument: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=f"^{argument} must"):
        async with chat.connection.transaction():
            await configure(chat, url, secret)
    assert await value(chat.connection, "select count(*) from pg_trigger where tgname = 'ring_doorbell'") == 0


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/api", "http://localhost/api"])
async def test_local_cloud_may_do_without_tls(chat: Chat, url: str) -> None:
    await configure(chat, url)


# Breaking pg_net takes the superuser that it belongs to, and so a database of the test's own.


async def break_net(database: Database, statement: str) -> None:
    superuser = await database.connect(SUPERUSER)
    await superuser.execute(statement.encode())


async def test_missing_pg_net_is_named(database: Database) -> None:
    await break_net(database, "drop schema net cascade")
    chat = await start_chat(await database.connect())
    with pytest.raises(psycopg.errors.UndefinedObject, match="pg_net is missing"):
        await configure(chat)
    await chat.message()


@pytest.mark.parametrize(
    "fault",
    [
        "drop schema net cascade",
        "drop table net.http_request_queue",
        "revoke insert on net.http_request_queue from public, postgres",
        "alter table net.http_request_queue add check (false)",
    ],
)
async def test_broken_webhook_never_aborts_the_insert(database: Database, fault: str) -> None:
    chat = await start_chat(await database.connect())
    await configure(chat)
    await break_net(database, fault)
    warnings: list[str | None] = []
    chat.connection.add_notice_handler(lambda notice: warnings.append(notice.message_primary))
    async with as_user(chat.connection, chat.tourist):
        message = await chat.message()
    assert (await chat.job(message))["state"] == "pending"
    [warning] = warnings
    assert warning
    assert warning.startswith("Chat Push: the webhook did not ring: ")
    assert SECRET not in warning


async def test_lost_target_never_aborts_the_insert(chat: Chat) -> None:
    await configure(chat)
    await chat.connection.execute("delete from push.webhook")
    await chat.job(await chat.message())
    assert await requests(chat) == []
