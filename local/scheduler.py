"""EventBridge Scheduler: invokes functions at a fixed rate, asynchronously."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from local.lambda_runtime import FunctionError, LambdaFunction
from local.template import Schedule

logger = logging.getLogger(__name__)


class Scheduler:
    """Schedules of the template, by logical id."""

    def __init__(self, schedules: Mapping[str, Schedule], functions: Mapping[str, LambdaFunction]) -> None:
        self._schedules = schedules
        self._functions = functions

    async def fire(self, name: str) -> None:
        """Invoke the function of a schedule now, and wait for its end.

        An error is only logged: nobody gets the answer of an asynchronous invocation.
        """
        schedule = self._schedules[name]
        try:
            await self._functions[schedule.function].invoke(schedule.event)
        except FunctionError as error:
            logger.warning("%s failed: %s", name, error)

    async def run(self, name: str) -> None:
        """Fire a schedule for ever; first after one period, then a period after each end."""
        while True:
            await asyncio.sleep(self._schedules[name].period.total_seconds())
            await self.fire(name)


@asynccontextmanager
async def scheduler(
    schedules: Mapping[str, Schedule], functions: Mapping[str, LambdaFunction], *, automatic: bool = True
) -> AsyncIterator[Scheduler]:
    """Fire the schedules in their time while the context is open; not `automatic`: only when `fire` is called."""
    running = Scheduler(schedules, functions)
    tasks = [asyncio.create_task(running.run(name)) for name in schedules] if automatic else []
    try:
        yield running
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
