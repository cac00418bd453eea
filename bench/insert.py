"""Cost of our triggers for the insert of a message.

pgbench inserts messages over 8 connections, alternately into chat_messages and into two tables with the same columns,
indexes, foreign keys, policies and 100,000 rows: a bare one, and one with the trigger that Supabase recommends for apps
that want events, which sends each row to both people. The targets compare with the latter, because our table sends
events, too. Each message goes to one of 10,000 conversations. "backend" is the
insert alone. "app" is the transaction that PostgREST makes for a signed-in user, where the policies and the limit
against spam apply too. The webhook is not configured, because it is optional and pg_net is only a stand-in here.
Postgres does not wait for its disk (fsync is off), which would add the same time to both. The first inserts of each
connection make its plans. They are left out, because pools keep connections.
"""

from pathlib import Path
from statistics import fmean, median

from bench.load import GUIDES, ROOMS, SQL, connect, copy_with_messages, create_database_with_devices, quiet_postgres
from bench.report import Cell, Plot, Result, Target, percentiles
from local.processes import run as run_program
from local.processes import temporary_folder
from local.supabase.postgres import Postgres

ROUNDS, SECONDS, CONNECTIONS = 7, 2, 8
FIRST = 50  # the first inserts of each connection, which are left out
TABLES = {"bare": "bench.bare_messages", "with events": "bench.event_messages", "ours": "public.chat_messages"}
INSERT = f"""
\\set number random(1, {ROOMS})
\\set person {GUIDES} + :number
{{before}}
insert into {{table}} (room_id, sender_id, message, client_msg_id) values (
  md5('room' || :number)::uuid, md5('person' || :person)::uuid, 'Where shall we meet?', gen_random_uuid()::text);
{{after}}
"""
BECOME = """
begin;
select set_config('role', 'authenticated', true), set_config('request.jwt.claims',
  json_build_object('role', 'authenticated', 'sub', md5('person' || :person)::uuid)::text, true);
"""
CALLERS = {"backend": ("", ""), "app": (BECOME, "commit;")}


async def run() -> Result:
    """Inserts per second and their latency, into each of TABLES, and how they compare with the bare table."""
    latencies: dict[tuple[str, str], list[float]] = {(caller, table): [] for caller in CALLERS for table in TABLES}
    means: dict[tuple[str, str], list[float]] = {(caller, table): [] for caller in CALLERS for table in TABLES}
    async with quiet_postgres() as server:
        database = await copy_with_messages(server, await create_database_with_devices(server), 100_000)
        async with await connect(server.dsn(database)) as connection:
            await connection.execute((SQL / "bare.sql").read_bytes())
            await connection.execute("vacuum (analyze) bench.bare_messages, bench.event_messages")
        with temporary_folder() as folder:
            for number in range(ROUNDS + 1):  # the first one warms up
                print(f"round {number} of {ROUNDS}", flush=True)
                for caller in CALLERS:
                    taken = {table: await _pgbench(server, database, caller, table, folder) for table in TABLES}
                    if number:
                        for table, milliseconds in taken.items():
                            latencies[caller, table] += milliseconds
                            means[caller, table].append(fmean(milliseconds))
    rows: list[tuple[Cell, ...]] = []
    for (caller, table), milliseconds in latencies.items():
        per_second = round(CONNECTIONS / fmean(milliseconds) * 1000)
        times_bare = _ratio(means[caller, table], means[caller, "bare"])
        rows.append((f"{caller}, {table}", per_second, *percentiles(milliseconds), times_bare))
    return Result(
        columns=("insert", "a second", "p50 ms", "p95 ms", "p99 ms", "times bare"),
        rows=rows,
        targets=[
            Target(
                f"time of an insert ÷ with events, {caller}, median of {ROUNDS} rounds",
                _ratio(means[caller, "ours"], means[caller, "with events"]),
                2,
            )
            for caller in CALLERS
        ],
        plot=Plot("insert", ("p50 ms", "p99 ms"), "milliseconds"),
    )


def _ratio(ours: list[float], others: list[float]) -> float:
    """The median over the rounds, because the machine is noisy."""
    return median(one / other for one, other in zip(ours, others, strict=True))


async def _pgbench(server: Postgres, database: str, caller: str, table: str, folder: Path) -> list[float]:
    """Runs a round of pgbench. Returns the milliseconds of each transaction."""
    before, after = CALLERS[caller]
    script = folder / "insert.sql"
    script.write_text(INSERT.format(table=TABLES[table], before=before, after=after))
    await run_program(
        "pgbench",
        server.bin / "pgbench",
        *("--no-vacuum", "--protocol=prepared", f"--client={CONNECTIONS}", f"--time={SECONDS}", f"--file={script}"),
        *("--log", f"--log-prefix={folder / 'transactions'}", server.dsn(database)),
        folder=folder,
    )
    return _logged(folder)


def _logged(folder: Path) -> list[float]:
    """Reads and removes pgbench's log. Returns the milliseconds of each transaction without the FIRST ones."""
    [log] = folder.glob("transactions.*")
    transactions = [line.split() for line in log.read_text().splitlines()]  # connection, its number there, microseconds
    log.unlink()
    return [int(microseconds) / 1000 for _, number, microseconds, *_ in transactions if int(number) > FIRST]
