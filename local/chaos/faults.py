"""The faults of a chaos run, in every part of the system, and when each strikes."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from random import Random
from typing import Literal

from local.chaos.records import Outage
from local.chaos.traffic import Traffic
from local.cloud import LocalCloud
from local.providers.apns import faults as apns
from local.providers.apns.state import ApnsService
from local.providers.expo.faults import (
    Endpoint,
    Fault,
    Hang,
    HttpError,
    OddAnswer,
    ReceiptError,
    Reset,
    TicketCount,
    TicketError,
)
from local.providers.expo.state import ExpoService
from local.providers.fcm import faults as fcm
from local.providers.fcm.state import FcmService

MESSAGES_PER_STRIKE = 20

# How long a fault of a push service waits for a request that it can strike, and how many more messages users may write
# if none came: not every message causes a push of this service.
STRIKE_SECONDS, MORE_MESSAGES = 2.0, 4

_LONG = 30.0  # longer than SendChatPush waits for an answer

EXPO_FAULTS: dict[str, tuple[Fault, Endpoint]] = {
    "Expo answers 429": (HttpError(status=429), "send"),
    "Expo answers 429 with Retry-After": (HttpError(status=429, retry_after=1), "send"),
    "Expo answers 503": (HttpError(status=503), "send"),
    "Expo answers 504, but accepts": (HttpError(status=504, body="html", accepted=True), "send"),
    "Expo hangs": (Hang(seconds=1.5), "send"),
    "Expo hangs, but accepts": (Hang(seconds=1.5, accepted=True), "send"),
    "Expo resets": (Reset(), "send"),
    "Expo resets, but accepts": (Reset(accepted=True), "send"),
    "Expo's answer is truncated": (OddAnswer(body="truncated"), "send"),
    "Expo answers 200 with errors": (OddAnswer(body="errors"), "send"),
    "Expo gives no ticket": (TicketCount(tickets=0), "send"),
    "Expo gives too many tickets": (TicketCount(tickets=50), "send"),
    "ticket MessageRateExceeded": (TicketError(error="MessageRateExceeded"), "send"),
    "receipt MessageRateExceeded": (ReceiptError(error="MessageRateExceeded"), "send"),
    "receipts: Expo answers 503": (HttpError(status=503), "receipts"),
    "receipts: Expo's answer is truncated": (OddAnswer(body="truncated"), "receipts"),
    "receipts: Expo resets": (Reset(), "receipts"),
}

# Without Retry-After, FCM is paused for 10 or 60 s, and a device of APNs for 60 s.
FCM_FAULTS: dict[str, fcm.AnyFault] = {
    "FCM answers 429": fcm.FcmError(error="QUOTA_EXCEEDED", retry_after=1),
    "FCM answers 503": fcm.FcmError(error="UNAVAILABLE", retry_after=1),
    "FCM answers 500, but accepts": fcm.FcmError(error="INTERNAL", accepted=True, retry_after=1),
    "FCM refuses the access token": fcm.FcmError(error="UNAUTHENTICATED"),
    "FCM answers after 1.5 s": fcm.Slow(seconds=1.5),
    "FCM resets, but accepts": fcm.Reset(accepted=True),
    "FCM sends GOAWAY": fcm.GoAway(last_stream="this"),
    "FCM sends GOAWAY without an answer": fcm.GoAway(last_stream="unanswered"),
}

APNS_FAULTS: dict[str, apns.Fault] = {
    "APNs answers 429": apns.Rejection(reason="TooManyRequests", retry_after=1),
    "APNs answers 503": apns.Rejection(reason="ServiceUnavailable"),
    "APNs refuses the provider token": apns.Rejection(reason="ExpiredProviderToken"),
    "APNs answers after 1.5 s": apns.Slow(seconds=1.5),
    "APNs resets, but accepts": apns.Reset(accepted=True),
    "APNs resets a stream, but accepts": apns.StreamReset(code="INTERNAL_ERROR", accepted=True),
    "APNs sends GOAWAY": apns.GoAway(variant="mid_flight"),
    "APNs sends GOAWAY, and handled nothing": apns.GoAway(variant="nothing_handled"),
    "APNs sends GOAWAY and closes, but accepts": apns.GoAway(variant="followed_by_close", accepted=True),
    "APNs' socket is dead": apns.DeadSocket(),
}


class Faults:
    """Strikes while users write. With enough messages, each kind of fault strikes at least once."""

    def __init__(self, cloud: LocalCloud, traffic: Traffic, random: Random) -> None:
        self.struck: Counter[str] = Counter()
        self.outages: list[Outage] = []
        self._cloud = cloud
        self._traffic = traffic
        self._random = random
        self._kinds: dict[str, Callable[[], Awaitable[bool | None]]] = {
            "webhooks lost": self._webhooks_lost,
            "webhooks duplicated": self._webhooks_duplicated,
            "SQS delivers messages again, out of order": self._queue_again,
            "SendChatPush killed": self._send_killed,
            "SendChatPush killed before Expo accepts": lambda: self._send_killed_at_expo(accepted=False),
            "SendChatPush killed after Expo accepts": lambda: self._send_killed_at_expo(accepted=True),
            "CleanupReceipts killed": self._cleanup_killed,
            "Data API restarted": self._data_api_restarted,
            "Postgres restarted": self._postgres_restarted,
            "Postgres killed": self._postgres_killed,
            "app uninstalled, reported by the ticket": lambda: self._traffic.replace_phone(self._random, "ticket"),
            "app uninstalled, reported by the receipt": lambda: self._traffic.replace_phone(self._random, "receipt"),
            "app uninstalled, reported by FCM or APNs": lambda: self._traffic.replace_phone(self._random, None),
            "a phone's clock is hours off": lambda: self._traffic.wrong_clock(self._random),
            **{name: partial(self._strike_expo, *fault) for name, fault in EXPO_FAULTS.items()},
            **{name: partial(self._strike_fcm, fault) for name, fault in FCM_FAULTS.items()},
            **{name: partial(self._strike_apns, fault) for name, fault in APNS_FAULTS.items()},
            "FCM's connections are killed mid-stream": lambda: self._fcm_connections_end("reset"),
            "FCM's connections fall silent mid-stream": lambda: self._fcm_connections_end("silence"),
            "APNs' connections are killed mid-stream": self._apns_connections_end,
        }
        self.struck.update(dict.fromkeys(self._kinds, 0))

    async def run(self) -> None:
        """Spreads the strikes over the messages. Users pause if a fault needs more time than that."""
        plan = self._plan()
        interval = self._traffic.messages / (len(plan) + 2)
        for number, kind in enumerate(plan, 1):
            await self._traffic.allow(int((number + 1) * interval))
            await self._traffic.until_written(int(number * interval))
            while await self._kinds[kind]() is False:
                await self._traffic.allow_more(MORE_MESSAGES)
            self.struck[kind] += 1
        await self._traffic.allow(self._traffic.messages)

    def _plan(self) -> list[str]:
        """Every kind once in random order, round after round. The first round is always complete."""
        strikes = max(len(self._kinds), self._traffic.messages // MESSAGES_PER_STRIKE)
        plan: list[str] = []
        while len(plan) < strikes:
            plan += self._random.sample(list(self._kinds), len(self._kinds))
        return plan[:strikes]

    async def _strike_expo(self, fault: Fault, endpoint: Endpoint = "send") -> bool:
        self._cloud.expo.script(fault, on=endpoint)
        return await self._until_struck(self._cloud.expo)

    async def _strike_fcm(self, fault: fcm.AnyFault) -> bool:
        self._cloud.fcm.script(fault)
        return await self._until_struck(self._cloud.fcm)

    async def _strike_apns(self, fault: apns.Fault) -> bool:
        self._cloud.apns.script(fault)
        return await self._until_struck(self._cloud.apns)

    async def _until_struck(self, service: ExpoService | FcmService | ApnsService) -> bool:
        """Returns whether a request came that the scripted fault could strike.

        One fault at a time: an error receipt for a ticket that another fault cut off would hide a lost push.
        """
        try:
            return await service.until(lambda: not service.faults.scripts, STRIKE_SECONDS)
        except TimeoutError:
            service.faults.scripts.clear()
            return False

    async def _fcm_connections_end(self, how: Literal["reset", "silence"]) -> bool:
        """Ends the connections while a request waits for its answer. The phone has the notification."""
        if not await self._strike_fcm(fcm.Slow(seconds=1)):
            return False
        self._cloud.fcm.end_connections(how)
        return True

    async def _apns_connections_end(self) -> bool:
        if not await self._strike_apns(apns.Slow(seconds=1)):
            return False
        for connection in list(self._cloud.apns.connections):
            connection.abort()
        return True

    async def _webhooks_lost(self) -> None:
        self._cloud.pg_net.lose(self._random.randint(1, 10))

    async def _webhooks_duplicated(self) -> None:
        self._cloud.pg_net.duplicate(1)

    async def _queue_again(self) -> None:
        recent = self._traffic.stored[-50:]
        for message_id in self._random.sample(recent, min(len(recent), 10)):
            await asyncio.to_thread(
                self._cloud.aws.sqs.send_message,
                QueueUrl=self._cloud.template.queues["PushQueue"].url,
                MessageBody=str(message_id),
            )

    async def _send_killed(self) -> None:
        await asyncio.sleep(self._random.uniform(0, 0.5))
        await self._cloud.functions["SendChatPush"].kill()

    async def _send_killed_at_expo(self, *, accepted: bool) -> bool:
        if not await self._strike_expo(Hang(seconds=_LONG, accepted=accepted)):
            return False
        await self._cloud.functions["SendChatPush"].kill()
        return True

    async def _cleanup_killed(self) -> None:
        await asyncio.sleep(self._random.uniform(0, 0.5))
        await self._cloud.functions["CleanupReceipts"].kill()

    @contextmanager
    def _outage(self) -> Iterator[None]:
        since = datetime.now(UTC)
        yield
        self.outages.append(Outage(since, datetime.now(UTC)))

    async def _data_api_restarted(self) -> None:
        with self._outage():
            await self._cloud.supabase.restart()

    # Supabase Lite may exit when its connections break, so it is restarted with Postgres.

    async def _postgres_restarted(self) -> None:
        with self._outage():
            await self._cloud.postgres.restart()
            await self._cloud.supabase.restart()

    async def _postgres_killed(self) -> None:
        with self._outage():
            await self._cloud.postgres.kill()
            await self._cloud.postgres.start()
            await self._cloud.supabase.restart()
