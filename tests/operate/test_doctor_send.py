"""./dev doctor --send: one test push to each phone of a user, and its receipt."""

import asyncio
import json
from collections.abc import Callable
from typing import Literal
from uuid import UUID, uuid4

import pytest
from chat_push.backend import DirectUrls, direct_senders
from chat_push.secrets import BackendSecret
from pydantic import SecretStr

from local.providers.apns.faults import Rejection
from local.providers.apns.service import apns_service
from local.providers.apns.state import TOPIC
from local.providers.expo.faults import HttpError, ReceiptError, TicketError
from local.providers.fcm.faults import FcmError
from local.providers.fcm.service import fcm_service
from local.providers.fcm.state import registration_token
from local.providers.phones import Phone
from operate.doctor.push_service import RECEIPT_WITHIN, direct_providers, send_test_push
from operate.doctor.results import Finding, Healthy, Result, Waiting
from tests.http2_fakes import trusted
from tests.operate.conftest import BreakableCloud


async def sent(
    breakable: BreakableCloud,
    person: UUID,
    pause: Callable[[float], None] | None = None,
    clock: Callable[[], float] = lambda: 0,
) -> list[Result]:
    """The results of a test push. Without `pause` it must not wait for a receipt."""

    def must_not_wait(seconds: float) -> None:
        raise AssertionError("a receipt is missing")

    def run() -> list[Result]:
        return list(send_test_push(breakable.system(), person, pause or must_not_wait, clock))

    return await asyncio.to_thread(run)


def findings(results: list[Result]) -> list[Finding]:
    return [result for result in results if isinstance(result, Finding)]


async def test_each_phone_shows_one_test_push_and_its_receipt_is_reported(breakable: BreakableCloud) -> None:
    phones = [
        await breakable.phone(breakable.gus, "iPhone", "ios"),
        await breakable.phone(breakable.gus, "Android", "android"),
        await breakable.phone(breakable.tina, "of Tina"),
    ]
    code, output = await breakable.run(f"./dev doctor --env {breakable.env_file} --send {breakable.gus.id}")
    assert (code, output.splitlines()[-1]) == (0, "healthy")
    assert output.count("accepted by Expo") == 2
    assert "test push to ios device iPhone: handed over to APNs" in output
    assert "test push to android device Android: handed over to FCM" in output
    assert [len(phone.shown) for phone in phones] == [1, 1, 0]
    assert all(phone.token not in output for phone in phones)


async def test_a_test_push_adds_no_row_to_a_conversation(breakable: BreakableCloud) -> None:
    await breakable.phone(breakable.gus, "phone")
    tables = (
        *("public.chat_rooms", "public.chat_messages", "public.message_receipts"),
        *("push.jobs", "push.decisions", "push.deliveries", "push.device_states"),
    )
    before = [await breakable.count(table) for table in tables]
    await sent(breakable, breakable.gus.id)
    assert [await breakable.count(table) for table in tables] == before


@pytest.mark.parametrize("registered", [False, True])
async def test_a_user_without_an_active_device_is_a_finding(breakable: BreakableCloud, registered: bool) -> None:
    if registered:
        await breakable.phone(breakable.gus, "phone")
        await breakable.execute("update public.user_devices set is_active = false")
    [finding] = findings(await sent(breakable, breakable.gus.id))
    assert finding.what.startswith(f"the user has {int(registered)} devices, and none of them is active")
    assert "POST /api/push/register" in finding.remedy


async def test_an_unknown_user_id_is_a_finding(breakable: BreakableCloud) -> None:
    unknown = uuid4()
    [finding] = findings(await sent(breakable, unknown))
    assert finding.what == f"there is no user with the id {unknown}"
    assert "public.users" in finding.remedy


async def test_a_provider_that_is_paused_or_has_a_wrong_credential_is_a_finding(breakable: BreakableCloud) -> None:
    await breakable.execute(
        "insert into push.providers (provider, failures, paused_until) values ('apns', 3, now() + interval '5 minutes')"
    )
    system = breakable.system()
    system.__dict__["backend_secret"] = system.backend_secret.model_copy(
        update={"fcm_service_account": SecretStr("AIza" + "x" * 35)}
    )
    results = await asyncio.to_thread(lambda: list(direct_providers(system)))
    wrong, paused = findings(results)
    assert wrong.what.startswith("FCM: fcm_service_account: it is a server key of the old FCM API")
    assert paused.what.startswith("APNs: it refused everything 3 times in a row, and is paused until ")
    assert "./dev secrets put" in wrong.remedy


async def sent_directly(breakable: BreakableCloud, urls: DirectUrls, **credentials: str) -> list[Result]:
    """The results of a test push by a system whose BackendSecret has these credentials."""
    system = breakable.system()
    secret = BackendSecret.model_validate(
        {"supabase_secret_key": system.backend_secret.supabase_secret_key.get_secret_value(), **credentials}
    )
    system.__dict__["direct"] = direct_senders(secret, urls)
    try:
        return await asyncio.to_thread(lambda: list(send_test_push(system, breakable.gus.id)))
    finally:
        for sender in system.direct.values():
            sender.close()


async def add_device(breakable: BreakableCloud, platform: str, provider: str, token: str) -> None:
    await breakable.execute(
        "insert into public.user_devices (user_id, device_id, platform, push_provider, push_token)"
        f" values ('{breakable.gus.id}', 'phone', '{platform}', '{provider}', '{token}')"
    )


def check_test_push(results: list[Result], phone: Phone, service: str, fault: str | None, remedy: str) -> None:
    """The phone shows the test push; with a fault, the only finding names it and the remedy."""
    push = f"test push to {phone.platform} device phone"
    if fault is None:
        assert [result.what for result in results] == [f"{push}: handed over to {service}"]
        assert [arrival.message["title"] for arrival in phone.shown] == ["Chat Push"]
    else:
        [finding] = findings(results)
        assert finding.what == f"{push}: {fault}"
        assert remedy in finding.remedy


@pytest.mark.parametrize("fault", [None, "UNREGISTERED", "PERMISSION_DENIED"])
async def test_a_device_of_fcm_gets_the_test_push_from_fcm(
    breakable: BreakableCloud, fault: Literal["UNREGISTERED", "PERMISSION_DENIED"] | None
) -> None:
    token = registration_token("pixel")
    await add_device(breakable, "android", "fcm", token)
    async with fcm_service() as fcm:
        phone = fcm.install(token, "android")
        if fault:
            fcm.script(FcmError(error=fault))
        account = json.dumps(fcm.service_account())
        results = await sent_directly(breakable, DirectUrls(fcm_url=fcm.url), fcm_service_account=account)
    remedy = "registers the device again" if fault == "UNREGISTERED" else "enable the Firebase"
    check_test_push(results, phone, "FCM", fault, remedy)


@pytest.mark.parametrize("reason", [None, "Unregistered", "InvalidProviderToken"])
async def test_a_device_of_apns_gets_the_test_push_from_apns(breakable: BreakableCloud, reason: str | None) -> None:
    token = "a1" * 32
    await add_device(breakable, "ios", "apns", token)
    async with apns_service() as apns:
        phone = apns.install(token)
        if reason:
            apns.script(Rejection(reason=reason))
        with trusted(apns.authority):
            results = await sent_directly(
                breakable,
                DirectUrls(apns_url=apns.url, apns_sandbox_url=apns.sandbox_url),
                apns_key=apns.key.private_key,
                apns_key_id=apns.key.id,
                apns_team_id=apns.key.team_id,
                apns_topic=TOPIC,
            )
    remedy = "registers the device again" if reason == "Unregistered" else "check apns_key"
    check_test_push(results, phone, "APNs", reason, remedy)


@pytest.mark.parametrize("report", ["ticket", "receipt"])
async def test_a_dead_token_is_a_finding_and_the_other_device_gets_the_push(
    breakable: BreakableCloud, report: str
) -> None:
    dead, alive = await breakable.phone(breakable.gus, "dead"), await breakable.phone(breakable.gus, "alive")
    breakable.cloud.expo.uninstall(dead.token, report=report)  # type: ignore[arg-type]
    results = await sent(breakable, breakable.gus.id)
    [finding] = findings(results)
    assert finding.what.endswith(": DeviceNotRegistered")
    assert "registers the device again" in finding.remedy
    assert len([result for result in results if isinstance(result, Healthy)]) == 1
    assert len(alive.shown) == 1
    # The remedy: the device registers again.
    breakable.cloud.expo.install(dead.token, "ios")
    await breakable.gus.log_in_on(dead, "dead")
    assert findings(await sent(breakable, breakable.gus.id)) == []


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        ("InvalidCredentials", "eas credentials"),
        ("MismatchSenderId", "google-services.json"),
        ("MessageRateExceeded", "# try again"),
        ("SomethingNew", "# try again"),
    ],
)
@pytest.mark.parametrize("fault", [TicketError, ReceiptError])
async def test_an_error_of_a_device_is_a_finding_with_its_remedy(
    breakable: BreakableCloud, fault: type[TicketError | ReceiptError], error: str, remedy: str
) -> None:
    phone = await breakable.phone(breakable.gus, "phone")
    breakable.cloud.expo.script(fault(error=error), token=phone.token)
    [finding] = findings(await sent(breakable, breakable.gus.id))
    assert finding.what.endswith(f": {error}")
    assert remedy in finding.remedy


async def test_an_access_token_that_may_not_send_is_a_finding(breakable: BreakableCloud) -> None:
    await breakable.phone(breakable.gus, "phone")
    breakable.cloud.expo.script(HttpError(status=403))
    [finding] = findings(await sent(breakable, breakable.gus.id))
    assert finding.remedy == f"./dev secrets put --env {breakable.env_file}"


async def test_the_doctor_prints_progress_while_it_waits_for_a_receipt(breakable: BreakableCloud) -> None:
    await breakable.phone(breakable.gus, "phone")
    breakable.cloud.expo.configure({"receipt_delay_seconds": 3600})

    def half_an_hour_passes(seconds: float) -> None:
        breakable.cloud.expo.settings.receipt_delay_seconds = 0

    results = await sent(breakable, breakable.gus.id, half_an_hour_passes)
    assert [type(result) for result in results] == [Waiting, Waiting, Healthy]
    assert "1 receipts missing after 0 seconds" in str(results[1])


async def test_the_doctor_requests_receipts_again_when_they_are_unavailable(breakable: BreakableCloud) -> None:
    await breakable.phone(breakable.gus, "phone")
    breakable.cloud.expo.script(HttpError(status=503, body="html"), on="receipts")
    results = await sent(breakable, breakable.gus.id, lambda seconds: None)
    assert "Expo gives no receipts at the moment (Http503)" in str(results[1])
    assert isinstance(results[-1], Healthy)


async def test_a_receipt_that_never_comes_is_a_finding(breakable: BreakableCloud) -> None:
    await breakable.phone(breakable.gus, "phone")
    breakable.cloud.expo.configure({"receipt_delay_seconds": 3600})
    now = 0.0

    def time_passes(seconds: float) -> None:
        nonlocal now
        now += RECEIPT_WITHIN.total_seconds() / 2

    results = await sent(breakable, breakable.gus.id, time_passes, lambda: now)
    assert [type(result) for result in results] == [Waiting, Waiting, Waiting, Finding]
    assert "no receipt after 30 minutes" in str(results[-1])
