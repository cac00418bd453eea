"""Clients that this project did not write send through the fake APNs: aioapns, @parse/node-apn and apns2.

None of them is changed. aioapns gets the address by a subclass of its protocol, node-apn by its options. apns2 has no
option for the port, so its connections to Apple are redirected below it, in Node's `tls`.
"""

import asyncio
import json
import os
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from aioapns import APNs, NotificationRequest, PushType
from aioapns.common import NotificationResult
from aioapns.connection import APNsTLSClientProtocol

from local.packages import node
from local.providers.apns.faults import GoAway, Rejection, Reset
from local.providers.apns.service import apns_service
from local.providers.apns.state import TOPIC, ApnsService
from local.providers.phones import Condition
from tests.local.providers.apns.sending import ALERT, DEBUG_IPHONE, IPHONE, OTHER_IPHONE, SILENT, STRANGER

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])

JUDGES = Path(__file__).parent / "judges"
GONE = "e1" * 32


@pytest.fixture
async def apns() -> AsyncIterator[ApnsService]:
    """The service by the real time, because the clients know no other."""
    async with apns_service() as service:
        for token in (IPHONE, OTHER_IPHONE, GONE):
            service.install(token)
        service.install(DEBUG_IPHONE, "sandbox")
        service.uninstall(GONE)
        yield service


def shown(apns: ApnsService, token: str = IPHONE) -> list[Any]:
    return [arrival.message for arrival in apns.phones[token].shown]


class TestAioapns:
    @pytest.fixture
    async def client(self, apns: ApnsService) -> AsyncIterator[APNs]:
        class Fake(APNsTLSClientProtocol):
            APNS_SERVER = "127.0.0.1"
            APNS_PORT = urlsplit(apns.url).port or 443

        client = APNs(
            key=apns.key.private_key,
            key_id=apns.key.id,
            team_id=apns.key.team_id,
            topic=TOPIC,
            max_connections=1,
            ssl_context=ssl.create_default_context(cafile=apns.authority),
        )
        client.pool.protocol_class = Fake
        yield client
        client.pool.close()
        await apns.until(lambda: not apns.connections)

    async def send(self, client: APNs, token: str = IPHONE, **fields: Any) -> NotificationResult:
        request = {"message": ALERT, "push_type": PushType.ALERT, **fields}
        return await asyncio.wait_for(client.send_notification(NotificationRequest(token, **request)), 10)

    async def test_aioapns_reaches_a_phone_with_all_its_headers(self, apns: ApnsService, client: APNs) -> None:
        result = await self.send(client, priority=10, collapse_key="room", time_to_live=3600)
        assert (result.is_successful, result.notification_id) == (True, apns.phones[IPHONE].shown[0].ticket_id)
        [message] = shown(apns)
        assert message["collapseId"] == "room"
        assert message["expiration"] == pytest.approx(time.time() + 3600, abs=60)

    async def test_aioapns_sends_background_pushes(self, apns: ApnsService, client: APNs) -> None:
        result = await self.send(client, message=SILENT, push_type=PushType.BACKGROUND, priority=5)
        assert result.is_successful
        assert len(apns.phones[IPHONE].background_runs) == 1

    @pytest.mark.parametrize("reason", ["BadDeviceToken", "PayloadTooLarge", "TooManyRequests", "ServiceUnavailable"])
    async def test_aioapns_reads_status_and_reason_of_a_rejection(
        self, apns: ApnsService, client: APNs, reason: str
    ) -> None:
        fault = Rejection(reason=reason)
        apns.script(fault)
        result = await self.send(client)
        assert (result.status, result.description) == (str(fault.status), reason)

    async def test_aioapns_reads_the_time_of_a_410(self, apns: ApnsService, client: APNs) -> None:
        result = await self.send(client, GONE)
        gone_at = apns.registrations[GONE].gone_at
        assert gone_at is not None
        assert (result.status, result.description) == ("410", "Unregistered")
        assert result.timestamp == int(gone_at.timestamp() * 1000)

    async def test_aioapns_sends_a_hundred_notifications_at_once_after_the_first_one(
        self, apns: ApnsService, client: APNs
    ) -> None:
        await self.send(client)
        results = await asyncio.gather(*[self.send(client, token) for token in [IPHONE, OTHER_IPHONE] * 50])
        assert {result.status for result in results} == {"200"}
        assert [len(apns.phones[token].arrived) for token in (IPHONE, OTHER_IPHONE)] == [51, 50]
        assert apns.connection_count == 1

    async def test_aioapns_sends_again_after_a_goaway_and_the_phone_shows_one_notification(
        self, apns: ApnsService, client: APNs
    ) -> None:
        apns.script(GoAway(variant="followed_by_close", accepted=True))
        assert (await self.send(client, collapse_key="room")).is_successful
        assert len(apns.phones[IPHONE].arrived) == 2
        assert len(shown(apns)) == 1


type Run = Callable[..., Awaitable[Any]]


async def run_node(script: str, orders: dict[str, Any], *options: str, **environment: str) -> Any:
    """What a script of Node prints."""
    process = await asyncio.create_subprocess_exec(
        node(),
        *options,
        JUDGES / script,
        json.dumps(orders),
        env=os.environ | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return json.loads(output)


def credentials(apns: ApnsService) -> dict[str, Any]:
    return {"key": apns.key.private_key, "keyId": apns.key.id, "teamId": apns.key.team_id, "topic": TOPIC}


class TestNodeApn:
    @pytest.fixture
    def run(self, apns: ApnsService) -> Run:
        """Sends with a new process: `calls` are pairs of device tokens and fields of node-apn's Notification."""

        async def run(*calls: tuple[list[str], dict[str, Any]], sandbox: bool = False) -> Any:
            url = urlsplit(apns.sandbox_url if sandbox else apns.url)
            orders = {
                **credentials(apns),
                "host": url.hostname,
                "port": url.port,
                "ca": apns.authority,
                "calls": [{"tokens": tokens, "fields": fields} for tokens, fields in calls],
            }
            return await run_node("node_apn.mjs", orders)

        return run

    async def test_node_apn_reaches_phones_and_reads_rejections(self, apns: ApnsService, run: Run) -> None:
        alert = {"pushType": "alert", "alert": {"title": "Ana", "body": "Hello"}, "sound": "default", "badge": 2}
        silent = {"pushType": "background", "contentAvailable": True, "priority": 5}
        first, many, background = await run(
            (
                [IPHONE],
                alert | {"collapseId": "room", "expiry": 4_000_000_000, "payload": {"body": {"messageId": "m1"}}},
            ),
            ([OTHER_IPHONE, STRANGER, GONE, DEBUG_IPHONE], alert),
            ([IPHONE], silent),
        )
        assert (first, background) == ({"sent": [IPHONE], "failed": []}, {"sent": [IPHONE], "failed": []})
        assert shown(apns)[0] == {
            "title": "Ana",
            "body": "Hello",
            "sound": "default",
            "badge": 2,
            "collapseId": "room",
            "expiration": 4_000_000_000,
            "data": {"messageId": "m1"},
        }
        assert len(apns.phones[IPHONE].background_runs) == 1
        assert many["sent"] == [OTHER_IPHONE]
        gone_at = apns.registrations[GONE].gone_at
        assert gone_at is not None
        assert {each["device"]: (each["status"], each["response"]) for each in many["failed"]} == {
            STRANGER: (400, {"reason": "BadDeviceToken"}),
            DEBUG_IPHONE: (400, {"reason": "BadDeviceToken"}),
            GONE: (410, {"reason": "Unregistered", "timestamp": int(gone_at.timestamp() * 1000)}),
        }
        assert apns.connection_count == 1

    async def test_node_apn_retries_and_reconnects(self, apns: ApnsService, run: Run) -> None:
        """It retries a 503 and an expired token at once. After a GOAWAY and after a reset, it uses a new connection."""
        alert = {"pushType": "alert", "alert": "Hello"}
        apns.script(Rejection(reason="ServiceUnavailable"))
        apns.script(Rejection(reason="ExpiredProviderToken"))
        apns.script(GoAway(variant="mid_flight"))
        apns.script(Reset())
        results = await run(*[([IPHONE], alert)] * 4)
        assert [len(result["sent"]) for result in results] == [1, 0, 1, 1]
        assert [(request.connection, request.fault, request.status) for request in apns.requests] == [
            (1, "rejection", 503),
            (1, "rejection", 403),
            (1, "go_away", 200),
            (2, "reset", None),
            (3, None, 200),
            (3, None, 200),
        ]

    async def test_node_apn_in_the_sandbox(self, apns: ApnsService, run: Run) -> None:
        [result] = await run(([DEBUG_IPHONE], {"pushType": "alert", "alert": "Hello"}), sandbox=True)
        assert result["sent"] == [DEBUG_IPHONE]


class TestApns2:
    @pytest.fixture
    def run(self, apns: ApnsService) -> Run:
        """Sends with a new process: `calls` are pairs of device tokens and options of apns2's Notification."""

        async def run(*calls: tuple[list[str], dict[str, Any]], host: str = "api.push.apple.com") -> Any:
            port = str(urlsplit(apns.url).port)
            orders = {
                **credentials(apns),
                "host": host,
                "calls": [{"tokens": tokens, "options": options} for tokens, options in calls],
            }
            redirect = ("--require", str(JUDGES / "redirect.cjs"))
            authority = apns.authority
            return await run_node("apns2.mjs", orders, *redirect, FAKE_APNS_PORT=port, NODE_EXTRA_CA_CERTS=authority)

        return run

    async def test_apns2_reaches_phones_and_reads_rejections(self, apns: ApnsService, run: Run) -> None:
        apns.change_phone(OTHER_IPHONE, Condition(is_on=False))
        alert = {"alert": {"title": "Ana", "body": "Hello"}, "sound": "default", "badge": 2}
        first, many, background = await run(
            (
                [IPHONE],
                alert | {"collapseId": "room", "expiration": 4_000_000_000, "data": {"body": {"messageId": "m1"}}},
            ),
            ([OTHER_IPHONE, STRANGER, GONE, DEBUG_IPHONE], alert | {"expiration": 4_000_000_000}),
            ([IPHONE], {"type": "background", "priority": 5, "contentAvailable": True}),
        )
        assert (first, background) == ([{}], [{}])
        assert shown(apns)[0]["data"] == {"messageId": "m1"}
        assert len(apns.phones[IPHONE].background_runs) == 1
        assert many[0] == {}
        assert len(apns.phones[OTHER_IPHONE].held) == 1
        assert [each["response"]["reason"] for each in many[1:]] == ["BadDeviceToken", "Unregistered", "BadDeviceToken"]
        assert [each["status"] for each in many[1:]] == [400, 410, 400]

    async def test_apns2_in_the_sandbox(self, apns: ApnsService, run: Run) -> None:
        [result] = await run(([DEBUG_IPHONE], {"alert": "Hello"}), host="api.sandbox.push.apple.com")
        assert result == [{}]
