"""Throughput of one worker with a backlog of 5,000 messages.

Expo answers after 100 ms. Each request to the database is delayed by 10 ms and then does its real work. Chat Push
drains a backlog in two ways: by its sweep, which claims a hundred jobs at a time, and from the queue in batches of ten,
as SQS delivers them. Both are sequential invocations in one process. The baselines receive the same batches of ten.
They would need a quarter of an hour, so each sends a sample. The rate of the sample stands for the whole backlog,
because it does not depend on the number of waiting messages. Each message has a conversation of its own, so that all
contenders send the same number of pushes. Only in the last row, 10 messages share a conversation: Chat Push sends one
push for them, and the baselines would send ten.
"""

import time

from bench.fixtures import Fixtures, Message, start_fixtures
from bench.report import Plot, Result, Target

BACKLOG, BATCH = 5000, 10
SAMPLES = {"sequential": 60, "parallel": 60, "node": 400}
QUEUE_SAMPLE = 1000


async def run() -> Result:
    """Messages a second of one worker of each contender."""
    async with start_fixtures() as fixtures:
        fixtures.database.delay_seconds = 0.01
        fixtures.expo.configure({"latency_seconds": 0.1})
        rates = {"chat push, sweep": (BACKLOG, await _sweep(fixtures, rooms=BACKLOG))}
        rates["chat push, queue"] = (QUEUE_SAMPLE, await _batches(fixtures, "chat push", QUEUE_SAMPLE))
        for name, sample in SAMPLES.items():
            rates[name] = (sample, await _batches(fixtures, name, sample))
        rates["chat push, sweep of 500 conversations"] = (BACKLOG, await _sweep(fixtures, rooms=500))
    sequential, node, ours = (rates[name][1] for name in ("sequential", "node", "chat push, sweep"))
    return Result(
        columns=("contender", "messages sent", "messages a second", "x sequential", "seconds for 5,000"),
        rows=[(name, sent, rate, rate / sequential, BACKLOG / rate) for name, (sent, rate) in rates.items()],
        targets=[
            Target("sweep / sequential", ours / sequential, 10, at_least=True),
            Target("sweep / node", ours / node, 3, at_least=True),
        ],
        plot=Plot("contender", ("messages a second",), "messages a second, one worker", log=True),
        notes=(
            "Baselines: seconds for 5,000 are extrapolated from their sample.",
            "expo-server-sdk for Node keeps at most six requests under way: a batch of ten goes out in two waves.",
        ),
    )


async def _sweep(fixtures: Fixtures, rooms: int) -> float:
    async with fixtures.contender("chat push") as contender:
        await contender.push(await fixtures.write(1))
        await fixtures.write(BACKLOG, rooms)
        began = time.perf_counter()
        while await fixtures.unfinished():
            await contender.push([])
        taken = time.perf_counter() - began
    await fixtures.clear()
    return BACKLOG / taken


async def _batches(fixtures: Fixtures, name: str, sample: int) -> float:
    async with fixtures.contender(name) as contender:
        await contender.push(await fixtures.write(1))
        messages: list[Message] = await fixtures.write(sample, rooms=sample)
        began = time.perf_counter()
        for first in range(0, sample, BATCH):
            await contender.push(messages[first : first + BATCH])
        taken = time.perf_counter() - began
    shown = sum(len(phone.arrived) for phone in fixtures.expo.phones.values())
    assert shown == sample + 1, f"{name} sent {shown} of {sample + 1}"
    await fixtures.clear()
    return sample / taken
