"""Latency of other users' pushes during attacks and faults.

Three pairs of users chat, with two messages a second, on a local cloud with its schedule and its webhook. The time of
each of their messages is measured from the insert through the Data API to Expo's acceptance of the first push that
shows this message or a later one of its conversation: first without an attack, then during one attack after the other,
for a few seconds each. An attack is what a signed-in user can do through the Data API and the HTTP API, or what an
older database or a provider can cause. The attacker, Expo, the gateway, the database and the functions share the
processors of one machine. Part of the measured cost of an attack is therefore the attacker's own work.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import cycle
from uuid import UUID

from bench.attacks import ATTACKS, AttackSetup, attack_setup
from bench.report import Plot, Result, Target, percentiles
from local.app import App, Person, chat_app, new_phone
from local.cloud import LocalCloud, local_cloud
from local.providers.phones import Phone

SECONDS = 15
PAUSE_SECONDS = 0.5
LIMIT_SECONDS = 5.0
# The longest wait for one push. A push that only the schedule finds takes a minute.
TIMEOUT_SECONDS = 90


async def run() -> Result:
    """Seconds from insert to acceptance of other users' messages, without an attack and during each one."""
    async with local_cloud(schedules=True) as cloud, chat_app(cloud.supabase, cloud.api_url) as app:
        pairs = [await _pair(cloud, app, number) for number in range(3)]
        setup = await attack_setup(cloud, app)
        waits = {"no attack": await _chat(cloud, pairs)}
        pushes = {"no attack": 0}
        for name, attack in ATTACKS.items():
            async with _attacking(setup, attack):
                waits[name] = await _chat(cloud, pairs)
            pushes[name] = await setup.pushes()
            await setup.clean()
    return Result(
        columns=("attack", "pushes of the attack", "messages of others", "p50 s", "p95 s", "longest s"),
        rows=[
            (name, pushes[name], len(seconds), percentiles(seconds).p50, percentiles(seconds).p95, max(seconds))
            for name, seconds in waits.items()
        ],
        targets=[
            Target(f"longest wait of others in seconds, {name}", max(seconds), LIMIT_SECONDS)
            for name, seconds in waits.items()
        ],
        plot=Plot("attack", ("p50 s", "longest s"), "seconds from insert to acceptance of other users' pushes"),
        notes=(
            "The attacker tries to write 20,000 devices; the database accepts 21 rows a minute.",
            "Random webhook secrets come at 40 a second; each invokes the authorizer on this machine.",
        ),
    )


@dataclass(frozen=True)
class Pair:
    """A sender, a conversation, and the phone of the recipient."""

    sender: Person
    room: UUID
    phone: Phone


async def _pair(cloud: LocalCloud, app: App, number: int) -> Pair:
    sender, reader = await app.sign_up(f"Tina{number}", "tourist"), await app.sign_up(f"Gus{number}", "guide")
    phone = new_phone(cloud.expo, "ios")
    await reader.log_in_on(phone, "phone")
    return Pair(sender, await sender.open_chat(reader), phone)


async def _chat(cloud: LocalCloud, pairs: Sequence[Pair]) -> list[float]:
    """Sends messages for SECONDS. Returns the seconds of each from before its insert to Expo's acceptance."""
    sent: dict[str, list[str]] = {pair.phone.token: [] for pair in pairs}  # message ids, the oldest first

    async def message(pair: Pair) -> float:
        began = datetime.now(UTC)
        messages = sent[pair.phone.token]
        messages.append(str(await pair.sender.send(pair.room, "Shall we meet at the gate?")))
        first = len(messages) - 1
        arrivals = pair.phone.arrived
        found = await cloud.expo.until(
            lambda: [arrival for arrival in arrivals if arrival.message_id in messages[first:]], TIMEOUT_SECONDS
        )
        return (found[0].at - began).total_seconds()

    waits = []
    for pair, _ in zip(cycle(pairs), range(int(SECONDS / PAUSE_SECONDS)), strict=False):
        waits.append(asyncio.create_task(message(pair)))
        await asyncio.sleep(PAUSE_SECONDS)
    return await asyncio.gather(*waits)


@asynccontextmanager
async def _attacking(setup: AttackSetup, attack: Callable[[AttackSetup], Awaitable[None]]) -> AsyncIterator[None]:
    """Attacks while the context is open. Raises the errors of the attack, because a failed attack must not count."""
    attacking = asyncio.ensure_future(attack(setup))
    await asyncio.sleep(1)
    yield
    if not attacking.done():
        attacking.cancel()
    with suppress(asyncio.CancelledError):
        await attacking
