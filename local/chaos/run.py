"""The chaos run: real traffic, an attacker, faults at every border, and then: did every invariant hold?

The same seed makes the same choices, of people and of faults; what happens at the same time differs from run to run.
"""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, LiteralString

import psycopg

from local.app import chat_app
from local.chaos.attacker import hostile
from local.chaos.faults import Faults
from local.chaos.history import keep_history, read_history
from local.chaos.invariants import Verdict, judge
from local.chaos.traffic import Traffic, people
from local.cloud import LocalCloud, local_cloud
from local.types import Json

# So that minutes of faults are seconds. The lease is shorter than a worker may take, against the rule of its comment:
# so one that lives is overtaken by another one, too, and copies must replace each other.
SETTINGS = (
    "update push.settings set presence_fresh_for = '2 seconds', lease_for = '3 seconds', retry_base = '0.2 seconds',"
    " retry_cap = '2 seconds', unanswered_retry_delays = array_fill('0.5 seconds'::interval, array[50]),"
    " fault_retry_base = '0.2 seconds', recipient_share = 1, receipt_after = '1 second',"
    " registration_limit = 100;"  # the attacker alone comes near it
    " update private.chat_settings set message_limit = 1000000"
)
# A receipt whose worker was killed waits longer than a run.
TIME_PASSES = "update push.deliveries set receipt_due_at = clock_timestamp() where receipt_due_at > clock_timestamp()"

SWEEP_SECONDS = 0.7
PROGRESS_SECONDS = 5.0
# A run that takes longer hangs, and ends with TimeoutError.
START_SECONDS, SECONDS_PER_MESSAGE = 90.0, 0.3
DRAIN_SECONDS = 90.0
SHOWN_VIOLATIONS = 5


@dataclass(frozen=True)
class Result:
    """What a run found; `explanations` of messages with violations, by id."""

    seed: int
    messages: int
    seconds: float
    done: Mapping[str, int]
    faults: Mapping[str, int]
    verdicts: list[Verdict]
    explanations: Mapping[str, Json]

    @property
    def ok(self) -> bool:
        """Whether every invariant held."""
        return not any(verdict.violations for verdict in self.verdicts)

    def data(self) -> Json:
        """The result for a program."""
        return {
            "ok": self.ok,
            "seed": self.seed,
            "messages": self.messages,
            "seconds": self.seconds,
            "traffic": dict(self.done),
            "faults": dict(self.faults),
            "invariants": [
                {
                    "invariant": verdict.invariant,
                    "checked": verdict.checked,
                    "violations": [
                        {
                            "message_id": violation.message_id and str(violation.message_id),
                            "what": violation.what,
                            "explain_push": self.explanations.get(str(violation.message_id)),
                        }
                        for violation in verdict.violations
                    ],
                }
                for verdict in self.verdicts
            ],
        }


async def run(cloud: LocalCloud, messages: int, seed: int) -> Result:
    """Traffic and faults in a cloud of its own, until everything is calm again; then the judgement."""
    begun = time.monotonic()
    random = Random(seed)
    await _execute(cloud, SETTINGS)
    await keep_history(cloud)
    async with chat_app(cloud.supabase, cloud.api_url) as app:
        traffic = await people(cloud, app, random, messages)
        faults = Faults(cloud, traffic, random)
        async with hostile(cloud, app, traffic, random) as attacker, _progress(begun, cloud, traffic, faults):
            limit = asyncio.timeout(START_SECONDS + messages * SECONDS_PER_MESSAGE)
            async with _schedules(cloud), limit, asyncio.TaskGroup() as everything:
                everything.create_task(traffic.run())
                everything.create_task(faults.run())
                everything.create_task(attacker.run())
            print("faults stop; what is left is sent", flush=True)
            await _drain(cloud)
    history = await read_history(cloud, traffic.written, attacker.forbidden)
    history.stored |= attacker.accepted
    history.answers, history.outages = attacker.answers, faults.outages
    verdicts = judge(history)
    shown = {str(v.message_id): v.message_id for verdict in verdicts for v in verdict.violations if v.message_id}
    explanations = {name: await cloud.explain_push(message_id) for name, message_id in shown.items()}
    seconds = round(time.monotonic() - begun, 1)
    return Result(seed, messages, seconds, {**traffic.done, **attacker.done}, faults.struck, verdicts, explanations)


@asynccontextmanager
async def _schedules(cloud: LocalCloud) -> AsyncIterator[None]:
    """Sweep and cleanup in quick succession, and failed records of the queue come back soon."""

    async def sweep() -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            await cloud.scheduler.fire("SendChatPushSweep")
            await cloud.poller.return_failed()

    async def clean_up() -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            await cloud.scheduler.fire("CleanupReceiptsRun")

    async with _background(sweep()), _background(clean_up()):
        yield


@asynccontextmanager
async def _progress(begun: float, cloud: LocalCloud, traffic: Traffic, faults: Faults) -> AsyncIterator[None]:
    async def tell() -> None:
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            arrived = sum(len(phone.arrived) for phone in cloud.expo.phones.values())
            print(
                f"{time.monotonic() - begun:4.0f} s: {len(traffic.written)} of {traffic.messages} messages,"
                f" {arrived} pushes arrived, {faults.struck.total()} faults",
                flush=True,
            )

    async with _background(tell()):
        yield


@asynccontextmanager
async def _background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _drain(cloud: LocalCloud) -> None:
    """Until every job is done and every ticket has its receipt. What is not by then, the judgement will name."""
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            await cloud.poller.return_failed()
            await cloud.poller.until_idle()
            while await _is_unfinished(cloud):
                await cloud.scheduler.fire("SendChatPushSweep")
                await _execute(cloud, TIME_PASSES)
                await cloud.scheduler.fire("CleanupReceiptsRun")


async def _is_unfinished(cloud: LocalCloud) -> bool:
    async with await psycopg.AsyncConnection.connect(cloud.database_url) as connection:
        left = await connection.execute(
            "select from push.jobs where state <> 'done'"
            " union all select from push.deliveries where receipt_due_at is not null limit 1"
        )
        return left.rowcount > 0


async def _execute(cloud: LocalCloud, statement: LiteralString) -> None:
    async with await psycopg.AsyncConnection.connect(cloud.database_url) as connection:
        await connection.execute(statement)


def conclude(result: Result, json_file: Path | None) -> int:
    """Prints what a run found, and writes it as data if asked to; 0 if every invariant held."""
    print("\nwhat people did")
    print("".join(f"  {count:6} {name}\n" for name, count in sorted(result.done.items())), end="")
    print("\nfaults")
    print("".join(f"  {count:6} {name}\n" for name, count in result.faults.items()), end="")
    print("\ninvariants     checked  violations")
    for verdict in result.verdicts:
        mark, violations = "✗" if verdict.violations else "✓", len(verdict.violations)
        print(f"  {mark} {verdict.checked:18} {violations:11}  {verdict.invariant}")
        for violation in verdict.violations[:SHOWN_VIOLATIONS]:
            print(f"      {violation.message_id or ''} {violation.what}")
            print(f"      {json.dumps(result.explanations.get(str(violation.message_id)))}")
    found = "every invariant held" if result.ok else "VIOLATIONS, see above"
    print(f"\n{result.messages} messages in {result.seconds} s: {found}")
    print(f"the same choices again: ./dev chaos --messages {result.messages} --seed {result.seed}")
    if json_file:
        json_file.write_text(json.dumps(result.data(), indent=2) + "\n")
        print(f"as data: {json_file}")
    return 0 if result.ok else 1


async def chaos(messages: int, seed: int | None, json_file: Path | None) -> int:
    """A run in a fresh local cloud; the exit code."""
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    print(f"{messages} messages, seed {seed}", flush=True)
    # That invocations fail and connections break off is no news here.
    logging.getLogger("local").setLevel(logging.ERROR)
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    async with local_cloud() as cloud:
        try:
            result = await run(cloud, messages, seed)
        except TimeoutError:
            print(f"the run hangs: ./dev chaos --messages {messages} --seed {seed}")
            return 1
    return conclude(result, json_file)
