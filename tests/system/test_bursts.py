"""A backend sends many messages at once. Each phone gets one push for its conversation, in few requests to Expo."""

import asyncio
from dataclasses import dataclass
from uuid import UUID

import psycopg
import pytest

from local.providers.phones import Phone
from tests.system.chat import Chat, arrived_and_visible, conversations, insert_messages
from tests.waiting import eventually

CONVERSATIONS, MESSAGES = 100, 300


@dataclass
class Burst:
    """Messages that a backend inserts at once, and the phones of their recipients."""

    chat: Chat
    phones: dict[UUID, list[Phone]]  # by conversation
    newest: dict[UUID, UUID]  # the last message of each conversation

    async def insert(self) -> None:
        """Inserts all messages in one transaction."""
        rooms = [list(self.phones)[number % CONVERSATIONS] for number in range(MESSAGES)]
        messages = [(room, self.chat.tina.id, f"Meeting point number {n}") for n, room in enumerate(rooms)]
        self.newest = dict(zip(rooms, await insert_messages(self.chat.cloud, *messages), strict=True))

    async def until_done(self) -> None:
        """Runs the sweep until no push job has anything to do."""
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
        """Returns the different values of arrived_and_visible, of the last message of each conversation."""
        return {
            arrived_and_visible(phone, self.newest[room]) for room, phones in self.phones.items() for phone in phones
        }

    def shown(self) -> set[int]:
        """Returns the different numbers of notifications on the phones."""
        return {len(phone.shown) for phones in self.phones.values() for phone in phones}

    @property
    def devices(self) -> int:
        return sum(map(len, self.phones.values()))

    def arrivals(self) -> int:
        """Returns how many notifications arrived on all phones."""
        return sum(len(phone.arrived) for phone in self.chat.cloud.expo.phones.values())


@pytest.fixture
async def burst(chat: Chat) -> Burst:
    """A burst to a hundred recipients, of whom each third has two phones."""
    phones = await conversations(chat.cloud, chat.tina, CONVERSATIONS)
    return Burst(chat, phones, {})


async def test_the_sweep_sends_a_burst_without_webhooks_in_few_requests(burst: Burst) -> None:
    burst.chat.cloud.pg_net.lose(CONVERSATIONS)
    await burst.insert()
    await burst.until_done()
    assert burst.copies() == {(1, 1)}
    assert (burst.arrivals(), burst.shown()) == (burst.devices, {1}), "one push for three messages"
    # A worker that has little time claims less than a full request of 100, so their number depends on the machine.
    assert len(burst.chat.cloud.expo.requests) < CONVERSATIONS / 4


async def test_each_phone_gets_one_push_of_a_burst_while_webhooks_and_sweep_run_together(
    burst: Burst,
) -> None:
    cloud = burst.chat.cloud
    cloud.pg_net.lose(CONVERSATIONS // 2)
    requests = cloud.pg_net.requests
    await burst.insert()
    await burst.chat.sweep()
    await eventually(lambda: cloud.pg_net.requests >= requests + CONVERSATIONS // 2)
    await burst.until_done()
    await cloud.poller.until_idle()
    assert burst.copies() == {(1, 1)}
    assert (burst.arrivals(), burst.shown()) == (burst.devices, {1})
    assert len(cloud.expo.requests) < CONVERSATIONS / 2


async def test_each_push_of_a_burst_beyond_the_rate_limit_of_expo_arrives_once(burst: Burst) -> None:
    burst.chat.cloud.pg_net.lose(CONVERSATIONS)
    burst.chat.cloud.expo.configure({"rate_limit_per_second": 100})
    await burst.insert()
    await burst.until_done()
    assert 429 in [request.status for request in burst.chat.cloud.expo.requests]
    assert burst.copies() == {(1, 1)}
    assert (burst.arrivals(), burst.shown()) == (burst.devices, {1})
