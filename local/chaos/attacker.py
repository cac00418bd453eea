"""The attacker of a chaos run: a signed-in user with an accomplice, the requests they send, and their answers.

A value that must not be stored carries a marker, which the invariants search for. What the API allows, however odd, is
ordinary chat: the invariants treat its messages like all others.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from random import Random
from typing import Any
from uuid import uuid4

import httpx
import psycopg
from postgrest import APIError

from local.app import App, Person
from local.chaos.records import Answer
from local.chaos.traffic import ANSWER_SECONDS, Actor, Traffic
from local.cloud import LocalCloud

PAUSE_SECONDS = 0.3  # on average, between two attacks

# What requests and statements raise while a fault strikes.
_NO_ANSWER = (APIError, httpx.HTTPError, TimeoutError, ValueError, psycopg.Error)

type Attack = Callable[["Attacker"], Awaitable[None]]


class Attacker:
    """Runs attacks until the users have written every message.

    `forbidden`: by its marker, what must not be stored or accepted. `accepted`: markers whose request was accepted.
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
        self.done: Counter[str] = Counter()
        self.forbidden: dict[str, str] = {}
        self.accepted: set[str] = set()
        self.answers: list[Answer] = []
        self.cloud = cloud
        self.traffic = traffic
        self.person = person
        self.accomplice = accomplice
        self.random = random
        self._http = http

    async def run(self, attacks: Mapping[str, Attack]) -> None:
        """Runs every attack in random order, round after round. At the end it repeats those that always failed."""
        self.done.update(dict.fromkeys(attacks, 0))
        users_finished = False
        while not users_finished:
            users_finished = len(self.traffic.written) >= self.traffic.messages
            names = [name for name in attacks if not users_finished or not self.done[name]]
            for name in self.random.sample(names, len(names)):
                await asyncio.sleep(self.random.expovariate(1 / PAUSE_SECONDS))
                with suppress(*_NO_ANSWER):  # a later round repeats it
                    async with asyncio.timeout(ANSWER_SECONDS):
                        await attacks[name](self)
                        self.done[name] += 1

    def victim(self) -> Actor:
        """Returns a random user of the run."""
        return self.random.choice(self.traffic.actors)

    def marker(self, what: str) -> str:
        """Returns a new marker for a value that must not be stored. `what` describes the value."""
        marker = str(uuid4())
        self.forbidden[marker] = what
        return marker

    def forged_time(self, what: str) -> str:
        """Returns a timestamp that must not be stored. It is its own marker."""
        # An odd number, because Postgres prints no trailing zeros.
        marker = f"2000-01-01 00:00:00.{self.random.randrange(100_001, 1_000_000, 2)}"
        self.forbidden[marker] = what
        return f"{marker}+00"

    async def call_data_api(
        self, method: str, path: str, body: object = None, prefer: str = "return=minimal", by: Person | None = None
    ) -> None:
        """Sends a request to the Data API as the attacker, or as `by`."""
        headers = {
            "apikey": self.cloud.supabase.publishable_key,
            "Authorization": f"Bearer {(by or self.person).access_token}",
            "Prefer": prefer,
        }
        await self.request(method, f"{self.cloud.supabase.url}/rest/v1/{path}", json=body, headers=headers)

    async def call_http_api(self, method: str, path: str, token: bytes, **content: Any) -> None:
        """Sends a request to the HTTP API with this access token."""
        headers = [(b"authorization", b"Bearer " + token), (b"content-type", b"application/json")]
        await self.request(method, f"{self.cloud.api_url}{path}", headers=headers, **content)

    async def request(self, method: str, url: str, **content: Any) -> httpx.Response:
        """Sends a request, and records and returns the answer. Raises httpx.HTTPStatusError on a server error."""
        sent_at, throttled = datetime.now(UTC), self.cloud.account.throttled
        answer = await self._http.request(method, url, **content)
        # The gateway answers 500 if the account has no concurrency left. That is no fault of the request.
        if answer.status_code != 500 or self.cloud.account.throttled == throttled:
            request = f"{method} {answer.url.path}"
            self.answers.append(Answer(request, answer.status_code, sent_at, datetime.now(UTC)))
        if answer.is_server_error:
            answer.raise_for_status()
        return answer


@asynccontextmanager
async def new_attacker(cloud: LocalCloud, app: App, traffic: Traffic, random: Random) -> AsyncIterator[Attacker]:
    """Signs up the attacker and an accomplice."""
    person, accomplice = await app.sign_up("Mallory", "tourist"), await app.sign_up("Oscar", "guide")
    async with httpx.AsyncClient(timeout=30) as http:
        yield Attacker(cloud, traffic, person, accomplice, Random(random.random()), http)
