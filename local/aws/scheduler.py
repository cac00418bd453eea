"""EventBridge Scheduler: invokes functions at a fixed rate, and does not wait for them."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

from local.aws.lambda_runtime import FunctionError, LambdaFunction
from local.aws.template import Schedule
from local.types import Json

logger = logging.getLogger(__name__)


class Scheduler:
    """Schedules of the template, by logical id."""

    def __init__(self, schedules: Mapping[str, Schedule], functions: Mapping[str, LambdaFunction]) -> None:
        self._schedules = schedules
        self._functions = functions

    async def fire(self, name: str, event: Json = None) -> None:
        """Invoke the function of a schedule now, and wait for its end. `event`: instead of that of the template.

        An error is only logged: an asynchronous invocation has no caller to answer.
        """
        schedule = self._schedules[name]
        try:
            await self._invoke(schedule if event is None else replace(schedule, event=event))
        except FunctionError as error:
            logger.warning("%s failed: %s", name, error)

    async def run(self, name: str) -> None:
        """Fire a schedule in each period, for ever, whether or not the last invocation has ended."""
        async with asyncio.TaskGroup() as invocations:
            while True:
                await asyncio.sleep(self._schedules[name].period.total_seconds())
                invocations.create_task(self.fire(name))

    async def _invoke(self, schedule: Schedule) -> None:
        """Invoke the function. While the account is at its limit, Lambda retries until the event is too old.

        https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html
        """
        until = time.monotonic() + schedule.maximum_event_age.total_seconds()
        function = self._functions[schedule.function]
        await function.invoke_with_retries(schedule.event, until=until, wait=1, longest_wait=300)


@asynccontextmanager
async def scheduler(
    schedules: Mapping[str, Schedule], functions: Mapping[str, LambdaFunction], *, automatic: bool = True
) -> AsyncIterator[Scheduler]:
    """Fire the schedules while the context is open; if not `automatic`, only when `fire` is called."""
    running = Scheduler(schedules, functions)
    tasks = [asyncio.create_task(running.run(name)) for name in schedules] if automatic else []
    try:
        yield running
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
