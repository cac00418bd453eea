"""A backend writes to many people at once: every phone shows every message once, and Expo is not flooded."""

import asyncio
from dataclasses import dataclass
from uuid import UUID

import psycopg
import pytest

from local.providers.phones import Phone
from tests.system.chat import Chat, eventually, execute, got, insert_messages

MESSAGES = 300


@dataclass
class Burst:
    """What a backend is about to write, and which phones should show it."""

    chat: Chat
    phones: dict[UUID, list[Phone]]  # by conversation
    ids: list[UUID]

    @property
    def rooms(self) -> list[UUID]:
        """The conversation of each message."""
        return [list(self.phones)[number % len(self.phones)] for number in range(MESSAGES)]

    async def insert(self) -> None:
        """Write all messages in one transaction."""
        messages = [(room, self.chat.tina.id, f"Meeting point number {n}") for n, room in enumerate(self.rooms)]
        self.ids = await insert_messages(self.chat.cloud, *messages)

    async def ended(self) -> None:
        """The schedule fires until no push is left to be sent."""
        async with (
            asyncio.timeout(60),
            await psycopg.AsyncConnection.connect(self.chat.cloud.database_url, autocommit=True) as connection,
        ):
            while (await connection.execute("select from push.jobs where state <> 'done'")).rowcount:
                await self.chat.sweep()

    def shown(self) -> set[tuple[int, int]]:
        """How often the messages arrived on the phones of their recipients, and how often they are visible there."""
        return {got(phone, id) for id, room in zip(self.ids, self.rooms, strict=True) for phone in self.phones[room]}

    def arrivals(self) -> int:
        """All notifications that arrived on any phone."""
        return sum(len(phone.arrived) for phone in self.chat.cloud.expo.phones.values())


@pytest.fixture
async def burst(chat: Chat) -> Burst:
    """Three recipients, who have four phones together."""
    phones = {chat.id: [chat.phone]}
    for guide, count in ((chat.omar, 1), (chat.greta, 2)):
        phones[await chat.tina.open_chat(guide)] = [await chat.phone_of(guide) for _ in range(count)]
    # So few people would have to wait for each other's share of the rate.
    await execute(chat.cloud, "update push.settings set recipient_share = 1")
    return Burst(chat, phones, [])


async def test_a_burst_whose_webhooks_are_lost_goes_out_by_the_sweep_in_full_requests(burst: Burst) -> None:
    burst.chat.cloud.pg_net.lose(MESSAGES)
    await burst.insert()
    await burst.ended()
    assert burst.shown() == {(1, 1)}
    assert burst.arrivals() == 4 * MESSAGES // 3
    recipients = [len(request.tokens) for request in burst.chat.cloud.expo.requests]
    assert max(recipients) == 100
    assert len(recipients) <= 6


async def test_a_burst_shows_each_message_once_when_webhooks_and_sweep_run_together(burst: Burst) -> None:
    cloud = burst.chat.cloud
    cloud.pg_net.lose(MESSAGES // 2)
    requests = cloud.pg_net.requests
    await burst.insert()
    await burst.chat.sweep()
    await eventually(lambda: cloud.pg_net.requests == requests + MESSAGES // 2)
    await burst.ended()
    await cloud.poller.until_idle()
    assert burst.shown() == {(1, 1)}
    assert burst.arrivals() == 4 * MESSAGES // 3
    assert len(cloud.expo.requests) < MESSAGES / 4


async def test_a_burst_beyond_the_rate_limit_of_expo_arrives_all_the_same(burst: Burst) -> None:
    burst.chat.cloud.pg_net.lose(MESSAGES)
    burst.chat.cloud.expo.configure({"rate_limit_per_second": 200})
    await burst.insert()
    await burst.ended()
    assert 429 in [request.status for request in burst.chat.cloud.expo.requests]
    assert burst.shown() == {(1, 1)}
    assert burst.arrivals() == 4 * MESSAGES // 3
