"""What the benchmarks of the functions share: a local cloud without webhook, conversations, and the contenders."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import aiohttp
import psycopg
from aiohttp import web

from local.aws.build import Build, built
from local.aws.lambda_runtime import LambdaFunction, lambda_function
from local.aws.services import Aws, aws
from local.aws.template import Function, Template, read_template
from local.http_server import serving
from local.packages import node
from local.processes import temporary_folder
from local.providers.expo.service import expo_service
from local.providers.expo.state import ExpoService
from local.supabase.postgres import Postgres, postgres
from local.supabase.project import Supabase, supabase

BENCH = Path(__file__).parent
CONTENDERS = ("floor", "chat push", "parallel", "node", "sequential")

type Message = dict[str, str]


@dataclass(frozen=True)
class Fixtures:
    """The running services that a function calls. No webhook and no schedule invokes a function."""

    folder: Path
    build: Build
    postgres: Postgres
    supabase: Supabase
    aws: Aws
    expo: ExpoService
    database: "DelayedDatabase"
    template: Template  # its functions use the Data API through `database`

    @asynccontextmanager
    async def function(
        self, function: Function, environment: Mapping[str, str] | None = None
    ) -> AsyncIterator[LambdaFunction]:
        """Runs a function under the Runtime Interface Emulator. Its process starts with the first invocation."""
        environment = {**self.aws.environment, **(environment or {})}
        async with lambda_function(
            function, runtime=self.build.runtime, environment=environment, folder=self.folder
        ) as running:
            yield running

    async def write(self, count: int, rooms: int = 1) -> list[Message]:
        """Inserts messages, evenly spread over `rooms` conversations. Each recipient has one phone."""
        async with await psycopg.AsyncConnection.connect(self.postgres.dsn(), autocommit=True) as connection:
            known = (await connection.execute("select from public.chat_rooms limit %s", (rooms,))).rowcount
            tokens = [f"ExponentPushToken[{uuid4()}]" for _ in range(known, rooms)]
            await connection.execute(_NEW_ROOMS, (tokens,))
            for number, token in enumerate(tokens, known):
                self.expo.install(token, "android" if number % 2 else "ios")
            known_rooms = await (await connection.execute(_ROOMS, (rooms,))).fetchall()
            messages = [
                {
                    "id": str(uuid4()),
                    "room_id": str(room),
                    "sender_id": str(sender),
                    "recipient_id": str(recipient),
                    "message": f"Shall we meet at gate {number} at half past nine?",
                }
                for number, (room, sender, recipient) in zip(
                    range(count), known_rooms * (count // rooms + 1), strict=False
                )
            ]
            async with connection.cursor() as cursor:
                await cursor.executemany(_MESSAGE, messages)
        return messages

    async def unfinished(self) -> int:
        """The number of pushes that were not sent yet."""
        async with await psycopg.AsyncConnection.connect(self.postgres.dsn()) as connection:
            answer = await connection.execute(
                "select from public.chat_messages message"
                " left join push.decisions decision on decision.message_id = message.id"
                " where outcome is distinct from 'accepted'"
            )
            return answer.rowcount

    async def clear(self) -> None:
        """Deletes all messages and their jobs, and what the phones and Expo recorded."""
        async with await psycopg.AsyncConnection.connect(self.postgres.dsn()) as connection:
            await connection.execute("delete from public.chat_messages")
            await connection.execute("delete from push.jobs")
        self.expo.requests.clear()
        for phone in self.expo.phones.values():
            phone.clear()

    @asynccontextmanager
    async def contender(self, name: str, variables: Mapping[str, str] | None = None) -> AsyncIterator["Contender"]:
        """Runs one of CONTENDERS in a process of its own. Its clients are warm after the first batch.

        `variables`: further environment variables.
        """
        baseline = (
            *("--supabase-url", self.database.url, "--secret-key", self.supabase.secret_key),
            *("--expo-url", self.expo.url),
        )
        environment = dict(os.environ)
        match name:
            case "floor" | "chat push":
                # As on Lambda, only the function, its layers and Lambda's own packages are on the path.
                function = self.template.functions["SendChatPush"]
                path = [function.folder, *(layer / "python" for layer in function.layers), self.build.runtime]
                environment = {
                    **function.environment,
                    **self.aws.environment,
                    "SUPABASE_SECRET_KEY": self.supabase.secret_key,
                    "PYTHONPATH": ":".join(map(str, path)),
                    "PYTHONDONTWRITEBYTECODE": "1",
                }
                script = BENCH / "workers" / ("floor.py" if name == "floor" else "function.py")
                command = [sys.executable, "-S", "-P", str(script)]
            case "node":
                command = [str(node()), str(BENCH / "baselines" / "node.mjs"), *baseline]
            case _:
                command = [sys.executable, str(BENCH / "baselines" / f"{name}.py"), *baseline]
        async with running(name, command, environment | (dict(variables) if variables else {}), self.folder) as process:
            yield process


@dataclass(frozen=True)
class Contender:
    """A running process that sends a push for each message it receives."""

    name: str
    process: asyncio.subprocess.Process
    log: Path

    async def push(self, messages: list[Message]) -> None:
        """Sends the pushes of the messages. Raises RuntimeError with the log if the process ended."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(messages).encode() + b"\n")
        if await self.process.stdout.readline() != b"done\n":
            raise RuntimeError(f"{self.name} ended:\n{self.log.read_text()[-3000:]}")


@asynccontextmanager
async def running(
    name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path
) -> AsyncIterator[Contender]:
    """Runs a command that has the protocol of bench/baselines/sequential.py. Its errors go to a log in `folder`."""
    log = folder / f"{name}.log"
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=errors, env=environment
        )
    try:
        yield Contender(name, process, log)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class DelayedDatabase:
    """A reverse proxy of the Data API that counts the requests and delays each by `delay_seconds`."""

    def __init__(self, target: str) -> None:
        self._target = target
        self.url = ""
        self.delay_seconds = 0.0
        self.requests = 0

    @asynccontextmanager
    async def served(self) -> AsyncIterator["DelayedDatabase"]:
        """Runs the proxy on a free port."""
        async with aiohttp.ClientSession(auto_decompress=False) as self._session:
            app = web.Application(client_max_size=100_000_000)
            app.router.add_route("*", "/{path:.*}", self._forward)
            async with serving(app) as self.url:
                yield self

    async def _forward(self, request: web.Request) -> web.Response:
        self.requests += 1
        await asyncio.sleep(self.delay_seconds)
        headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
        async with self._session.request(
            request.method, f"{self._target}{request.raw_path}", headers=headers, data=await request.read()
        ) as answer:
            kept = {
                name: value
                for name, value in answer.headers.items()
                if name.lower() not in ("transfer-encoding", "connection", "content-length", "keep-alive")
            }
            return web.Response(status=answer.status, headers=kept, body=await answer.read())


@asynccontextmanager
async def start_fixtures() -> AsyncIterator[Fixtures]:
    """Starts all services with an empty database, and removes them at the end."""
    async with AsyncExitStack() as parts:
        folder = parts.enter_context(temporary_folder())
        enter = parts.enter_async_context
        build = await enter(built())
        server = await enter(postgres(folder))
        project = await enter(supabase(folder, server))
        services = await enter(aws(folder))
        expo = await enter(expo_service())
        expo.configure({"rate_limit_per_second": 1_000_000})
        database = await enter(DelayedDatabase(project.url).served())
        parameters = {"SupabaseUrl": database.url, "ExpoUrl": expo.url}
        template = read_template(build.template, parameters, services.endpoint_url)
        await services.create(template)
        await services.put_secret(template.secrets["BackendSecret"].name, {"supabase_secret_key": project.secret_key})
        app_secret = {"supabase_publishable_key": project.publishable_key}
        await services.put_secret(template.secrets["AppSecret"].name, app_secret)
        async with await psycopg.AsyncConnection.connect(server.dsn()) as connection:
            await connection.execute("update private.chat_settings set message_limit = 1000000")
        yield Fixtures(folder, build, server, project, services, expo, database, template)


_ROOMS = "select id, user1_id, user2_id from public.chat_rooms order by created_at, id limit %s"

# For each push token a sender, and a recipient with a phone.
_NEW_ROOMS = """
with pair as (
  select token, gen_random_uuid() as sender, gen_random_uuid() as recipient from unnest(%s::text[]) token
), accounts as (
  insert into auth.users (id) select unnest(array[sender, recipient]) from pair
), people as (
  insert into public.users (id, display_name)
  select unnest(array[sender, recipient]), unnest('{Tina,Omar}'::text[]) from pair
), device as (
  insert into public.user_devices (user_id, device_id, platform, push_token)
  select recipient, 'phone', 'ios', token from pair
)
insert into public.chat_rooms (user1_id, user2_id) select sender, recipient from pair
"""

_MESSAGE = """
insert into public.chat_messages (id, room_id, sender_id, message)
values (%(id)s, %(room_id)s, %(sender_id)s, %(message)s)
"""
