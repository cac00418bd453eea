"""Throughput of several workers under Expo's limit of 600 notifications a second.

The fake Expo answers after 100 ms, and refuses with HTTP 429 each request that would make more than 600 notifications
within a second. The workers are processes with the built function. All of them sweep a long backlog at the same time,
in which each message has a conversation of its own. They do not communicate with each other. They stay below the limit
by the send slot that each claim reserves (reserve_send_slot). The rate is that of the notifications that Expo accepts
after the first seconds, until the backlog ends. At the end each phone must have shown each of its messages once.
"""

import asyncio
import gc
from contextlib import AsyncExitStack
from datetime import timedelta

from bench.fixtures import Contender, Fixtures, start_fixtures
from bench.report import Plot, Result, Target

LIMIT = 600
WORKERS = 6
SECONDS = 30
MESSAGES = LIMIT * SECONDS
WARM_UP_SECONDS = 3


async def run() -> Result:
    """The used share of the limit, and the number of requests that Expo refused."""
    async with start_fixtures() as fixtures, AsyncExitStack() as running:
        workers = [await running.enter_async_context(fixtures.contender("chat push")) for _ in range(WORKERS)]
        for worker in workers:
            await worker.push(await fixtures.write(1))
        await fixtures.clear()
        fixtures.expo.configure({"latency_seconds": 0.1, "rate_limit_per_second": LIMIT})
        messages = await fixtures.write(MESSAGES, rooms=MESSAGES)
        gc.disable()  # A collection stops this process, which runs Expo, for 100 ms, so that requests arrive late.
        try:
            await asyncio.gather(*(_sweep_until_empty(fixtures, worker) for worker in workers))
        finally:
            gc.enable()
        arrivals = sorted(arrival.at for phone in fixtures.expo.phones.values() for arrival in phone.arrived)
        shown = {arrival.message_id for phone in fixtures.expo.phones.values() for arrival in phone.arrived}
        statuses = [request.status for request in fixtures.expo.requests]
    began = arrivals[0] + timedelta(seconds=WARM_UP_SECONDS)
    ended = arrivals[-1] - timedelta(seconds=1)  # At the end some workers have no more jobs, so the rate falls.
    rate = sum(began <= at < ended for at in arrivals) / (ended - began).total_seconds()
    refused = statuses.count(429)
    return Result(
        columns=("workers", "messages", "a second", "share of the limit", "requests", "of them 429", "lost", "twice"),
        rows=[
            (
                *(len(workers), len(messages), rate, rate / LIMIT, len(statuses), refused),
                *(len(messages) - len(shown), len(arrivals) - len(shown)),
            )
        ],
        targets=[
            Target("share of Expo's limit that is used", rate / LIMIT, 0.95, at_least=True),
            Target("messages lost", len(messages) - len(shown), 0),
            Target("share of requests that Expo refuses with 429", refused / len(statuses), 0.01),
        ],
        plot=Plot("workers", ("a second",), "notifications a second; the limit is 600"),
    )


async def _sweep_until_empty(fixtures: Fixtures, worker: Contender) -> None:
    """Sweeps until no push is unfinished, because jobs of another worker may become due again."""
    while await fixtures.unfinished():
        await worker.push([])
