"""Wake-ups: a sweep that leaves due jobs starts the next sweep through SQS. The only module that calls SQS.

EventBridge Scheduler starts a sweep at most once a minute, and a sweep must end with its invocation.
"""

from datetime import datetime
from functools import cache

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import AwareDatetime, BaseModel, ConfigDict

from chat_push.observability import logger

# One attempt is enough: if it is lost, the next scheduled sweep finds the jobs.
CLIENT_TIMEOUTS = Config(connect_timeout=1, read_timeout=2, retries={"total_max_attempts": 1})


class SweepWakeup(BaseModel):
    """The body of a wake-up: sweep, and wake further sweeps until `sweep_until`."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    sweep_until: AwareDatetime


def wake_sweep(queue_url: str, sweep_until: datetime, delay_seconds: int) -> bool:
    """Queues a sweep that starts after the delay. False if SQS did not take it, which is logged."""
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


# A lambda, because the type of the client has no name in the deployed packages.
_sqs = cache(lambda: boto3.client("sqs", config=CLIENT_TIMEOUTS))
