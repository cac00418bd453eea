"""The language of the fixed texts of pushes: which one a device gets, and from where each text is taken."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from chat_push.content import NAME_AND_COUNT, NEUTRAL_LINE, NEUTRAL_TITLE, NEUTRAL_TITLE_OF_SEVERAL, REQUEST_TITLE
from chat_push.models import Claim, Texts, Translation
from chat_push.notification import notifications
from chat_push.texts import translated

from local.packages import node
from tests.database.chat import Chat, Row, as_user, claim, refused, rows, value
from tests.database.test_notification_state import kinds, sent
from tests.database.test_quiet_hours import choose

MIGRATIONS = Path(__file__).parents[2] / "supabase" / "migrations"
KINDS = re.findall(r"then '([^ ]+ [A-Z][a-z ]+)'", (MIGRATIONS / "20261122090000_chat_tables.sql").read_text())
SOURCES = {NEUTRAL_TITLE, NEUTRAL_TITLE_OF_SEVERAL, REQUEST_TITLE, NEUTRAL_LINE, "Message deleted", *KINDS}
LANGUAGES = ["ar", "de", "es", "fr", "ja", "pt", "th", "zh"]


async def language_of(chat: Chat, locale: str | None, default: str = "en") -> str:
    found = await value(
        chat.connection,
        "select push.language_of(%s, %s, array(select language from push.languages))",
        locale,
        default,
    )
    assert isinstance(found, str)
    return found


async def texts_of(chat: Chat, language: str) -> Texts:
    found = await value(chat.connection, "select push.texts_of(array[%s])", language)
    return {source: Translation.model_validate(each) for source, each in found[language].items()}


async def shown(chat: Chat) -> list[tuple[str, str]]:
    """Title and body of each push of the next claim, as the worker writes them."""
    found = Claim.model_validate(await claim(chat.connection))
    payloads: list[Any] = [each.payload for each in notifications(found.jobs, found.claimed_at, found.languages)]
    return [(payload["title"], payload["body"]) for payload in payloads]


# What ships ------------------------------------------------------------------------------------


async def test_each_fixed_text_has_a_translation_in_each_language_that_ships(chat: Chat) -> None:
    assert len(SOURCES) == 10
    known = await rows(chat.connection, "select language from push.languages order by 1")
    assert [each["language"] for each in known] == LANGUAGES
    for language in LANGUAGES:
        texts = await texts_of(chat, language)
        assert texts.keys() >= SOURCES, language
        assert texts.keys() <= SOURCES | {NAME_AND_COUNT}, language


async def test_a_translation_has_the_placeholders_of_its_source(chat: Chat) -> None:
    for each in await rows(chat.connection, "table push.translations"):
        placeholders = [set(re.findall(r"{\w+}", each[text])) for text in ("source", "translation")]
        # A plural form for one number only may spell it.
        assert placeholders[0] == placeholders[1] or each["category"] in ("zero", "one", "two"), each


def icu_categories() -> dict[str, list[str]]:
    """The plural categories of the numbers from 0 to 99 in each language, by the ICU of Node."""
    script = (
        f"console.log(JSON.stringify(Object.fromEntries({json.dumps(LANGUAGES)}.map((language) => ["
        "language, [...Array(100).keys()].map((n) => new Intl.PluralRules(language).select(n))]))))"
    )
    done = subprocess.run([node(), "--eval", script], capture_output=True, text=True, check=True)
    categories: dict[str, list[str]] = json.loads(done.stdout)
    return categories


async def test_plural_categories_are_those_of_icu(chat: Chat) -> None:
    of_icu = icu_categories()
    for known in await rows(chat.connection, "table push.languages"):
        every = ("zero", "one", "two", "few", "many", "other")
        texts = {"x": Translation(forms={category: category for category in every}, plurals=known["plurals"])}
        found = [translated(texts, "x", number) for number in range(100)]
        assert found == of_icu[known["language"]], known["language"]


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (1, "رسالة جديدة"),
        (2, "رسالتان جديدتان"),
        (3, "3 رسائل جديدة"),
        (11, "11 رسالة جديدة"),
        (100, "99+ رسالة جديدة"),
    ],
)
async def test_a_title_without_a_name_has_the_plural_form_of_its_number(chat: Chat, number: int, expected: str) -> None:
    await chat.device(locale="ar-EG")
    await choose(chat, preview="none")
    for _ in range(number):
        await chat.message()
    # The database counts up to 100.
    assert [title for title, _ in await shown(chat)] == [expected]


# Which language --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("locale", "default", "expected"),
    [
        ("de", "en", "de"),
        ("de-CH", "en", "de"),
        ("zh-Hant-TW", "en", "zh"),
        ("PT-br", "en", "pt"),
        ("de_AT", "en", "de"),
        ("en-GB", "de", ""),
        ("pl", "en", ""),
        ("pl", "de-CH", "de"),
        ("pl", "pl", ""),
        (None, "en", ""),
        (None, "fr", "fr"),
    ],
)
async def test_a_device_gets_its_language_else_the_default_else_english(
    chat: Chat, locale: str | None, default: str, expected: str
) -> None:
    assert await language_of(chat, locale, default) == expected


async def test_each_device_gets_its_own_language(chat: Chat) -> None:
    for locale in ("de-DE", "ja", None):
        await chat.device(locale=locale)
    await chat.message("", attachments='[{"type": "image"}]')
    assert {body for _, body in await shown(chat)} == {"📷 Foto", "📷 写真", "📷 Photo"}


async def test_a_text_of_a_person_is_not_translated(chat: Chat) -> None:
    await chat.device(locale="de")
    await chat.message("📷 Photo")
    assert await shown(chat) == [("Tom Tourist", "📷 Photo")]


async def test_the_number_is_written_as_the_language_does(chat: Chat) -> None:
    await chat.device(locale="ja-JP")
    for text in ("one", "two"):
        await chat.message(text)
    assert await shown(chat) == [("Tom Tourist\uff082\uff09", "two\none")]


async def test_a_deleted_text_is_replaced_in_the_language_of_the_device(chat: Chat) -> None:
    await chat.device(locale="es")
    message = await chat.message()
    await sent(chat)
    await chat.connection.execute("update public.chat_messages set deleted_at = now() where id = %s", (message,))
    await chat.pass_time(1)
    assert await shown(chat) == [("Tom Tourist", "Mensaje eliminado")]


async def test_a_message_request_is_in_the_language_of_the_device(chat: Chat) -> None:
    await chat.connection.execute("update push.settings set message_requests = 'all'")
    await chat.device(locale="fr-CA")
    await chat.message()
    title = "Nouvelle demande de message"
    assert await shown(chat) == [(title, "Ouvrez l\u2019application pour le lire")]


# When it changes -------------------------------------------------------------------------------


async def set_locale(chat: Chat, device: Row, locale: str) -> None:
    async with as_user(chat.connection, chat.guide):
        await chat.connection.execute(
            "update public.user_devices set locale = %s where device_id = %s", (locale, device["device_id"])
        )


async def test_another_language_replaces_what_the_device_shows_without_a_sound(chat: Chat) -> None:
    device = await chat.device(locale="de")
    await chat.message()
    assert kinds(await sent(chat)) == ["alert"]
    await set_locale(chat, device, "fr")
    [push] = await sent(chat)
    assert (push["kind"], push["sound"], push["language"]) == ("update", False, "fr")
    await set_locale(chat, device, "fr-CA")
    assert await sent(chat) == []


async def test_a_wrong_tag_is_refused_by_the_name_of_its_field(chat: Chat) -> None:
    device = await chat.device()
    async with refused(chat.connection, "22023", "locale"):
        await set_locale(chat, device, "de_DE")


# What an app adds ------------------------------------------------------------------------------


async def test_an_app_adds_a_language_and_its_own_kinds_of_messages_by_sql(chat: Chat) -> None:
    await chat.connection.execute("""
        create or replace function push.message_preview(p_message public.chat_messages) returns text
        language sql immutable set search_path = '' as $$ select 'Tour offer' $$;
        insert into push.languages (language, plurals)
          values ('pl', '{"one": [[1, 2]], "few": [[2, 5], [22, 25]], "many": [[0, 1], [5, 22], [25, 100]]}');
        insert into push.translations (language, source, category, translation) values
          ('pl', 'Tour offer', 'other', 'Oferta wycieczki'),
          ('pl', '{count} new messages', 'few', '{count} nowe wiadomości'),
          ('pl', '{count} new messages', 'other', '{count} nowych wiadomości');
        update push.settings set default_language = 'de'
    """)
    await chat.device(locale="pl-PL")
    await chat.message("", message_type="offer")
    assert await shown(chat) == [("Tom Tourist", "Oferta wycieczki")]
    texts = await texts_of(chat, "pl")
    plural = [translated(texts, NEUTRAL_TITLE_OF_SEVERAL, number) for number in (3, 7)]
    assert plural == ["{count} nowe wiadomości", "{count} nowych wiadomości"]
    # What the language has not is in the default language.
    assert translated(texts, "Message deleted") == "Nachricht gelöscht"


async def test_a_dialect_of_an_app_takes_the_rest_from_its_language(chat: Chat) -> None:
    await chat.connection.execute("""
        insert into push.languages (language) values ('pt-br');
        insert into push.translations (language, source, translation)
          values ('pt-br', 'New message', 'Nova mensagem, gente')
    """)
    assert await language_of(chat, "pt-BR") == "pt-br"
    texts = await texts_of(chat, "pt-br")
    assert translated(texts, "New message") == "Nova mensagem, gente"
    assert translated(texts, "Message deleted") == "Mensagem apagada"


async def test_a_claim_has_what_an_app_changed_last(chat: Chat) -> None:
    await chat.connection.execute("""
        update push.translations set translation = 'Nachricht!' where language = 'de' and source = 'New message';
        delete from push.translations where language = 'de' and source = 'Message deleted';
        update push.languages set plurals = '{"one": [[7, 8]]}' where language = 'de'
    """)
    texts = await texts_of(chat, "de")
    assert translated(texts, "New message") == "Nachricht!"
    assert translated(texts, "Message deleted") == "Message deleted"
    assert texts["New message"].plurals == {"one": [(7, 8)]}
    await chat.connection.execute("truncate push.translations")
    assert await texts_of(chat, "de") == {}
