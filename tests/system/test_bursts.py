"""A backend sends many messages at once. Each phone shows each of its messages once, in few requests to Expo."""

import asyncio
from dataclasses import dataclass
from uuid import UUID

import psycopg
import pytest

from local.providers.phones import Phone
from tests.system.chat import Chat, arrived_and_visible, execute, insert_messages
from tests.waiting import eventually

MESSAGES = 300


@dataclass
class Burst:
    """Messages that a backend inserts at once, and the phones of their recipients."""

    chat: Chat
    phones: dict[UUID, list[Phone]]  # by conversation
    ids: list[UUID]

    @property
    def rooms(self) -> list[UUID]:
        """The conversation of each message, in order."""
        return [list(self.phones)[number % len(self.phones)] for number in range(MESSAGES)]

    async def insert(self) -> None:
        """Inserts all messages in one transaction."""
        messages = [(room, self.chat.tina.id, f"Meeting point number {n}") for n, room in enumerate(self.rooms)]
        self.ids = await insert_messages(self.chat.cloud, *messages)

    async def until_done(self) -> None:
        """Runs the sweep until every push job is done."""
        async with (
            asyncio.timeout(60),
            await psycopg.AsyncConnection.connect(self.chat.cloud.database_url, autocommit=True) as connection,
        ):
            while (
                await connection.execute(
                    "select from push.jobs where state <> 'idle' and next_attempt_at is distinct from expires_at"
                )
            ).rowcount:
                await self.chat.sweep()

    def copies(self) -> set[tuple[int, int]]:
        """Returns the different values of arrived_and_visible, of each message on each phone of its recipient."""
        messages = zip(self.ids, self.rooms, strict=True)
        return {arrived_and_visible(phone, message) for message, room in messages for phone in self.phones[room]}

    def arrivals(self) -> int:
        """Returns how many notifications arrived on all phones."""
        return sum(len(phone.arrived) for phone in self.chat.cloud.expo.phones.values())


@pytest.fixture
async def burst(chat: Chat) -> Burst:
    """A burst to three recipients, who have four phones together."""
    phones = {chat.id: [chat.phone]}
    for guide, count in ((chat.omar, 1), (chat.greta, 2)):
        phones[await chat.tina.open_chat(guide)] = [await chat.new_phone_of(guide) for _ in range(count)]
    # With the default share of the rate, three recipients would have to wait.
    await execute(chat.cloud, "update push.settings set recipient_share = 1")
    return Burst(chat, phones, [])


async def test_the_sweep_sends_a_burst_without_webhooks_in_full_requests(burst: Burst) -> None:
    burst.chat.cloud.pg_net.lose(MESSAGES)
    await burst.insert()
    await burst.until_done()
    assert burst.copies() == {(1, 1)}
    assert burst.arrivals() == 4 * MESSAGES // 3
    recipients = [len(request.tokens) for request in burst.chat.cloud.expo.requests]
    assert max(recipients) == 100
    assert len(recipients) <= 6


async def test_each_phone_shows_each_message_of_a_burst_once_while_webhooks_and_sweep_run_together(
    burst: Burst,
) -> None:
    cloud = burst.chat.cloud
    cloud.pg_net.lose(MESSAGES // 2)
    requests = cloud.pg_net.requests
    await burst.insert()
    await burst.chat.sweep()
    await eventually(lambda: cloud.pg_net.requests == requests + MESSAGES // 2)
    await burst.until_done()
    await cloud.poller.until_idle()
    assert burst.copies() == {(1, 1)}
    assert burst.arrivals() == 4 * MESSAGES // 3
    assert len(cloud.expo.requests) < MESSAGES / 4


async def test_each_message_of_a_burst_beyond_the_rate_limit_of_expo_arrives_once(burst: Burst) -> None:
    burst.chat.cloud.pg_net.lose(MESSAGES)
    burst.chat.cloud.expo.configure({"rate_limit_per_second": 200})
    await burst.insert()
    await burst.until_done()
    assert 429 in [request.status for request in burst.chat.cloud.expo.requests]
    assert burst.copies() == {(1, 1)}
    assert burst.arrivals() == 4 * MESSAGES // 3
