"""A schedule invokes its function asynchronously."""

from datetime import timedelta

from local.scheduler import scheduler
from local.template import Schedule
from tests.local.conftest import StartFunction, eventually

FUNCTION = """
    def lambda_handler(event, context):
        print(f"swept: {event}")
        if event["fails"]:
            raise LookupError
"""


async def test_a_schedule_invokes_its_function_with_its_input(start_function: StartFunction) -> None:
    function = await start_function(FUNCTION)
    sweep = Schedule("Sweep", "Echo", timedelta(minutes=1), {"fails": False})
    async with scheduler({"Sweep": sweep}, {"Echo": function}, automatic=False) as schedules:
        await schedules.fire("Sweep")
    assert "swept: {'fails': False}" in function.log_lines()


async def test_a_schedule_fires_once_in_its_period_whatever_became_of_the_last_time(
    start_function: StartFunction,
) -> None:
    function = await start_function(FUNCTION)
    sweep = Schedule("Sweep", "Echo", timedelta(milliseconds=10), {"fails": True})
    async with scheduler({"Sweep": sweep}, {"Echo": function}):
        await eventually(lambda: function.log_lines().count("swept: {'fails': True}") >= 2)
