"""How tests and demo wait for the fake Expo service, look into it, and control it over HTTP."""

import asyncio

import aiohttp
import pytest
from pydantic import JsonValue

from local.providers.apns.service import apns_service
from local.providers.expo.faults import (
    HttpError,
    Reset,
)
from local.providers.expo.service import expo_service
from local.providers.expo.state import ExpoService
from local.providers.fcm.service import fcm_service
from local.providers.fcm.state import registration_token
from tests.local.providers.expo.sending import FOREIGN, IPHONE, PIXEL, STRANGER, Clock, Sender, message, reset_by_peer

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])


class TestWaiting:
    async def test_waiting_for_an_arrival_ends_when_the_message_is_on_the_phone(
        self, expo: ExpoService, sender: Sender
    ) -> None:
        waiting = asyncio.create_task(expo.arrival(PIXEL, "m2"))
        await sender.tickets(message(PIXEL, "m1"))
        await sender.tickets(message(PIXEL, "m2"))
        assert await waiting == expo.phones[PIXEL].arrived[1]

    async def test_a_timeout_of_waiting_for_an_arrival_names_the_messages_that_arrived(
        self, expo: ExpoService, sender: Sender
    ) -> None:
        await sender.tickets(message(PIXEL, "m1"))
        with pytest.raises(TimeoutError, match=r"no m2 .* arrived: \['m1'\]"):
            await expo.arrival(PIXEL, "m2", seconds=0.01)

    async def test_waiting_for_a_request_also_ends_when_the_request_is_reset(
        self, expo: ExpoService, sender: Sender
    ) -> None:
        expo.script(Reset())
        waiting = asyncio.create_task(expo.until(lambda: [each.fault for each in expo.requests]))
        with reset_by_peer():
            await sender.send([message()])
        assert await waiting == ["reset"]


class TestRequestLog:
    async def test_the_fake_expo_logs_requests_without_the_bearer(
        self, expo: ExpoService, sender: Sender, clock: Clock
    ) -> None:
        expo.settings.access_token = "secret"
        expo.script(HttpError(status=503))
        for _ in range(2):
            await sender.send([message([IPHONE, STRANGER])], authorization="Bearer secret")
        ids = [expo.phones[IPHONE].arrived[0].ticket_id, "unknown"]
        await sender.receipts(ids, authorization="Bearer secret")
        assert [(each.endpoint, each.status, each.fault, each.tokens, each.receipt_ids) for each in expo.requests] == [
            ("send", 503, "http_error", [IPHONE, STRANGER], []),
            ("send", 200, None, [IPHONE, STRANGER], []),
            ("receipts", 200, None, [IPHONE], ids),
        ]
        assert {each.at for each in expo.requests} == {clock.now}
        assert {each.headers["authorization"] for each in expo.requests} == {"(left out)"}

    async def test_the_fake_expo_logs_rejected_and_reset_requests(self, expo: ExpoService, sender: Sender) -> None:
        expo.script(Reset())
        await sender.send([])
        with reset_by_peer():
            await sender.send([message()])
        assert [(each.status, each.fault) for each in expo.requests] == [(400, None), (None, "reset")]


class TestControl:
    async def test_the_control_api_describes_its_endpoints(
        self, expo: ExpoService, http: aiohttp.ClientSession
    ) -> None:
        async with http.get(expo.control_url) as response:
            description = await response.json()
        assert description["push_url"] == expo.url
        assert set(description["endpoints"]) == {
            "GET /control",
            "DELETE /control",
            "GET /control/phones",
            "POST /control/phones",
            "GET /control/phones/{token}",
            "DELETE /control/phones/{token}",
            "PATCH /control/phones/{token}",
            "POST /control/phones/{token}/open",
            "POST /control/clock",
            "GET /control/faults",
            "POST /control/faults",
            "DELETE /control/faults",
            "GET /control/settings",
            "PATCH /control/settings",
            "GET /control/requests",
        }
        assert all(endpoint["does"] for endpoint in description["endpoints"].values())
        assert "times" in description["endpoints"]["POST /control/faults"]["takes"]["properties"]

    async def test_a_phone_is_switched_off_and_on_and_time_passes_over_http(
        self, expo: ExpoService, http: aiohttp.ClientSession, sender: Sender
    ) -> None:
        async def turn(on: bool) -> None:
            async with http.patch(f"/control/phones/{PIXEL}", json={"is_on": on}) as response:
                assert response.status == 200

        await turn(on=False)
        await sender.tickets(message(PIXEL, tag="m1", collapseId="m1", ttl=60), message(PIXEL, tag="m2", ttl=3600))
        async with http.post("/control/clock", json={"seconds": 61}) as response:
            assert response.status == 204
        await turn(on=True)
        assert [arrival.message["tag"] for arrival in expo.phones[PIXEL].shown] == ["m2"]

    async def test_a_person_signs_in_kills_the_app_and_opens_it_over_http(
        self, expo: ExpoService, http: aiohttp.ClientSession, sender: Sender
    ) -> None:
        async with http.patch(f"/control/phones/{IPHONE}", json={"account": "gus", "app": "killed"}) as response:
            phone = await response.json()
        assert (phone["is_on"], phone["app"], phone["account"]) == (True, "killed", "gus")
        for room in ("r1", "r2"):
            await sender.tickets(message(IPHONE, room, data={"conversationId": room}))
        status, phone = await sender(f"/control/phones/{IPHONE}/open", {"unread_conversations": ["r2"], "badge": 1})
        assert (status, phone["app"], phone["badge"]) == (200, "foreground", 1)
        assert [arrival["message"]["data"]["conversationId"] for arrival in phone["shown"]] == ["r2"]

    async def test_phones_of_fcm_and_apns_beside_expo_are_controlled_over_http(self) -> None:
        pixel, iphone = registration_token("pixel"), "a1" * 32
        async with (
            fcm_service() as fcm,
            apns_service() as apns,
            expo_service(fcm=fcm, apns=apns) as expo,
            aiohttp.ClientSession(f"{expo.control_url}/", raise_for_status=True) as http,
        ):
            await http.post("phones", params={"provider": "fcm"}, json={"token": pixel, "platform": "android"})
            await http.post("phones", params={"provider": "apns"}, json={"token": iphone, "environment": "sandbox"})
            async with http.get("phones") as answer:
                assert [(each["token"], each["provider"]) for each in await answer.json()] == [
                    (pixel, "fcm"),
                    (iphone, "apns"),
                ]
            await http.patch(f"phones/{iphone}", json={"is_on": False})
            await http.post(f"phones/{pixel}/open", json={"unread_conversations": [], "badge": 2})
            await http.delete(f"phones/{pixel}")
            assert (fcm.phones[pixel].badge, fcm.phones[pixel].uninstalled) == (2, "ticket")
            assert (apns.phones[iphone].is_on, apns.registrations[iphone].environment) == (False, "sandbox")

    async def test_phones_are_installed_listed_and_uninstalled_over_http(
        self, expo: ExpoService, http: aiohttp.ClientSession, sender: Sender, clock: Clock
    ) -> None:
        phone = {
            "token": STRANGER,
            "platform": "android",
            "project": "@a/b",
            "channels": ["chat-messages", "x"],
        }
        assert (await sender("/control/phones", phone))[0] == 200
        [ticket] = await sender.tickets(message(STRANGER, tag="m1", channelId="x"))
        async with http.get(f"/control/phones/{STRANGER}") as response:
            seen = await response.json()
        assert seen["arrived"] == seen["shown"]
        assert seen["shown"] == [
            {
                "at": clock.now.isoformat().replace("+00:00", "Z"),
                "ticket_id": ticket["id"],
                "message": expo.phones[STRANGER].arrived[0].message,
                "hidden": None,
                "sounded": True,
            }
        ]
        async with http.delete(f"/control/phones/{STRANGER}", params={"report": "receipt"}) as response:
            assert (await response.json())["uninstalled"] == "receipt"
        async with http.get("/control/phones") as response:
            assert [each["token"] for each in await response.json()] == [IPHONE, PIXEL, FOREIGN, STRANGER]

    async def test_faults_are_scripted_listed_and_deleted_over_http(
        self, http: aiohttp.ClientSession, sender: Sender
    ) -> None:
        script = {
            "fault": {"kind": "http_error", "status": 503, "accepted": True},
            "times": 2,
            "token": IPHONE,
        }
        assert (await sender("/control/faults", script))[0] == 200
        assert (await sender.send([message()]))[0] == 503
        async with http.get("/control/faults") as response:
            [left] = await response.json()
        assert (left["fault"]["status"], left["times"], left["on"], left["token"]) == (503, 1, "send", IPHONE)
        async with http.delete("/control/faults") as response:
            assert response.status == 204
        assert (await sender.send([message()]))[0] == 200

    async def test_a_change_of_one_setting_of_the_fake_expo_keeps_the_others(
        self, expo: ExpoService, http: aiohttp.ClientSession
    ) -> None:
        for change in ({"latency_seconds": 0.001}, {"rate_limit_per_second": 5}):
            async with http.patch("/control/settings", json=change) as response:
                assert response.status == 200
        async with http.get("/control/settings") as response:
            assert await response.json() == {
                "latency_seconds": 0.001,
                "rate_limit_per_second": 5,
                "access_token": None,
                "receipt_delay_seconds": 0,
            }

    async def test_the_control_api_lists_push_requests(self, http: aiohttp.ClientSession, sender: Sender) -> None:
        await sender.send([message()])
        async with http.get("/control/requests") as response:
            [logged] = await response.json()
        assert (logged["endpoint"], logged["status"], logged["tokens"]) == ("send", 200, [IPHONE])

    async def test_a_reset_of_the_fake_expo_deletes_phones_faults_requests_receipts_and_settings(
        self, expo: ExpoService, http: aiohttp.ClientSession, sender: Sender
    ) -> None:
        expo.script(Reset(), on="receipts")
        expo.settings.rate_limit_per_second = 1
        [ticket] = await sender.tickets(message())
        async with http.delete("/control") as response:
            assert response.status == 204
        assert (expo.phones, expo.faults.scripts, expo.requests) == ({}, [], [])
        assert expo.settings.rate_limit_per_second == 600
        assert (await sender.receipts([ticket["id"]]))[1] == {"data": {}}

    @pytest.mark.parametrize(
        ("method", "path", "body", "field"),
        [
            ("POST", "/phones", {"platform": "ios"}, "token"),
            ("POST", "/phones", {"token": "native", "platform": "ios"}, "token"),
            ("POST", "/phones", {"token": IPHONE, "platform": "web"}, "platform"),
            ("POST", "/phones", {"token": IPHONE, "platform": "ios", "project": "app"}, "project"),
            ("POST", "/phones", {"token": IPHONE, "platform": "ios", "arrived": []}, "arrived"),
            ("DELETE", f"/phones/{IPHONE}?report=never", None, "report"),
            ("PATCH", f"/phones/{IPHONE}", {"app": "foreground"}, "app"),
            ("PATCH", f"/phones/{IPHONE}", {"is_on": None}, "is_on"),
            ("PATCH", f"/phones/{IPHONE}", {"badge": 1}, "badge"),
            ("POST", f"/phones/{IPHONE}/open", {"unread_conversations": []}, "badge"),
            ("POST", "/clock", {"seconds": -1}, "seconds"),
            ("POST", "/faults", {"fault": {"kind": "earthquake"}}, "fault"),
            ("POST", "/faults", {"fault": {"kind": "http_error", "status": 200}}, "fault.http_error.status"),
            ("POST", "/faults", {"fault": {"kind": "reset"}, "times": 0}, "times"),
            ("POST", "/faults", {"fault": {"kind": "reset"}, "on": "token"}, "on"),
            (
                "POST",
                "/faults",
                {"fault": {"kind": "ticket_count", "tickets": 0}, "on": "receipts"},
                "(body)",
            ),
            ("POST", "/faults", "text", "(body)"),
            ("PATCH", "/settings", {"latency_seconds": -1}, "latency_seconds"),
            ("PATCH", "/settings", {"latency": 1}, "latency"),
            ("PATCH", "/settings", None, "(body)"),
        ],
    )
    async def test_invalid_control_input_is_422_and_names_the_field(
        self, http: aiohttp.ClientSession, method: str, path: str, body: JsonValue, field: str
    ) -> None:
        async with http.request(method, f"/control{path}", json=body) as response:
            assert response.status == 422
            assert field in [error["field"] for error in (await response.json())["errors"]]

    @pytest.mark.parametrize("method", ["GET", "DELETE", "PATCH"])
    async def test_an_unknown_phone_is_404(self, http: aiohttp.ClientSession, method: str) -> None:
        async with http.request(method, f"/control/phones/{STRANGER}", json={}) as response:
            assert response.status == 404
