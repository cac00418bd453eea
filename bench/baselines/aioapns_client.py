"""Baseline: aioapns with one connection, without a database. The protocol is that of firebase.py.

With its default of ten connections it fails: it opens several streams at once on a new connection, on which APNs allows
one until it has seen a valid token.
"""

import argparse
import asyncio
import json
import ssl
import sys
from urllib.parse import urlsplit

from aioapns import APNs, NotificationRequest, PushType
from aioapns.connection import APNsTLSClientProtocol


async def serve(service: dict[str, str]) -> None:
    """Serves standard input until it ends."""

    class Fake(APNsTLSClientProtocol):
        APNS_SERVER = "127.0.0.1"
        APNS_PORT = urlsplit(service["url"]).port or 443

    client = APNs(
        key=service["key"],
        key_id=service["key_id"],
        team_id=service["team_id"],
        topic=service["topic"],
        max_connections=1,
        ssl_context=ssl.create_default_context(cafile=service["authority"]),
    )
    client.pool.protocol_class = Fake
    while line := await asyncio.to_thread(sys.stdin.readline):
        requests = [
            NotificationRequest(
                each["token"], {"aps": {"alert": {"title": "Tina", "body": each["message"]}}}, push_type=PushType.ALERT
            )
            for each in json.loads(line)
        ]
        results = await asyncio.gather(*map(client.send_notification, requests))
        if failed := [result.description for result in results if not result.is_successful]:
            sys.exit(f"failed: {failed[:3]}")
        print("done", flush=True)


def main() -> None:
    """Reads the argument and serves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("service", type=json.loads)
    asyncio.run(serve(parser.parse_args().service))


if __name__ == "__main__":
    main()
