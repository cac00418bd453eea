"""Requests to the database and to Expo per message, in batches of 1, 10 and 100 messages.

The requests are counted on the wire, between each contender and the local Data API and fake Expo. tests/functions
asserts the counts of Chat Push: one claim, one send and one record for each batch.
"""

from bench.fixtures import start_fixtures
from bench.report import Plot, Result, Target

BATCHES = (1, 10, 100)
COUNTED = ("chat push", "sequential", "parallel", "node")


async def run() -> Result:
    """Requests of a batch, by contender and size of the batch."""
    rows: list[tuple[str, int, int, int, float]] = []
    async with start_fixtures() as fixtures:
        for name in COUNTED:
            async with fixtures.contender(name) as contender:
                await contender.push(await fixtures.write(1, max(BATCHES)))  # not counted: connecting and warming up
                for size in BATCHES:
                    messages = await fixtures.write(size, max(BATCHES))
                    fixtures.database.requests = 0
                    fixtures.expo.requests.clear()
                    await contender.push(messages)
                    database, expo = fixtures.database.requests, len(fixtures.expo.requests)
                    rows.append((f"{name}, batch of {size}", size, database, expo, (database + expo) / size))
    ours = [row for row in rows if row[0].startswith("chat push")]
    return Result(
        columns=("contender", "messages", "database requests", "Expo requests", "requests a message"),
        rows=list(rows),
        targets=[
            target
            for _, size, database, expo, _ in ours
            for target in (
                Target(f"database requests for a batch of {size}", database, 2),
                Target(f"Expo requests for a batch of {size}", expo, 1),
            )
        ],
        plot=Plot("contender", ("requests a message",), "requests a message"),
    )
