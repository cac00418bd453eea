"""Wake-ups: how a worker that leaves work behind starts the next one. The only module that knows SQS.

EventBridge Scheduler fires once a minute at the most, and a sweep must end with its invocation.
"""

from datetime import datetime
from functools import cache

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import AwareDatetime, BaseModel, ConfigDict

from chat_push.observability import logger

# The scheduled run finds what a lost wake-up leaves, so that no time is spent on sending one.
_TIMEOUTS = Config(connect_timeout=1, read_timeout=2, retries={"total_max_attempts": 1})


class SweepWakeup(BaseModel):
    """The body of a wake-up: sweep on, but start no sweep after sweep_until."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    sweep_until: AwareDatetime


def wake_sweep(queue_url: str, sweep_until: datetime, delay_seconds: int) -> bool:
    """Queues a sweep that starts when the delay is over; False if SQS did not take it, which is logged."""
    try:
        _sqs().send_message(
            QueueUrl=queue_url,
            MessageBody=SweepWakeup(sweep_until=sweep_until).model_dump_json(),
            DelaySeconds=delay_seconds,
        )
    except (BotoCoreError, ClientError) as error:
        logger.error("no wake-up sent: the next scheduled sweep goes on", error=type(error).__name__)
        return False
    return True


# A lambda, whose type is that of the client, which the deployed packages have no name for.
_sqs = cache(lambda: boto3.client("sqs", config=_TIMEOUTS))
