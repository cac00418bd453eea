"""The hostile user of a chaos run, signed in like everybody else, and rows as older databases hold them.

Whatever may not be stored carries a marker, so that the judge can look for it. What is allowed, however odd, is chat:
its messages are judged like all others.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from random import Random
from typing import Any
from uuid import uuid4

import httpx
import psycopg
from postgrest import APIError

from local.app import App, Person
from local.chaos.history import Answer
from local.chaos.traffic import ANSWER_SECONDS, Actor, Traffic
from local.cloud import LocalCloud
from local.supabase.postgres import SUPERUSER
from local.types import Json

PAUSE_SECONDS = 0.3  # on average, between two attacks
HUGE = 1_200_000
DEVICES_AT_ONCE, DEVICES_ONE_BY_ONE = 200, 20
WEBHOOKS = 5

# Before bounds there were rows beyond them; and an app may have a preview of its own that fails for some message.
OLDER_NAME = "update public.users set display_name = repeat('long ', 2400000) where id = %s"
OLDER_DATABASE = """
alter table public.chat_messages drop constraint if exists chat_messages_attachments_check;
create or replace function push.message_preview(p_message public.chat_messages) returns text
language plpgsql immutable set search_path = '' as $$
begin
  if p_message.message = 'unreadable' then
    raise exception 'this app cannot read it';
  end if;
  return coalesce(nullif(btrim(p_message.message), ''), 'New message');
end $$;
"""
OLDER_ROWS = """
with old as (
  insert into public.chat_messages (id, room_id, sender_id, message, attachments, message_type, is_read, created_at,
    server_timestamp)
  select gen_random_uuid(), %(room)s, %(sender)s, text, attachments, type, null, null, clock_timestamp()
  from (values
    (repeat('long ', 240000), '[]'::jsonb, 'text'), ('not a list', '{"type": "image"}', null), ('a number', '7', ''),
    ('null', 'null', 'image'), ('many', (select jsonb_agg(number) from generate_series(1, 20000) number), 'file'),
    ('unreadable', '[]', '')
  ) rows (text, attachments, type)
  returning id
)
insert into push.jobs (message_id, recipient_id) select id, %(recipient)s from old
"""

ODD_NAMES = ("\n\t", "\u00a0", "\u3164\u2800", "\u202egnp.", "x" * 2000, "' or 1=1 --", "{{name}} %s", "👩‍👩‍👧‍👦" * 40)
ODD_ATTACHMENTS: list[Json] = [
    *(None, 7, "image", [[]], {}, {"type": 5, "url": {"a": 1}}, {"type": "image", "url": None}),
    {"type": "image", "url": "javascript:alert(1)"},
    {"type": "image", "url": "https://attacker.example/beacon.png"},
]
ODD_BODIES = (b"\xff\xfe", b"null", b'"', b"[" * 8000, b'{"device_id": ' * 500, b" " * 900_000, b"{}")
ODD_FIELDS: list[dict[str, Json]] = [
    *({"device_id": "\0"}, {"device_id": {"a": [{}]}}, {"platform": "\u202eios"}, {"push_provider": ["expo"]}),
    *({"push_token": "x" * 3000, "push_provider": "fcm"}, {"app_version": "\0"}, {"user_id": None}),
]
ODD_TOKENS = (b"\xff\xfe", b"e30.e30.e30", b"." * 2000)

# What the database, the Data API and the HTTP API make of attacks and of faults.
_NO_ANSWER = (APIError, httpx.HTTPError, TimeoutError, ValueError, psycopg.Error)


class Hostile:
    """Attacks until the people have finished, each kind at least once.

    `forbidden`: what may not be stored or accepted, by its marker; `accepted`: those that a caller was told of as done.
    """

    def __init__(
        self,
        cloud: LocalCloud,
        traffic: Traffic,
        person: Person,
        accomplice: Person,
        random: Random,
        http: httpx.AsyncClient,
    ) -> None:
        self.done = Counter(dict.fromkeys(_ATTACKS, 0))
        self.forbidden: dict[str, str] = {}
        self.accepted: set[str] = set()
        self.answers: list[Answer] = []
        self._cloud = cloud
        self._traffic = traffic
        self._person = person
        self._accomplice = accomplice
        self._random = random
        self._http = http

    async def run(self) -> None:
        """Every kind once, in any order, then again; at the end once more what a fault has stopped each time."""
        people_finished = False
        while not people_finished:
            people_finished = len(self._traffic.written) >= self._traffic.messages
            kinds = [name for name in _ATTACKS if not people_finished or not self.done[name]]
            for name in self._random.sample(kinds, len(kinds)):
                await asyncio.sleep(self._random.expovariate(1 / PAUSE_SECONDS))
                with suppress(*_NO_ANSWER):  # another time
                    async with asyncio.timeout(ANSWER_SECONDS):
                        await _ATTACKS[name](self)
                        self.done[name] += 1

    def _victim(self) -> Actor:
        return self._random.choice(self._traffic.actors)

    def _marker(self, what: str) -> str:
        marker = str(uuid4())
        self.forbidden[marker] = what
        return marker

    def _time(self, what: str) -> str:
        """A forged time, which is its own marker."""
        # Odd, because Postgres writes no zeros at the end.
        marker = f"2000-01-01 00:00:00.{self._random.randrange(100_001, 1_000_000, 2)}"
        self.forbidden[marker] = what
        return f"{marker}+00"

    async def _ask(
        self, method: str, path: str, body: object = None, prefer: str = "return=minimal", by: Person | None = None
    ) -> httpx.Response:
        """The answer of the Data API, to the attacker or to `by`."""
        headers = {
            "apikey": self._cloud.supabase.publishable_key,
            "Authorization": f"Bearer {(by or self._person).access_token}",
            "Prefer": prefer,
        }
        return await self._request(method, f"{self._cloud.supabase.url}/rest/v1/{path}", json=body, headers=headers)

    async def _call(self, method: str, path: str, token: bytes, **content: Any) -> httpx.Response:
        """The answer of the HTTP API to whoever has this access token."""
        headers = [(b"authorization", b"Bearer " + token), (b"content-type", b"application/json")]
        return await self._request(method, f"{self._cloud.api_url}{path}", headers=headers, **content)

    async def _request(self, method: str, url: str, **content: Any) -> httpx.Response:
        """The answer, which is remembered. Raises httpx.HTTPStatusError if it is a server's error."""
        asked_at, throttled = datetime.now(UTC), self._cloud.account.throttled
        answer = await self._http.request(method, url, **content)
        # The gateway's own 500 says that the account had no room, whoever asked.
        if answer.status_code != 500 or self._cloud.account.throttled == throttled:
            request = f"{method} {answer.url.path}"
            self.answers.append(Answer(request, answer.status_code, asked_at, datetime.now(UTC)))
        if answer.is_server_error:
            answer.raise_for_status()
        return answer

    async def flood_of_devices(self) -> None:
        """More devices than one person may register, none of which exists, and messages to those that were stored."""
        flood = self._device(device_id=self._marker("a device of a flood"))
        await self._ask("POST", "user_devices", [flood, *(self._device() for _ in range(DEVICES_AT_ONCE))])
        for _ in range(DEVICES_ONE_BY_ONE):
            device = {f"p_{name}": value for name, value in self._device().items() if name != "user_id"}
            await self._ask("POST", "rpc/register_device", device)
        room = await self._accomplice.open_chat(self._person)
        for _ in range(3):
            await self._accomplice.send(room, "Hello")

    async def odd_registrations(self) -> None:
        """At the HTTP API, which checks before the database does."""
        token, path = self._person.access_token.encode(), "/api/push/register"
        for body in ODD_BODIES:
            await self._call("POST", path, token, content=body)
        for odd in ODD_FIELDS:
            device_id = self._marker(f"a device with odd {', '.join(odd)}")
            device = self._device(device_id=device_id) | odd
            if "user_id" not in odd:
                del device["user_id"]
            await self._call("POST", path, token, json=device)
        await self._call("DELETE", "/api/push/unregister", token, params={"device_id": "\0" + "x" * 3000})
        for odd_token in ODD_TOKENS:
            device = self._device(device_id=self._marker("a device under an odd token"))
            del device["user_id"]
            await self._call("POST", path, odd_token, json=device)

    def _device(self, **fields: object) -> dict[str, object]:
        return {
            "user_id": str(self._person.id),
            "device_id": str(uuid4()),
            "platform": "ios",
            "push_token": f"ExponentPushToken[{uuid4()}]",
            **fields,
        }

    async def theft_of_a_token(self) -> None:
        """A registration that is ignored as a duplicate, with somebody else's token in either spelling.

        By the accomplice, who has not used up the limit of registrations.
        """
        token, thief = self._random.choice(self._victim().phones).token, self._accomplice
        own = self._device(user_id=str(thief.id))
        await self._ask("POST", "user_devices", own, by=thief)
        for spelling in (token, token.replace("Exponent", "Expo", 1)):
            await self._ask(
                "POST",
                "user_devices?on_conflict=user_id,device_id",
                own | {"push_token": spelling},
                "return=minimal,resolution=ignore-duplicates",
                thief,
            )
        # And under another provider's name, which is refused.
        device_id = self._marker("an Expo token under another provider")
        other = own | {"device_id": device_id, "push_token": token, "push_provider": "fcm"}
        await self._ask("POST", "user_devices", other, by=thief)

    async def foreign_devices(self) -> None:
        """Devices of somebody else, made, changed and removed."""
        victim = self._victim()
        device_id = self._marker("a device in somebody else's name")
        await self._ask("POST", "user_devices", self._device(user_id=str(victim.person.id), device_id=device_id))
        of_victim = f"user_devices?user_id=eq.{victim.person.id}"
        await self._ask("PATCH", of_victim, {"is_active": False})
        await self._ask("PATCH", of_victim, {"push_token": f"ExponentPushToken[{self._marker('a foreign token')}]"})
        await self._ask("DELETE", of_victim)

    async def huge_messages(self) -> None:
        """Beyond each bound; some after an odd beginning."""
        room = await self._person.open_chat(self._accomplice)
        for what, text, fields in (
            ("a text of 1.2 MB", "x" * HUGE, {}),
            ("attachments of 1.2 MB", "", {"attachments": [{"url": "x" * HUGE}]}),
            ("attachments that are no list", "", {"attachments": {"type": "image"}}),
            ("31 attachments", "", {"attachments": [{}] * 31}),
            ("a long client_msg_id", "", {"client_msg_id": "x" * 3000}),
        ):
            row = {"room_id": str(room), "sender_id": str(self._person.id), "message": self._marker(what) + text}
            await self._ask("POST", "chat_messages", {**row, **fields})

    async def huge_edits(self) -> None:
        """Of a message that was small when it was written."""
        message = await self._person.send(await self._person.open_chat(self._accomplice), "Hello")
        text = self._marker("an edit of 1.2 MB") + "x" * HUGE
        await self._ask("PATCH", f"chat_messages?id=eq.{message}", {"message": text})

    async def huge_names(self) -> None:
        """Of the attacker, in each field of the profile."""
        for field in ("display_name", "avatar_url", "locale"):
            name = self._marker(f"a {field} of 1.2 MB") + "x" * HUGE
            await self._ask("PATCH", f"users?id=eq.{self._person.id}", {field: name})

    async def odd_but_allowed(self) -> None:
        """A name and attachments that are allowed, to somebody who never wrote back."""
        name = self._random.choice(ODD_NAMES)
        await self._ask("PATCH", f"users?id=eq.{self._person.id}", {"display_name": name})
        room = await self._person.open_chat(self._victim().person)
        message = {"room_id": str(room), "sender_id": str(self._person.id)} | {
            "message": self._random.choice(["", "\u202e", "%s", "x" * 16_000]),
            "attachments": self._random.sample(ODD_ATTACHMENTS, 3),
        }
        await self._ask("POST", "chat_messages", message)

    async def conversations_with_everybody(self) -> None:
        """In which the attacker may write and nothing else: no message of the others' is in them."""
        for victim in self._traffic.actors:
            room = {"user1_id": str(self._person.id), "user2_id": str(victim.person.id)}
            forged = {"created_at": self._time("a conversation that says when it began"), "unread_count_user2": 99}
            await self._ask("POST", "chat_rooms", room | forged)

    async def foreign_tables_and_columns(self) -> None:
        """Rows and columns that are somebody else's, or the server's."""
        victim = self._victim()
        conversation = self._random.choice(victim.conversations)
        own = await self._person.open_chat(self._accomplice)
        mark = self._marker
        message = {"room_id": str(conversation), "sender_id": str(self._person.id)}
        stamped = {"room_id": str(own), "sender_id": str(self._person.id), "message": "Hello", "is_read": True}
        stamped |= {name: self._time(f"the {name} of a message") for name in ("server_timestamp", "created_at")}
        seen = self._device(last_seen_at=self._time("the last_seen_at of a device"))
        user = {"user_id": str(victim.person.id), "is_online": True}
        of_others = f"chat_messages?room_id=eq.{conversation}"
        for method, path, body in (
            ("POST", "chat_messages", message | {"message": mark("a message in a foreign conversation")}),
            ("POST", "chat_messages", message | {"sender_id": user["user_id"], "message": mark("in another's name")}),
            ("POST", "chat_messages", stamped),
            ("POST", "user_devices", seen),
            ("PATCH", of_others, {"message": mark("an edit of a foreign message")}),
            ("PATCH", of_others, {"deleted_at": "now"}),
            ("PATCH", of_others, {"is_read": True}),
            ("DELETE", of_others, None),
            ("DELETE", f"chat_rooms?id=eq.{conversation}", None),
            ("PATCH", f"chat_rooms?id=eq.{own}", {"last_message": mark("a last_message")}),
            ("PATCH", f"users?id=eq.{victim.person.id}", {"display_name": mark("a foreign name")}),
            ("POST", "user_presence", user | {"current_conversation_id": str(conversation)}),
            ("PATCH", f"user_presence?user_id=eq.{victim.person.id}", {"current_conversation_id": str(conversation)}),
            ("POST", "chat_rooms", {"id": mark("a foreign conversation"), **self._two_others()}),
            ("POST", "rpc/mark_messages_read", {"p_user_id": user["user_id"], "p_conversation_id": str(conversation)}),
            ("POST", "rpc/claim_push_jobs", {"p_limit": 100}),
            ("POST", "rpc/record_push_results", {"p_lease_id": str(uuid4()), "p_results": []}),
            ("POST", "rpc/prune_push", {"p_limit": 1}),
        ):
            await self._ask(method, path, body)

    def _two_others(self) -> dict[str, str]:
        one, other = self._random.sample(self._traffic.actors, 2)
        return {"user1_id": str(one.person.id), "user2_id": str(other.person.id)}

    async def random_webhook_secrets(self) -> None:
        """Also one that is no text; each names a message that there is not."""
        url = f"{self._cloud.api_url}/api/push/chat-message"
        for secret in (b"\xff\xfe", *(uuid4().hex.encode() for _ in range(WEBHOOKS))):
            marker = self._marker("a webhook with a random secret")
            answer = await self._request(
                "POST", url, json={"record": {"id": marker}}, headers=[(b"x-webhook-secret", secret)]
            )
            if answer.is_success:
                self.accepted.add(marker)

    async def rows_of_an_older_database(self) -> None:
        """In a conversation of two others, by the database's owner with triggers off."""
        sender = self._victim()
        room = self._random.choice(sender.conversations)
        [recipient] = [actor for actor in self._traffic.actors if room in actor.conversations and actor is not sender]
        people: dict[str, Any] = {"room": room, "sender": sender.person.id, "recipient": recipient.person.id}
        dsn = self._cloud.postgres.dsn(role=SUPERUSER)
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            await connection.execute("set session_replication_role = replica")
            await connection.execute(OLDER_ROWS, people)


_ATTACKS: dict[str, Callable[[Hostile], Awaitable[None]]] = {
    "attacks: device floods": Hostile.flood_of_devices,
    "attacks: odd registrations": Hostile.odd_registrations,
    "attacks: token thefts": Hostile.theft_of_a_token,
    "attacks: foreign devices": Hostile.foreign_devices,
    "attacks: huge messages": Hostile.huge_messages,
    "attacks: huge edits": Hostile.huge_edits,
    "attacks: huge names": Hostile.huge_names,
    "attacks: odd names and attachments": Hostile.odd_but_allowed,
    "attacks: conversations with everybody": Hostile.conversations_with_everybody,
    "attacks: foreign tables and columns": Hostile.foreign_tables_and_columns,
    "attacks: random webhook secrets": Hostile.random_webhook_secrets,
    "rows of an older database": Hostile.rows_of_an_older_database,
}


@asynccontextmanager
async def hostile(cloud: LocalCloud, app: App, traffic: Traffic, random: Random) -> AsyncIterator[Hostile]:
    """The attacker and an accomplice, in a database that was there before its bounds."""
    async with await psycopg.AsyncConnection.connect(cloud.postgres.dsn(role=SUPERUSER)) as connection:
        await connection.execute(OLDER_DATABASE)
        await connection.execute("set session_replication_role = replica")
        await connection.execute(OLDER_NAME, (traffic.actors[0].person.id,))
    person, accomplice = await app.sign_up("Mallory", "tourist"), await app.sign_up("Oscar", "guide")
    async with httpx.AsyncClient(timeout=30) as http:
        yield Hostile(cloud, traffic, person, accomplice, Random(random.random()), http)
