"""Times of statements over many messages of one conversation, with 5,000 and with 20,000 messages.

Each statement runs for 5,000 and for 20,000 messages of a new conversation. Both run in one session, which planned the
same statement for a single message before, as a session of a pool may have, and without statistics from autovacuum.
100,000 messages are in other conversations. The times are those of the statement alone, in milliseconds.
"""

import time
from statistics import median
from uuid import UUID, uuid4

from psycopg.types.json import Jsonb

from bench.load import Connection, connect, copy_with_messages, create_database_with_devices, quiet_postgres
from bench.report import Cell, Plot, Result, Target

FEW, MANY, ROUNDS = 5_000, 20_000, 3

IMPORT = (
    "insert into public.chat_messages (room_id, sender_id, message, is_read)"
    " select %(room)s, %(sender)s, 'Hello', %(is_read)s from generate_series(1, %(number)s)"
)
DELIVER = (
    "select public.mark_messages_delivered(%(recipient)s,"
    " array(select id from public.chat_messages where room_id = %(room)s))"
)
READ = "select public.mark_messages_read(%(recipient)s, %(room)s)"
UPSERT = (
    "insert into public.message_receipts (message_id, user_id, read_at)"
    " select id, %(recipient)s, now() from public.chat_messages where room_id = %(room)s"
    " on conflict (message_id, user_id) do update set read_at = excluded.read_at"
)
EDIT = "update public.chat_messages set message = 'Edited' where room_id = %(room)s"
SOFT_DELETE = "update public.chat_messages set deleted_at = now() where room_id = %(room)s"
HARD_DELETE = "delete from public.chat_messages where room_id = %(room)s"

# Statements that run in one conversation, in this order: name, caller, statement.
SEQUENCES = (
    (("import", "backend", IMPORT), ("soft delete", "sender", SOFT_DELETE)),
    (("import", "backend", IMPORT), ("mark_messages_read", "recipient", READ), ("edit", "sender", EDIT)),
    (
        ("import", "backend", IMPORT),
        ("mark_messages_delivered", "recipient", DELIVER),
        ("mark_messages_read after delivery", "recipient", READ),
        ("hard delete", "backend", HARD_DELETE),
    ),
    (("import", "backend", IMPORT), ("upsert of receipts", "recipient", UPSERT)),
    (("import of read messages", "backend", IMPORT),),
)

type Times = dict[str, dict[int, list[float]]]


async def run() -> Result:
    """The milliseconds of each statement at both sizes, and their ratio."""
    times: Times = {name: {FEW: [], MANY: []} for sequence in SEQUENCES for name, _, _ in sequence}
    async with quiet_postgres() as server:
        database = await copy_with_messages(server, await create_database_with_devices(server), 100_000)
        async with await connect(server.dsn(database)) as connection:
            for number in range(ROUNDS):
                print(f"round {number + 1} of {ROUNDS}", flush=True)
                for messages in (1, FEW, MANY):
                    for sequence in SEQUENCES:
                        await _run_sequence(connection, sequence, messages, times)
    rows: list[tuple[Cell, ...]] = []
    targets = []
    for name, taken in times.items():
        few, many = median(taken[FEW]), median(taken[MANY])
        rows.append((name, few, many, many / few))
        targets.append(Target(f"{name}: time of {MANY:,} ÷ time of {FEW:,}", many / few, 1.5 * MANY / FEW))
    return Result(
        columns=("statement", "5,000 ms", "20,000 ms", "20,000 ÷ 5,000"),
        rows=rows,
        targets=targets,
        plot=Plot("statement", ("5,000 ms", "20,000 ms"), "milliseconds"),
    )


async def _run_sequence(
    connection: Connection, sequence: tuple[tuple[str, str, str], ...], messages: int, times: Times
) -> None:
    """Runs the statements in a new conversation, each in its own transaction, and records their times."""
    people = {"sender": uuid4(), "recipient": uuid4()}
    room = uuid4()
    for person in people.values():
        await connection.execute("insert into auth.users (id) values (%s)", (person,))
        await connection.execute("insert into public.users (id) values (%s)", (person,))
    await connection.execute(
        "insert into public.chat_rooms (id, user1_id, user2_id) values (%s, %s, %s)", (room, *people.values())
    )
    for name, caller, statement in sequence:
        names = {**people, "room": room, "number": messages, "is_read": name == "import of read messages"}
        milliseconds = await _perform(connection, people.get(caller), statement, names)
        if messages in times[name]:
            times[name][messages].append(milliseconds)
    await connection.execute("delete from public.chat_messages where room_id = %s", (room,))


async def _perform(connection: Connection, person: UUID | None, statement: str, names: dict[str, object]) -> float:
    """Runs a statement as a signed-in user, or as a backend if `person` is None. Returns the milliseconds."""
    role = "authenticated" if person else "service_role"
    claims = Jsonb({"sub": str(person), "role": role}) if person else ""
    async with connection.transaction():
        await connection.execute(
            "select set_config('role', %s, true), set_config('request.jwt.claims', %s::text, true)", (role, claims)
        )
        began = time.perf_counter()
        await connection.execute(statement.encode(), names)
        return (time.perf_counter() - began) * 1000
