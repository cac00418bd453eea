"""Throughput of one worker with a backlog of 5,000 messages to phones of FCM, and to phones of APNs.

FCM and APNs answer after 100 ms. Each message has a conversation and a phone of its own. Chat Push drains the backlog
by its sweep, which claims a hundred jobs at a time, and from the queue in batches of ten, as SQS delivers them. Each
request to its database is delayed by 10 ms and then does its real work. The official and popular clients have no
database: they get tokens and texts, in the same batches of ten, and all 5,000 at once. The sender of Chat Push gets all
at once, too, without a database. It is the code that the first two rows use. The fakes of FCM and APNs run in a process
of their own, on the same processors.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from bench.drain import BACKLOG, BATCH
from bench.fixtures import BENCH, Contender, Fixtures, Message, running, start_fixtures
from bench.push_services import push_token
from bench.report import Plot, Result, Target
from local.packages import node

QUEUE_SAMPLE, BATCHES_SAMPLE, SLOW_SAMPLE = 500, 500, 200
type Row = tuple[str, str, int, float, float, float, float]

PHONES = BACKLOG + 1  # one for the first, which is not counted

CLIENTS = {
    "fcm": {"firebase-admin, send_each_async": [sys.executable, str(BENCH / "baselines" / "firebase.py")]},
    "apns": {
        "aioapns": [sys.executable, str(BENCH / "baselines" / "aioapns_client.py")],
        "@parse/node-apn": [str(node()), str(BENCH / "baselines" / "node_apn.mjs")],
    },
}


@dataclass(frozen=True)
class Service:
    """The running fake of a provider, and what it printed."""

    provider: str
    process: asyncio.subprocess.Process
    fields: Mapping[str, Any]

    async def arrived(self) -> int:
        """How many notifications arrived since the last call."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(b"\n")
        return int(await self.process.stdout.readline())

    @property
    def secret(self) -> dict[str, str]:
        """Its fields of the backend secret."""
        if self.provider == "fcm":
            return {"fcm_service_account": json.dumps(self.fields["service_account"])}
        return {
            "apns_key": self.fields["key"],
            "apns_key_id": self.fields["key_id"],
            "apns_team_id": self.fields["team_id"],
            "apns_topic": self.fields["topic"],
        }

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables of a contender."""
        authority, url = self.fields["authority"], self.fields["url"]
        urls = {"FCM_URL": url} if self.provider == "fcm" else {"APNS_URL": url, "APNS_SANDBOX_URL": url}
        return {"SSL_CERT_FILE": authority, "REQUESTS_CA_BUNDLE": authority, **urls}


async def run() -> Result:
    """Messages a second of one worker of each contender, by provider."""
    rows: list[Row] = []
    async with start_fixtures() as fixtures:
        fixtures.database.delay_seconds = 0.01
        for provider in CLIENTS:
            async with _service(provider) as service:
                await _use(fixtures, service)
                rows += [row async for row in _measure(fixtures, service)]
            await _forget_phones(fixtures)
    return Result(
        columns=(
            *("contender", "batch", "messages sent", "messages a second", "seconds for 5,000"),
            *("processor ms a message", "of the fake"),
        ),
        rows=list(rows),
        targets=[target for provider in CLIENTS for target in _targets(provider, rows)],
        plot=Plot("contender", ("messages a second",), "messages a second, one worker", log=True),
        notes=(
            "All at once, the sender of Chat Push does not reach three times the best client. It sends a hundred at a "
            "time, because a claim has no more jobs. FCM takes 100 requests at once on a connection. At 100 ms this "
            "is at most 1,000 a second of one worker. Further workers have connections of their own.",
            "Where fewer than 5,000 were sent, the seconds for 5,000 are extrapolated from the sample.",
            "aioapns has two requests under way on a connection: when the stream limit rises from 1 to 1,000, as that "
            "of APNs does after the first valid token, its semaphore ends at 2. More connections fail: it opens many "
            "streams at once on a new one. node-apn has one connection for the same reason.",
        ),
    )


def _targets(provider: str, rows: list[Row]) -> Iterator[Target]:
    """The sweep against the fastest client that gets batches of ten, as the queue delivers them."""
    rates = {(name, batch): rate for name, batch, _, rate, *_ in rows}
    best = max(rates[f"{provider}: {name}", "ten"] for name in CLIENTS[provider])
    yield Target(f"{provider}: sweep / best client", rates[f"{provider}: chat push, sweep", "hundred"] / best, 3, True)


class Meter:
    """Measures the time and the processor time of a contender and of the fake."""

    def __init__(self, service: Service, contender: Contender) -> None:
        self._service = service
        self._pids = contender.process.pid, service.process.pid
        self._began = time.perf_counter()
        self._used = [_processor_seconds(pid) for pid in self._pids]

    def row(self, name: str, batch: str, sent: int) -> Row:
        """The row of so many messages since the beginning."""
        rate = sent / (time.perf_counter() - self._began)
        used = [
            (_processor_seconds(pid) - before) * 1000 / sent for pid, before in zip(self._pids, self._used, strict=True)
        ]
        return (f"{self._service.provider}: {name}", batch, sent, rate, BACKLOG / rate, used[0], used[1])


def _processor_seconds(pid: int) -> float:
    """See proc_pid_stat(5): utime and stime."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


async def _measure(fixtures: Fixtures, service: Service) -> AsyncIterator[Row]:
    provider = service.provider
    async with fixtures.contender("chat push", service.variables) as contender:
        await contender.push(await _write(fixtures, provider, 1))
        await _write(fixtures, provider, BACKLOG)
        meter = Meter(service, contender)
        while await fixtures.unfinished():
            await contender.push([])
        yield meter.row("chat push, sweep", "hundred", BACKLOG)
        await _check(service, "chat push", BACKLOG + 1)
        await fixtures.clear()
        messages = await _write(fixtures, provider, QUEUE_SAMPLE)
        meter = Meter(service, contender)
        await _push(contender, messages, BATCH)
        yield meter.row("chat push, queue", "ten", QUEUE_SAMPLE)
        await _check(service, "chat push", QUEUE_SAMPLE)
        await fixtures.clear()
    function = fixtures.template.functions["SendChatPush"]
    layers = ":".join(str(path) for path in (*(layer / "python" for layer in function.layers), fixtures.build.runtime))
    sender = [sys.executable, "-P", str(BENCH / "workers" / "sender.py")]
    for name, command in {"chat push, sender alone": sender, **CLIENTS[provider]}.items():
        environment = {**os.environ, **service.variables, **({"PYTHONPATH": layers} if command is sender else {})}
        log = name.replace("/", "-")
        arguments = [*command, json.dumps(service.fields)]
        async with running(log, arguments, environment, fixtures.folder) as client:
            tokens = [{"token": push_token(provider, number), "message": _TEXT} for number in range(PHONES)]
            await client.push(tokens[-1:])
            if command is not sender:
                meter = Meter(service, client)
                await _push(client, tokens[:BATCHES_SAMPLE], BATCH)
                yield meter.row(name, "ten", BATCHES_SAMPLE)
            all_at_once = SLOW_SAMPLE if name == "aioapns" else BACKLOG
            meter = Meter(service, client)
            await client.push(tokens[:all_at_once])
            yield meter.row(name, "all", all_at_once)
        await _check(service, name, all_at_once + 1 + (0 if command is sender else BATCHES_SAMPLE))


_TEXT = "Shall we meet at gate 1234 at half past nine?"


async def _push(contender: Contender, messages: list[Message], size: int) -> None:
    for first in range(0, len(messages), size):
        await contender.push(messages[first : first + size])


async def _check(service: Service, name: str, sent: int) -> None:
    arrived = await service.arrived()
    assert arrived == sent, f"{name} sent {sent}, {arrived} arrived"


async def _use(fixtures: Fixtures, service: Service) -> None:
    """Gives Chat Push the credentials of this provider alone, as after ./dev secrets put."""
    secret = {"supabase_secret_key": fixtures.supabase.secret_key, **service.secret}
    await fixtures.aws.put_secret(fixtures.template.secrets["BackendSecret"].name, secret)


async def _write(fixtures: Fixtures, provider: str, number: int) -> list[Message]:
    """Inserts messages, each in a conversation of its own, to phones of this provider."""
    messages = await fixtures.write(number, rooms=number)
    tokens = [push_token(provider, phone) for phone in range(PHONES)]
    async with await psycopg.AsyncConnection.connect(fixtures.postgres.dsn()) as connection:
        await connection.execute(_MOVE, {"provider": provider, "tokens": tokens})
    return messages


_MOVE = """
with numbered as (
  select id, row_number() over (order by id) + (select count(*) from public.user_devices where push_provider <> 'expo')
    as number
  from public.user_devices where push_provider = 'expo'
)
update public.user_devices device
set push_provider = %(provider)s::text, platform = case %(provider)s::text when 'fcm' then 'android' else 'ios' end,
  push_token = (%(tokens)s::text[])[number]
from numbered where numbered.id = device.id
"""


async def _forget_phones(fixtures: Fixtures) -> None:
    async with await psycopg.AsyncConnection.connect(fixtures.postgres.dsn()) as connection:
        await connection.execute(
            "update public.user_devices set push_provider = 'expo', push_token = 'ExponentPushToken[' || id || ']'"
        )


@asynccontextmanager
async def _service(provider: str) -> AsyncIterator[Service]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.push_services", provider, str(PHONES)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout
        yield Service(provider, process, json.loads(await process.stdout.readline()))
    finally:
        process.kill()
        await process.wait()
