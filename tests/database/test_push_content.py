"""Title, body, image and badge of a push."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from psycopg.types.json import Json

from tests.database.chat import Chat, claim, claim_one, decision, explain, insert, person, refused, rows, value


async def test_a_claim_returns_all_fields_of_a_push(chat: Chat) -> None:
    await allow_images(chat, "https://example.com/")
    device = await chat.device()
    photo = {"type": "image", "url": "https://example.com/photo.jpg"}
    message = await insert(
        chat.connection,
        "public.chat_messages",
        room_id=chat.room,
        sender_id=chat.tourist,
        message="Hey, are you available tomorrow?",
        attachments=f"[{photo}]".replace("'", '"'),
    )
    claimed, job = await claim_one(chat.connection, message["id"])
    assert datetime.fromisoformat(job.pop("sent_at")) == message["server_timestamp"]
    assert datetime.fromisoformat(job.pop("expires_at")) == message["created_at"] + timedelta(hours=24)
    [delivery_id] = [device.pop("delivery_id") for device in job["devices"]]
    assert datetime.fromisoformat(job["devices"][0].pop("registered_at")) == device["last_seen_at"]
    assert await value(chat.connection, "select id from push.deliveries") == delivery_id
    assert job.pop("job_id") == (await chat.job(message["id"]))["id"]
    assert job == {
        "message_id": str(message["id"]),
        "room_id": str(chat.room),
        "sender_id": str(chat.tourist),
        "recipient_id": str(chat.guide),
        "sound_name": None,
        "title": "Tom Tourist",
        "body": "Hey, are you available tomorrow?",
        "fixed_lines": [],
        "image_url": "https://example.com/photo.jpg",
        "unread": 1,
        "badge": 1,
        "attempt": 1,
        "devices": [
            {
                "device_id": str(device["id"]),
                "push_token": device["push_token"],
                "platform": "ios",
                "provider": "expo",
                "environment": "production",
                "kind": "alert",
                "sound": True,
                "preview": "full",
                "language": "",
            }
        ],
    }
    assert {**claimed, "jobs": [], "lease_id": None, "claimed_at": None, "slot": None} == {
        "lease_id": None,
        "claimed_at": None,
        "jobs": [],
        "languages": {},
        "slot": None,
        "finished": [],
        "deferred": [],
        "left_due": [],
        "not_due": [],
        "unknown": [],
        "expired_leases": [],
        "examined": 1,
        "more_due": False,
        "later": False,
    }


async def test_the_badge_counts_unread_messages_of_all_conversations(chat: Chat) -> None:
    await chat.device()
    other = await person(chat.connection)
    # The guide is user1 here and user2 in the first conversation.
    room = await insert(chat.connection, "public.chat_rooms", user1_id=chat.guide, user2_id=other)
    await chat.message()
    await chat.message(room_id=room["id"], sender_id=other)
    await chat.message(room_id=room["id"], sender_id=chat.guide)
    _, job = await claim_one(chat.connection, await chat.message())
    assert job["badge"] == 3


@pytest.mark.parametrize(
    ("text", "message_type", "attachments", "body"),
    [
        ("  Hello\n\nthere ", "text", "[]", "Hello there"),
        ("\u202eevil\u202c ok", "text", "[]", "evil ok"),
        ("\u200b\u200b\u200b", "image", "[]", "📷 Photo"),
        ("\u200b\u200b\u200b", "text", "[]", "New message"),
        ("Look!", "image", '[{"type": "image"}]', "Look!"),
        ("", "text", '[{"type": "image", "url": "https://example.com/1"}]', "📷 Photo"),
        (" ", "image", "[]", "📷 Photo"),
        ("", "text", '[{"type": "video"}]', "🎥 Video"),
        ("", "audio", "[]", "🎤 Voice message"),
        ("", "location", "[]", "📍 Location"),
        ("", "text", '[{"type": "file"}]', "📎 File"),
        ("", "text", "[]", "New message"),
        ("", "sticker", "[{}]", "New message"),
    ],
)
async def test_the_body_is_the_text_or_the_kind_of_the_attachment(
    chat: Chat, text: str, message_type: str, attachments: str, body: str
) -> None:
    await chat.device()
    message = await chat.message(text, message_type=message_type, attachments=attachments)
    assert (await claim_one(chat.connection, message))[1]["body"] == body


async def allow_images(chat: Chat, *prefixes: str) -> None:
    await chat.connection.execute("update push.settings set image_url_prefixes = %s", (list(prefixes),))


@pytest.mark.parametrize(
    ("attachments", "image"),
    [
        ("[]", None),
        ('[{"type": "image", "url": "http://example.com/plain"}]', None),
        ('[{"type": "image"}, "odd", {"type": "file", "url": "https://example.com/file"}]', None),
        ('[{"type": "file"}, {"type": "photo", "url": "https://a.example/1"}, {"type": "image", "url": "https://example.com/2"}]',
         "https://a.example/1"),
    ],
)  # fmt: skip
async def test_the_image_is_the_first_one_that_expo_can_download(
    chat: Chat, attachments: str, image: str | None
) -> None:
    await allow_images(chat, "https://a.example/", "https://example.com/")
    await chat.connection.execute("update private.chat_settings set attachment_types = null")
    await chat.device()
    message = await chat.message(attachments=attachments)
    assert (await claim_one(chat.connection, message))[1]["image_url"] == image


async def image_of(chat: Chat, attachments: Any, project_url: str | None = None) -> Any:
    query = "select push.message_image(json_populate_record(null::chat_messages, %s), %s)"
    return await value(chat.connection, query, Json({"attachments": attachments}), project_url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://project.supabase.co/storage/v1/object/public/a.jpg", True),
        ("https://other.supabase.co/storage/v1/object/public/a.jpg", False),
        ("https://project.supabase.co.evil.example/storage/v1/object/public/a.jpg", False),
        ("https://project.supabase.co/rest/v1/", False),
    ],
)
async def test_images_in_the_storage_of_the_project_are_shown_without_a_setting(
    chat: Chat, url: str, shown: bool
) -> None:
    photo = [{"type": "image", "url": url}]
    assert await image_of(chat, photo, "https://project.supabase.co") == (url if shown else None)
    assert await image_of(chat, photo) is None


async def test_a_setting_allows_images_of_another_host(chat: Chat) -> None:
    photo = [{"type": "image", "url": "https://images.example/a.jpg"}]
    assert await image_of(chat, photo, "https://project.supabase.co") is None
    await allow_images(chat, "https://images.example/")
    assert await image_of(chat, photo, "https://project.supabase.co") == photo[0]["url"]


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/https://project.example/a.jpg",
        "https://project.example.evil.example/a.jpg",
        "https://project.example@evil.example/a.jpg",
        "https://project.example:443@evil.example/a.jpg",
        "https://project.example\\@evil.example/a.jpg",
        "https://project.example",
        "http://project.example/a.jpg",
        "//project.example/a.jpg",
        " https://project.example/a.jpg",
        "https://project.example/a\r\nb.jpg",
        "https://project.example/a\x7f.jpg",
        "https://project.example/\u202egpj.a",
        "https://project.example/a b.jpg",
        "https://project.example/storage/../auth/v1/authorize?redirect_to=https://evil.example",
        "https://project.example/%2E%2e/a.jpg",
        "https://project.example/..\\..\\a.jpg",
        "https://project.example/a%5cb.jpg",
        "https://project.example/" + "x" * 2048,
        "",
        None,
        7,
        ["https://project.example/a.jpg", "b"],
        {"https://project.example/": 1},
    ],
)
async def test_an_image_of_another_host_or_with_unusual_characters_is_not_shown(chat: Chat, url: Any) -> None:
    await allow_images(chat, "https://project.example/")
    photo = {"type": "image", "url": "https://project.example/a.jpg"}
    assert await image_of(chat, [{"type": "image", "url": url}]) is None
    assert await image_of(chat, [{"type": "image", "url": url}, photo]) == photo["url"]


@pytest.mark.parametrize("odd", [None, 1, "image", True, {}, [], [[]], [None], [[[{"type": "image"}]]], {"type": [1]}])
async def test_attachments_of_any_form_have_an_image_or_none(chat: Chat, odd: Any) -> None:
    await allow_images(chat, "https://project.example/")
    photo = {"type": "image", "url": "https://project.example/a.jpg"}
    assert await image_of(chat, odd) is None
    assert await image_of(chat, [odd, photo]) == photo["url"]


@pytest.mark.parametrize(
    "prefix",
    [
        "https://a.example",
        "http://a.example/",
        "a.example/",
        "https://",
        "https:///",
        "https://a@b/",
        "https://a.example/ x",
        "",
    ],
)
async def test_an_image_prefix_that_does_not_end_the_host_is_rejected(chat: Chat, prefix: str) -> None:
    for prefixes in ([prefix], ["https://fine.example/", prefix], [prefix, "https://fine.example/"]):
        async with refused(chat.connection, "23514"):
            await allow_images(chat, *prefixes)


async def test_an_app_may_replace_title_and_body(chat: Chat) -> None:
    await chat.device()
    await chat.connection.execute("""
        create or replace function push.display_name(p_user_id uuid) returns text
        language sql stable set search_path = '' as $$ select 'User ' || left(p_user_id::text, 8) $$;
        create or replace function push.message_preview(p_message public.chat_messages) returns text
        language sql immutable set search_path = '' as $$ select 'You have a new message' $$;
    """)
    _, job = await claim_one(chat.connection, await chat.message())
    assert (job["title"], job["body"]) == (f"User {str(chat.tourist)[:8]}", "You have a new message")


async def test_a_sender_without_a_name_has_no_title(chat: Chat) -> None:
    await chat.device()
    await chat.connection.execute("update public.users set display_name = E'\\n\\t'")
    assert (await claim_one(chat.connection, await chat.message()))[1]["title"] is None


@pytest.mark.parametrize("name", ["", "\u200b\ufeff", " \u3164\n\u2800 "], ids=ascii)
async def test_a_name_without_a_visible_character_is_no_title(chat: Chat, name: str) -> None:
    await chat.connection.execute("update public.users set display_name = %s", (name,))
    assert await value(chat.connection, "select push.display_name(%s)", chat.tourist) is None


@pytest.mark.parametrize("name", ["Ana", "안나", "あんな", "🙂", "❤\ufe0f", "⠁"], ids=ascii)
async def test_a_name_with_a_visible_character_is_the_title(chat: Chat, name: str) -> None:
    await chat.connection.execute("update public.users set display_name = %s", (f" {name} ",))
    assert await value(chat.connection, "select push.display_name(%s)", chat.tourist) == name


async def test_what_the_functions_of_an_app_return_is_cleaned(chat: Chat) -> None:
    await chat.device()
    await chat.connection.execute("""
        create or replace function push.display_name(p_user_id uuid) returns text
        language sql stable set search_path = '' as $$ select E'\\u202eAna\\n' $$;
        create or replace function push.message_preview(p_message public.chat_messages) returns text
        language sql immutable set search_path = '' as $$ select E'Two\\n\\nlines\\u200b' $$;
    """)
    _, job = await claim_one(chat.connection, await chat.message())
    assert (job["title"], job["body"]) == ("Ana", "Two lines")


@pytest.mark.parametrize("returned", ["null", "''", "E'\\u200b'"])
async def test_a_push_has_a_neutral_text_if_the_functions_of_an_app_return_nothing_visible(
    chat: Chat, returned: str
) -> None:
    await chat.device()
    await chat.connection.execute(f"""
        create or replace function push.display_name(p_user_id uuid) returns text
        language sql stable set search_path = '' as $$ select {returned} $$;
        create or replace function push.message_preview(p_message public.chat_messages) returns text
        language sql immutable set search_path = '' as $$ select {returned} $$;
    """)
    _, job = await claim_one(chat.connection, await chat.message("secret", message_type="image"))
    assert (job["title"], job["body"]) == (None, "New message")


# Isolation ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "attachments", ["{}", "5", '"text"', "null", "[[]]", "[null]", '[{"type": []}]', '[{"url": 5}]']
)
async def test_a_message_with_attachments_of_any_form_is_sent(chat: Chat, attachments: str) -> None:
    """An older database may have attachments of any form."""
    await chat.device()
    odd, good = await chat.separate_message(), await chat.separate_message()
    await chat.connection.execute("alter table public.chat_messages disable trigger user")
    constraints = await rows(
        chat.connection,
        "select conname from pg_constraint where conrelid = 'public.chat_messages'::regclass and contype = 'c'",
    )
    for constraint in constraints:
        await chat.connection.execute(f'alter table public.chat_messages drop constraint "{constraint["conname"]}"')
    await chat.connection.execute("update chat_messages set attachments = %s where id = %s", (attachments, odd))
    assert [job["message_id"] for job in (await claim(chat.connection))["jobs"]] == [str(odd), str(good)]


@pytest.mark.parametrize(
    "function", ["message_preview(p_message public.chat_messages)", "display_name(p_user_id uuid)"]
)
async def test_a_message_that_cannot_be_composed_fails_alone(chat: Chat, function: str) -> None:
    """A function of the app fails for one message."""
    await chat.device()
    poison = await chat.message("poison")
    other = await person(chat.connection)
    room = await insert(chat.connection, "public.chat_rooms", user1_id=chat.guide, user2_id=other)
    good = await chat.message(room_id=room["id"], sender_id=other)
    condition = "p_message.message = 'poison'" if "preview" in function else f"p_user_id = '{chat.tourist}'"
    await chat.connection.execute(f"""
        create or replace function push.{function} returns text language sql volatile set search_path = ''
        as $$ select case when {condition} then (1 / (random() * 0)::integer)::text else 'Fine' end $$;
    """)
    claimed = await claim(chat.connection)
    assert [job["message_id"] for job in claimed["jobs"]] == [str(good)]
    assert claimed["finished"] == [{"message_id": str(poison), "outcome": "failed", "reason": "unreadable"}]
    assert "cannot be composed" in (await explain(chat.connection, poison))["explanation"]


@pytest.mark.parametrize("sqlstate", ["40001", "40P01", "53200", "55P03"])
async def test_a_passing_error_of_the_database_ends_no_message_and_stops_no_other(chat: Chat, sqlstate: str) -> None:
    await chat.device()
    poison, good = await chat.separate_message("poison"), await chat.separate_message("good")
    await chat.connection.execute(f"""
        create or replace function push.message_preview(p_message public.chat_messages) returns text
        language plpgsql set search_path = '' as $$ begin
          if p_message.message = 'poison' then raise sqlstate '{sqlstate}'; end if;
          return p_message.message;
        end $$;
    """)
    claimed = await claim(chat.connection)
    assert [job["message_id"] for job in claimed["jobs"]] == [str(good)]
    assert (claimed["finished"], claimed["later"]) == ([], True)
    assert "passing error" in (await explain(chat.connection, poison))["explanation"]
    await chat.connection.execute("""
        create or replace function push.message_preview(p_message public.chat_messages) returns text
        language sql stable set search_path = '' as $$ select p_message.message $$;
    """)
    await chat.pass_time(2)
    assert [job["message_id"] for job in (await claim(chat.connection))["jobs"]] == [str(poison)]


async def test_a_claim_that_composes_slowly_returns_what_is_composed_and_leaves_the_rest_due(chat: Chat) -> None:
    """A function of the app is slow. An answer after the timeout of the worker would be lost."""
    await chat.device()
    messages = [str(await chat.separate_message()) for _ in range(4)]
    await chat.connection.execute("""
        create or replace function push.message_preview(p_message public.chat_messages) returns text
        language sql volatile set search_path = '' as $$ select 'Slow' || pg_sleep(1.1) $$;
    """)
    claimed = await claim(chat.connection)
    sent = [job["message_id"] for job in claimed["jobs"]]
    assert 1 <= len(sent) <= 2
    assert claimed["more_due"]
    assert set(sent) < set(messages)
    assert len((await claim(chat.connection))["jobs"]) >= 1


@pytest.mark.parametrize("stored", ["{}", "5", "[" + ",".join(f'"{number:032}"' for number in range(20_000)) + "]"])
async def test_a_preview_function_of_the_app_gets_a_bounded_list_of_attachments(chat: Chat, stored: str) -> None:
    await chat.device()
    message = await chat.message()
    await chat.connection.execute("alter table public.chat_messages disable trigger user")
    await chat.connection.execute("alter table public.chat_messages drop constraint chat_messages_attachments_check")
    await chat.connection.execute("update chat_messages set attachments = %s", (stored,))
    await chat.connection.execute("""
        create or replace function push.message_preview(p_message public.chat_messages) returns text
        language sql stable set search_path = '' as $$ select jsonb_array_length(p_message.attachments)::text $$;
    """)
    assert (await claim_one(chat.connection, message))[1]["body"] == "0"


async def test_a_failed_assertion_in_a_function_of_the_app_fails_one_message_only(chat: Chat) -> None:
    await chat.device()
    message = await chat.message()
    await chat.connection.execute("""
        create or replace function push.message_preview(p_message public.chat_messages) returns text
        language plpgsql set search_path = '' as $$ begin assert false; return ''; end $$;
    """)
    assert decision(await claim(chat.connection, message)) == "failed: unreadable"


async def test_the_answer_of_a_claim_is_bounded_for_messages_of_any_size(chat: Chat) -> None:
    await chat.device()
    message = await chat.message()
    await chat.connection.execute("alter table public.chat_messages disable trigger user")
    await chat.connection.execute("alter table public.users disable trigger user")
    await chat.connection.execute("update public.users set display_name = repeat('long ', 1000000)")
    await chat.connection.execute("update chat_messages set message = repeat('long ', 1000000)")
    _, job = await claim_one(chat.connection, message)
    assert len(str(job)) < 5000
