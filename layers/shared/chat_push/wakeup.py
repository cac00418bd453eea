"""Wake-ups: records in PushQueue that start a sweep at a time in the future. The only module that calls SQS.

EventBridge Scheduler starts a sweep at most once a minute, and a sweep must end with its invocation.
"""

from collections.abc import Sequence
from functools import cache
from itertools import batched

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import AwareDatetime, BaseModel, ConfigDict

from chat_push.observability import logger

# One attempt is enough: if it is lost, a later sweep finds the jobs.
CLIENT_TIMEOUTS = Config(connect_timeout=1, read_timeout=2, retries={"total_max_attempts": 1})
ENTRIES_PER_REQUEST = 10


class Wakeup(BaseModel):
    """The body of a wake-up.

    hops: wake-ups from an invocation without a wake-up to this one, 1 or more. sweep_until: sweep, and wake further
    sweeps until this time. None: claim once what is due.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    hops: int
    sweep_until: AwareDatetime | None = None


def send_wakeups(queue_url: str, wakeups: Sequence[tuple[int, Wakeup]]) -> None:
    """Queues wake-ups, each with its delay in whole seconds (0 to 900). What SQS does not take is logged."""
    for entries in batched(enumerate(wakeups), ENTRIES_PER_REQUEST):
        try:
            answer = _sqs().send_message_batch(
                QueueUrl=queue_url,
                Entries=[
                    {"Id": str(number), "DelaySeconds": delay, "MessageBody": wakeup.model_dump_json()}
                    for number, (delay, wakeup) in entries
                ],
            )
            errors = [failed["Code"] for failed in answer.get("Failed", [])]
        except (BotoCoreError, ClientError) as error:
            errors = [type(error).__name__]
        if errors:
            logger.error("no wake-up sent: a later sweep finds the due jobs", errors=errors)


# A lambda, because the type of the client has no name in the deployed packages.
_sqs = cache(lambda: boto3.client("sqs", config=CLIENT_TIMEOUTS))
