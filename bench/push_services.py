"""Runs the fake of FCM or of APNs in a process of its own, so that it takes no time from a contender's interpreter.

It prints one line of JSON: the URL, the file of its certificate authority, and the credentials of a sender. For each
line of standard input it prints how many notifications have arrived on its phones since the last line.
"""

import argparse
import asyncio
import gc
import json
import sys

from local.providers.apns.service import apns_service
from local.providers.apns.state import TOPIC, ApnsService
from local.providers.fcm.service import fcm_service
from local.providers.fcm.state import FcmService, registration_token

LATENCY = {"latency_seconds": 0.1}


def push_token(provider: str, number: int) -> str:
    """The token of a phone by its number."""
    return registration_token(f"phone-{number}-") if provider == "fcm" else f"{number:064x}"


async def serve(provider: str, phones: int) -> None:
    """Serves a provider with so many phones until standard input ends."""
    if provider == "fcm":
        async with fcm_service(tls=True) as fcm:
            for number in range(phones):
                fcm.install(push_token(provider, number), "android")
            fcm.configure(LATENCY)
            await _answer(fcm, {"url": fcm.url, "authority": fcm.ca_file, "service_account": fcm.service_account()})
    else:
        async with apns_service() as apns:
            for number in range(phones):
                apns.install(push_token(provider, number))
            apns.configure(LATENCY)
            key = {"key": apns.key.private_key, "key_id": apns.key.id, "team_id": apns.key.team_id, "topic": TOPIC}
            await _answer(apns, {"url": apns.url, "authority": apns.authority, **key})


async def _answer(service: FcmService | ApnsService, description: dict[str, object]) -> None:
    gc.disable()  # A collection stops the service for 100 ms, so that answers are late.
    print(json.dumps(description), flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        print(sum(len(phone.arrived) for phone in service.phones.values()), flush=True)
        service.requests.clear()
        for phone in service.phones.values():
            phone.clear()


def main() -> None:
    """Reads the arguments and serves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("provider", choices=["fcm", "apns"])
    parser.add_argument("phones", type=int)
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.provider, arguments.phones))


if __name__ == "__main__":
    main()
