"""./dev doctor --send: one test push to each phone of a person, followed to its receipt."""

import asyncio
from collections.abc import Callable
from uuid import UUID, uuid4

import pytest

from local.providers.expo.faults import HttpError, ReceiptError, TicketError
from operate.doctor.push_service import RECEIPT_WITHIN, send_test_push
from operate.doctor.results import Finding, Healthy, Result, Waiting
from tests.operate.conftest import BreakableCloud


async def sent(
    patient: BreakableCloud,
    person: UUID,
    pause: Callable[[float], None] | None = None,
    clock: Callable[[], float] = lambda: 0,
) -> list[Result]:
    """What the doctor says of a test push. Unless a test says otherwise, it must not have to wait."""

    def must_not_wait(seconds: float) -> None:
        raise AssertionError("a receipt is missing")

    def run() -> list[Result]:
        return list(send_test_push(patient.system(), person, pause or must_not_wait, clock))

    return await asyncio.to_thread(run)


def findings(results: list[Result]) -> list[Finding]:
    return [result for result in results if isinstance(result, Finding)]


async def test_each_phone_shows_one_push_and_its_receipt_is_told(patient: BreakableCloud) -> None:
    phones = [
        await patient.phone(patient.gus, "iPhone", "ios"),
        await patient.phone(patient.gus, "Android", "android"),
        await patient.phone(patient.tina, "of somebody else"),
    ]
    code, output = await patient.run(f"./dev doctor --env {patient.env_file} --send {patient.gus.id}")
    assert (code, output.splitlines()[-1]) == (0, "healthy")
    assert output.count("accepted by Expo") == 2
    assert "test push to ios device iPhone: handed over to APNs" in output
    assert "test push to android device Android: handed over to FCM" in output
    assert [len(phone.shown) for phone in phones] == [1, 1, 0]
    assert all(phone.token not in output for phone in phones)


async def test_it_is_seen_in_no_conversation(patient: BreakableCloud) -> None:
    await patient.phone(patient.gus, "phone")
    tables = ("public.chat_rooms", "public.chat_messages", "public.message_receipts", "push.jobs", "push.deliveries")
    before = [await patient.count(table) for table in tables]
    await sent(patient, patient.gus.id)
    assert [await patient.count(table) for table in tables] == before


@pytest.mark.parametrize("registered", [False, True])
async def test_person_whom_no_push_can_reach(patient: BreakableCloud, registered: bool) -> None:
    if registered:
        await patient.phone(patient.gus, "phone")
        await patient.execute("update public.user_devices set is_active = false")
    [finding] = findings(await sent(patient, patient.gus.id))
    assert finding.what.endswith(f"of {int(registered)} devices")
    assert "POST /api/push/register" in finding.remedy


async def test_an_id_that_nobody_has_is_said_as_such(patient: BreakableCloud) -> None:
    nobody = uuid4()
    [finding] = findings(await sent(patient, nobody))
    assert finding.what == f"nobody has the id {nobody}"
    assert "public.users" in finding.remedy


@pytest.mark.parametrize("report", ["ticket", "receipt"])
async def test_dead_token_is_told_and_hides_no_other_device(patient: BreakableCloud, report: str) -> None:
    dead, alive = await patient.phone(patient.gus, "dead"), await patient.phone(patient.gus, "alive")
    patient.cloud.expo.uninstall(dead.token, report=report)  # type: ignore[arg-type]
    results = await sent(patient, patient.gus.id)
    [finding] = findings(results)
    assert finding.what.endswith(": DeviceNotRegistered")
    assert "registers anew" in finding.remedy
    assert len([result for result in results if isinstance(result, Healthy)]) == 1
    assert len(alive.shown) == 1
    # Registering anew is what mends it.
    patient.cloud.expo.install(dead.token, "ios")
    await patient.gus.log_in_on(dead, "dead")
    assert findings(await sent(patient, patient.gus.id)) == []


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        ("InvalidCredentials", "eas credentials"),
        ("MismatchSenderId", "google-services.json"),
        ("MessageRateExceeded", "trying again"),
        ("SomethingNew", "trying again"),
    ],
)
@pytest.mark.parametrize("fault", [TicketError, ReceiptError])
async def test_error_of_a_device_is_told_with_what_mends_it(
    patient: BreakableCloud, fault: type[TicketError | ReceiptError], error: str, remedy: str
) -> None:
    phone = await patient.phone(patient.gus, "phone")
    patient.cloud.expo.script(fault(error=error), token=phone.token)
    [finding] = findings(await sent(patient, patient.gus.id))
    assert finding.what.endswith(f": {error}")
    assert remedy in finding.remedy


async def test_access_token_that_may_not_send(patient: BreakableCloud) -> None:
    await patient.phone(patient.gus, "phone")
    patient.cloud.expo.script(HttpError(status=403))
    [finding] = findings(await sent(patient, patient.gus.id))
    assert finding.remedy == f"./dev secrets put --env {patient.env_file}"


async def test_receipt_is_awaited_with_a_line_of_progress(patient: BreakableCloud) -> None:
    await patient.phone(patient.gus, "phone")
    patient.cloud.expo.configure({"receipt_delay_seconds": 3600})

    def half_an_hour_passes(seconds: float) -> None:
        patient.cloud.expo.settings.receipt_delay_seconds = 0

    results = await sent(patient, patient.gus.id, half_an_hour_passes)
    assert [type(result) for result in results] == [Waiting, Waiting, Healthy]
    assert "1 receipts, for 0 seconds now" in str(results[1])


async def test_receipts_that_are_unavailable_for_a_while_are_asked_for_again(patient: BreakableCloud) -> None:
    await patient.phone(patient.gus, "phone")
    patient.cloud.expo.script(HttpError(status=503, body="html"), on="receipts")
    results = await sent(patient, patient.gus.id, lambda seconds: None)
    assert "Expo gives no receipts now (Http503)" in str(results[1])
    assert isinstance(results[-1], Healthy)


async def test_receipt_that_never_comes_is_a_finding(patient: BreakableCloud) -> None:
    await patient.phone(patient.gus, "phone")
    patient.cloud.expo.configure({"receipt_delay_seconds": 3600})
    now = 0.0

    def time_passes(seconds: float) -> None:
        nonlocal now
        now += RECEIPT_WITHIN.total_seconds() / 2

    results = await sent(patient, patient.gus.id, time_passes, lambda: now)
    assert [type(result) for result in results] == [Waiting, Waiting, Waiting, Finding]
    assert "no receipt after 30 minutes" in str(results[-1])
