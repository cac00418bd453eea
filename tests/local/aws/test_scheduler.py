"""A schedule invokes its function asynchronously."""

import asyncio
from datetime import timedelta

from local.aws.lambda_runtime import Account
from local.aws.scheduler import scheduler
from local.aws.template import Schedule
from local.types import Json
from tests.local.aws.conftest import StartFunction
from tests.waiting import eventually

FUNCTION = """
    import time

    def lambda_handler(event, context):
        print(f"swept: {event}")
        time.sleep(event.get("sleep", 0))
        print("ended")
        if event.get("fails"):
            raise LookupError
"""


def schedule(period: timedelta, event: Json, maximum_event_age: timedelta = timedelta(minutes=1)) -> Schedule:
    return Schedule("Sweep", "Echo", period, event, maximum_event_age)


async def test_a_schedule_invokes_its_function_with_its_input(start_function: StartFunction) -> None:
    function = await start_function(FUNCTION)
    sweep = schedule(timedelta(minutes=1), {"fails": False})
    async with scheduler({"Sweep": sweep}, {"Echo": function}, automatic=False) as schedules:
        await schedules.fire("Sweep")
    assert "swept: {'fails': False}" in function.log_lines()


async def test_a_schedule_fires_once_in_its_period_even_if_the_last_invocation_failed(
    start_function: StartFunction,
) -> None:
    function = await start_function(FUNCTION)
    sweep = schedule(timedelta(milliseconds=10), {"fails": True})
    async with scheduler({"Sweep": sweep}, {"Echo": function}):
        await eventually(lambda: function.log_lines().count("swept: {'fails': True}") >= 2)


async def test_a_schedule_fires_while_its_last_invocation_still_runs(start_function: StartFunction) -> None:
    function = await start_function(FUNCTION, account=Account(concurrency=2), seconds=60)
    sweep = schedule(timedelta(milliseconds=10), {"sleep": 60})
    async with scheduler({"Sweep": sweep}, {"Echo": function}):
        await eventually(lambda: function.log_lines().count("swept: {'sleep': 60}") == 2)
    assert "ended" not in function.log_lines()


async def test_a_throttled_scheduled_invocation_is_retried_until_its_event_is_too_old(
    start_function: StartFunction,
) -> None:
    account = Account(concurrency=1)
    function = await start_function(FUNCTION, account=account)
    waits = schedule(timedelta(minutes=1), {"name": "waits"})
    expires = schedule(timedelta(minutes=1), {"name": "expires"}, timedelta(0))
    async with scheduler({"Waits": waits, "Expires": expires}, {"Echo": function}, automatic=False) as schedules:
        with account.execution("Other"):
            await schedules.fire("Expires")
            waiting = asyncio.create_task(schedules.fire("Waits"))
            await eventually(lambda: account.throttled == 2)
        await waiting
    assert "swept: {'name': 'waits'}" in function.log_lines()
    assert "swept: {'name': 'expires'}" not in function.log_lines()
