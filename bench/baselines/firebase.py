"""Baseline: firebase-admin's `send_each_async`, without a database.

It takes a line of JSON as its argument, which bench/push_services.py printed. It reads batches of notifications from
standard input, one JSON list a line: [{"token", "message"}]. It prints a line when all of a batch were sent.
"""

import argparse
import asyncio
import json
import sys

import firebase_admin
from firebase_admin import credentials, messaging

AT_ONCE = 500  # the most that send_each_async takes


async def serve(service: dict[str, object]) -> None:
    """Serves standard input until it ends."""
    # firebase-admin has no setting for it.
    messaging._MessagingService.FCM_URL = f"{service['url']}/v1/projects/{{0}}/messages:send"
    firebase_admin.initialize_app(credentials.Certificate(service["service_account"]))
    while line := await asyncio.to_thread(sys.stdin.readline):
        messages = [
            messaging.Message(
                token=each["token"], notification=messaging.Notification(title="Tina", body=each["message"])
            )
            for each in json.loads(line)
        ]
        for first in range(0, len(messages), AT_ONCE):
            answer = await messaging.send_each_async(messages[first : first + AT_ONCE], dry_run=False)
            if answer.failure_count:
                sys.exit(f"failed: {[each.exception for each in answer.responses if not each.success][:3]}")
        print("done", flush=True)


def main() -> None:
    """Reads the argument and serves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("service", type=json.loads)
    asyncio.run(serve(parser.parse_args().service))


if __name__ == "__main__":
    main()
