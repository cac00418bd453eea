"""The chaos run: traffic, an attacker and faults at the same time. Then it checks every invariant.

The same seed makes the same random choices. Their timing differs from run to run.
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
from local.chaos.attacker import new_attacker
from local.chaos.attacks import ATTACKS
from local.chaos.faults import Faults
from local.chaos.history import read_history, record_history
from local.chaos.invariants import Verdict, check_invariants
from local.chaos.older_database import age_database
from local.chaos.traffic import Traffic, sign_up_users
from local.cloud import LocalCloud, local_cloud
from local.types import Json

# The waits of a run are seconds instead of minutes. The lease is shorter than an invocation may take, against the
# comment of the column: so two workers may send the same push, and one copy must replace the other.
SETTINGS = (
    "update push.settings set presence_fresh_for = '2 seconds', lease_for = '3 seconds', retry_base = '0.2 seconds',"
    " retry_cap = '2 seconds', unanswered_retry_delays = array_fill('0.5 seconds'::interval, array[50]),"
    " fault_retry_base = '0.2 seconds', recipient_share = 1, receipt_after = '1 second',"
    " read_delay = '0.2 seconds', edit_delay = '0.1 seconds', sound_interval = '5 seconds',"
    " dismissals_per_hour = 1000000, registration_limit = 100;"  # only the attacker comes near it
    " update private.chat_settings set message_limit = 1000000"
)
# A receipt whose worker was killed would be due long after the run.
RECEIPTS_DUE = "update push.deliveries set receipt_due_at = clock_timestamp() where receipt_due_at > clock_timestamp()"

SWEEP_SECONDS = 0.7
PROGRESS_SECONDS = 5.0
# A run that takes longer hangs and is ended.
START_SECONDS, SECONDS_PER_MESSAGE = 240.0, 0.3
DRAIN_SECONDS = 90.0
SHOWN_VIOLATIONS = 5


@dataclass(frozen=True)
class Result:
    """The result of a run. `explanations`: what explain_push says of messages with violations, by id."""

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
        """The result as JSON."""
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
    """Runs traffic and faults in a cloud of its own, sends what is left, and checks the invariants."""
    begun = time.monotonic()
    random = Random(seed)
    await _execute(cloud, SETTINGS)
    await record_history(cloud)
    async with chat_app(cloud.supabase, cloud.api_url) as app:
        traffic = await sign_up_users(cloud, app, random, messages)
        await age_database(cloud, traffic.actors[0].person.id)
        faults = Faults(cloud, traffic, random)
        async with new_attacker(cloud, app, traffic, random) as attacker, _progress(begun, cloud, traffic, faults):
            limit = asyncio.timeout(START_SECONDS + messages * SECONDS_PER_MESSAGE)
            async with _schedules(cloud), limit, asyncio.TaskGroup() as tasks:
                tasks.create_task(traffic.run())
                tasks.create_task(faults.run())
                tasks.create_task(attacker.run(ATTACKS))
            print("The faults have stopped. Pushes and receipts that are left are processed.", flush=True)
            await traffic.settle()
            await _drain(cloud)
    history = await read_history(cloud, traffic.written, attacker.forbidden, traffic.were_off)
    history.stored |= attacker.accepted
    history.answers, history.outages = attacker.answers, faults.outages
    verdicts = check_invariants(history)
    violated = {v.message_id for verdict in verdicts for v in verdict.violations if v.message_id}
    explanations = {str(message_id): await cloud.explain_push(message_id) for message_id in violated}
    seconds = round(time.monotonic() - begun, 1)
    return Result(seed, messages, seconds, {**traffic.done, **attacker.done}, faults.struck, verdicts, explanations)


@asynccontextmanager
async def _schedules(cloud: LocalCloud) -> AsyncIterator[None]:
    """Runs sweep and cleanup in quick succession, and returns failed records to the queue soon."""

    async def sweep() -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            await cloud.sweep()
            await cloud.poller.return_failed()

    async def clean_up() -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            await cloud.scheduler.fire("CleanupReceiptsRun")

    async with _background(sweep()), _background(clean_up()):
        yield


@asynccontextmanager
async def _progress(begun: float, cloud: LocalCloud, traffic: Traffic, faults: Faults) -> AsyncIterator[None]:
    async def print_progress() -> None:
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            arrived = sum(len(phone.arrived) for phone in cloud.phones.values())
            print(
                f"{time.monotonic() - begun:4.0f} s: {len(traffic.written)} of {traffic.messages} messages,"
                f" {arrived} pushes arrived, {faults.struck.total()} faults",
                flush=True,
            )

    async with _background(print_progress()):
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
    """Waits until every job is done and every ticket has its receipt. After a timeout the invariants name the rest."""
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            await cloud.poller.return_failed()
            await cloud.poller.until_idle()
            while await _has_unfinished_work(cloud):
                await cloud.sweep()
                await _execute(cloud, RECEIPTS_DUE)
                await cloud.scheduler.fire("CleanupReceiptsRun")


async def _has_unfinished_work(cloud: LocalCloud) -> bool:
    async with await psycopg.AsyncConnection.connect(cloud.database_url) as connection:
        left = await connection.execute(
            "select from push.jobs where state <> 'idle' and next_attempt_at is distinct from expires_at"
            " union all select from push.deliveries where receipt_due_at is not null limit 1"
        )
        return left.rowcount > 0


async def _execute(cloud: LocalCloud, statement: LiteralString) -> None:
    async with await psycopg.AsyncConnection.connect(cloud.database_url) as connection:
        await connection.execute(statement)


def report(result: Result, json_file: Path | None) -> int:
    """Prints the result, and writes it as JSON if a file is given. Returns 0 if every invariant held, else 1."""
    print("\nactions of the users and the attacker")
    print("".join(f"  {count:6} {name}\n" for name, count in sorted(result.done.items())), end="")
    print("\nfaults")
    print("".join(f"  {count:6} {name}\n" for name, count in result.faults.items()), end="")
    print("\n    checked  violations  invariant")
    for verdict in result.verdicts:
        mark, violations = "✗" if verdict.violations else "✓", len(verdict.violations)
        print(f"  {mark} {verdict.checked:7} {violations:11}  {verdict.invariant}")
        for violation in verdict.violations[:SHOWN_VIOLATIONS]:
            print(f"      {violation.message_id or ''} {violation.what}")
            print(f"      {json.dumps(result.explanations.get(str(violation.message_id)))}")
    found = "every invariant held" if result.ok else "INVARIANTS VIOLATED, see above"
    print(f"\n{result.done['messages written']} messages in {result.seconds} s: {found}")
    print("docs/architecture.md#invariants explains each invariant.")
    print(f"To repeat the random choices: ./dev chaos --messages {result.messages} --seed {result.seed}")
    if json_file:
        json_file.write_text(json.dumps(result.data(), indent=2) + "\n")
        print(f"JSON: {json_file}")
    return 0 if result.ok else 1


async def chaos(messages: int, seed: int | None, json_file: Path | None) -> int:
    """Runs chaos in a new local cloud. Returns the exit code."""
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    print(f"{messages} messages, seed {seed}", flush=True)
    # Failed invocations and broken connections are expected here.
    logging.getLogger("local").setLevel(logging.ERROR)
    for library in ("aiohttp.server", "chat_client", "realtime"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    async with local_cloud(direct=True) as cloud:
        try:
            result = await run(cloud, messages, seed)
        except TimeoutError:
            print(f"The run hangs. To repeat it: ./dev chaos --messages {messages} --seed {seed}")
            return 1
    return report(result, json_file)
