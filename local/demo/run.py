"""Runs the demo in a local cloud, and reports its result as text and as JSON."""

import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psycopg

from chat_client import ChatClient, Timing
from local.app import Person, chat_app, new_phone, signed_in_client
from local.cloud import LocalCloud, local_cloud
from local.demo.scenario import Scenario, Step
from local.demo.steps import STEPS

INTRODUCTION = """
Tina and Omar are tourists. Gus and Greta are guides. Gus is logged in on two phones by Expo, an iPhone and a Pixel.
They chat with the Python client, as an app does.
Each step sends one message and then checks what each phone shows.
To save time, presence expires after 3 s instead of 45 s, and the sweep runs when a step needs it."""

NEXT = {
    "docs/architecture.md": "how a push finds its way, and which file decides what",
    "docs/client.md": "what your app does, with files to copy",
    "docs/deploy.md": "from three accounts to the first push",
    "docs/operate.md": "why a phone got no push, alarms, costs",
    "./dev up": "run this cloud yourself, and chat on it in two terminals",
}

# A lost live event costs five seconds. As in an app, a heartbeat comes more than twice before presence expires.
TIMING = Timing(retry_base=0.3, sync_interval=5, heartbeat=1)

# The waits of the demo are seconds. The defaults are in supabase/migrations.
SETTINGS = (
    "update push.settings set presence_fresh_for = '3 seconds', retry_base = '0.5 seconds',"
    " unanswered_retry_delays = '{0.5 seconds, 0.5 seconds, 0.5 seconds}'"
)


async def run(cloud: LocalCloud) -> list[Step]:
    """Runs every step, prints its result, and returns the steps."""
    async with await psycopg.AsyncConnection.connect(cloud.database_url) as connection:
        await connection.execute(SETTINGS)
    async with new_scenario(cloud) as scenario:
        print(INTRODUCTION)
        for step in STEPS:
            await step(scenario)
    return scenario.steps


@asynccontextmanager
async def new_scenario(cloud: LocalCloud) -> AsyncIterator[Scenario]:
    """The people, their apps and phones, before the first step."""
    async with chat_app(cloud.supabase, cloud.api_url) as app, AsyncExitStack() as apps:
        tina, omar = [await app.sign_up(name, "tourist") for name in ("Tina", "Omar")]
        gus, greta = [await app.sign_up(name, "guide") for name in ("Gus", "Greta")]
        folder = Path(apps.enter_context(tempfile.TemporaryDirectory()))

        async def open_app(person: Person) -> ChatClient:
            database, key = folder / f"{person.name}.sqlite", cloud.supabase.publishable_key
            return await apps.enter_async_context(signed_in_client(cloud.realtime.url, key, person, database, TIMING))

        tinas_app, guss_app = await open_app(tina), await open_app(gus)
        phones = {"iPhone": new_phone(cloud.expo, "ios"), "Pixel": new_phone(cloud.expo, "android")}
        chat = await tinas_app.open_chat(gus.id)
        scenario = Scenario(cloud, tina, gus, omar, greta, tinas_app, guss_app, open_app, phones, chat)
        for phone in phones:
            await scenario.log_in(gus, phone)
        yield scenario


def report(steps: list[Step], json_file: Path | None) -> int:
    """Prints the summary, and writes the steps as JSON if a file is given. Returns 0 if every step is ok, else 1."""
    failed = [f"{number}. {step.title}" for number, step in enumerate(steps, 1) if not step.ok]
    print(f"\n{len(steps) - len(failed)} of {len(steps)} steps ended as expected.")
    print("".join(f"failed: {title}\n" for title in failed), end="")
    if json_file:
        result = {"ok": not failed, "steps": [step.data() for step in steps]}
        json_file.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
        print(f"JSON: {json_file}")
    print("\nNext:", *(f"  {name:<22}{what}" for name, what in NEXT.items()), sep="\n")
    return 1 if failed else 0


async def demo(json_file: Path | None) -> int:
    """Runs the demo in a new local cloud. Returns the exit code."""
    async with local_cloud(schedules=True, direct=True) as cloud:
        steps = await run(cloud)
    return report(steps, json_file)
