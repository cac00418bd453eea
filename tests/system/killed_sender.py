"""A program that sends messages and is killed at random times: `killed_sender.py ROUNDS SEED`, settings on stdin.

Each round is a fork of this process, so that it starts at once. It notes the text of each message in a journal, after
`send` has returned: from then on the message must not be lost.
"""

import asyncio
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from uuid import UUID, uuid4

from chat_client import ChatClient, Settings, Timing

_MESSAGES = 3  # in each round


async def send(settings: Settings, conversation_id: UUID, journal: Path, ready: int) -> None:
    """Sends messages, and works until it is killed. Writes to `ready` after each one."""
    async with ChatClient(settings) as client:
        for _ in range(_MESSAGES):
            text = str(uuid4())
            client.send(conversation_id, text)
            with journal.open("a") as file:
                file.write(f"{text}\n")
            os.write(ready, b".")
            await asyncio.sleep(random.uniform(0, 0.02))
        await asyncio.Event().wait()


def main() -> None:
    """Runs the rounds."""
    rounds, seed = int(sys.argv[1]), int(sys.argv[2])
    given = json.load(sys.stdin)
    settings = Settings(
        supabase_url=given["supabase_url"],
        publishable_key=given["publishable_key"],
        database=Path(given["database"]),
        timing=Timing(retry_base=0.05, retry_cap=0.2),
    )
    chance = random.Random(seed)
    for number in range(rounds):
        readable, writable = os.pipe()
        child = os.fork()
        if child == 0:
            random.seed(number)
            asyncio.run(send(settings, UUID(given["conversation_id"]), Path(given["journal"]), writable))
        os.close(writable)
        # Most are killed after their first message, however slow the machine is; some while they open the database.
        if chance.random() < 0.8:
            os.read(readable, 1)
        time.sleep(chance.uniform(0, 0.1))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.close(readable)
        if not os.WIFSIGNALED(status):
            sys.exit(f"round {number} ended by itself: {status}")


main()
