"""From a message id in hand to its push accepted by Expo: one message at a time, everything warm.

Each contender is a process of its own, kept running, beside the same Postgres, Data API and Expo: the handler as it is
deployed (built function and layers, nothing else on its path) and the baselines of bench/baselines. None runs behind
the Runtime Interface Emulator, which is Lambda's part and costs a millisecond or two. The clock starts when the worker
is given the message, as the webhook was accepted then, and stops when Expo accepts the push. The floor is the two
requests that lie between, claim and send, bare with httpx. Contenders take turns message by message, because the
machine is noisy.
Each request to the database is held for 10 ms, as the network to a hosted one would; Expo answers at once.
"""

from contextlib import AsyncExitStack
from datetime import UTC, datetime

from bench.fixtures import CONTENDERS, Contender, Fixtures, start_fixtures
from bench.report import Plot, Result, Target, percentiles

MESSAGES = 200
WARM_UP = 10
DATABASE_DELAY_SECONDS = 0.01


async def run() -> Result:
    """Latencies of all contenders in milliseconds."""
    async with start_fixtures() as fixtures, AsyncExitStack() as running:
        contenders = [await running.enter_async_context(fixtures.contender(name)) for name in CONTENDERS]
        fixtures.database.delay_seconds = DATABASE_DELAY_SECONDS
        taken: dict[str, list[float]] = {name: [] for name in CONTENDERS}
        for turn in range(WARM_UP + MESSAGES):
            for contender in contenders[turn % len(contenders) :] + contenders[: turn % len(contenders)]:
                milliseconds = await _one_push(fixtures, contender)
                if turn >= WARM_UP:
                    taken[contender.name].append(milliseconds)
    found = {name: percentiles(values) for name, values in taken.items()}
    floor = found["floor"].p50
    return Result(
        columns=("contender", "p50 ms", "p95 ms", "p99 ms", "p50 / floor"),
        rows=[(name, *found[name], found[name].p50 / floor) for name in CONTENDERS],
        targets=[
            Target("p50 / floor", found["chat push"].p50 / floor, 1.25),
            Target("p50 / sequential", found["chat push"].p50 / found["sequential"].p50, 0.5),
        ],
        plot=Plot("contender", ("p50 ms", "p95 ms"), "milliseconds"),
        notes=(
            "The Data API is Supabase Lite on Node, which itself asks Postgres a dozen questions for each request.",
            "The baselines are told the recipient and keep no record of what they sent.",
        ),
    )


async def _one_push(fixtures: Fixtures, contender: Contender) -> float:
    [message] = await fixtures.write(1)
    [phone] = fixtures.expo.phones.values()
    phone.arrived.clear()
    began = datetime.now(UTC)
    await contender.push([message])
    [arrival] = phone.arrived
    return (arrival.at - began).total_seconds() * 1000
