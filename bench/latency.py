"""Latency of one push, from a known message id to Expo's acceptance.

Messages are sent one at a time, each in a conversation of its own, and everything is warm. Each contender is a process
that keeps running. All contenders use the same Postgres, Data API and Expo: the handler as it is deployed (the built
function and layers, nothing else on its path) and the baselines of bench/baselines. None runs behind the Runtime
Interface Emulator, which is part of Lambda and takes one or two milliseconds. The clock starts when the worker receives
the message, because the webhook was accepted then. It stops when Expo accepts the push. The floor is the two requests
between these points, claim and send, with httpx alone. The contenders alternate message by message, because the machine
is noisy. Each request to the database is delayed by 10 ms, like the network to a hosted one. Expo answers at once.
"""

from contextlib import AsyncExitStack
from datetime import UTC, datetime

from bench.fixtures import CONTENDERS, Contender, Fixtures, Message, start_fixtures
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
        pushes = (WARM_UP + MESSAGES) * len(contenders)
        messages = iter(await fixtures.write(pushes, rooms=pushes))
        for number in range(WARM_UP + MESSAGES):
            for contender in contenders[number % len(contenders) :] + contenders[: number % len(contenders)]:
                milliseconds = await _one_push(fixtures, contender, next(messages))
                if number >= WARM_UP:
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
            "The Data API is Supabase Lite on Node, which makes a dozen queries to Postgres for each request.",
            "The baselines receive the recipient's id with the message, and keep no record of their pushes.",
        ),
    )


async def _one_push(fixtures: Fixtures, contender: Contender, message: Message) -> float:
    began = datetime.now(UTC)
    await contender.push([message])
    [phone] = [phone for phone in fixtures.expo.phones.values() if phone.arrived]
    [arrival] = phone.arrived
    phone.clear()
    return (arrival.at - began).total_seconds() * 1000
