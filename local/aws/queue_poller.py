"""An event source mapping: passes the messages of an SQS queue to a function in batches, as Lambda's pollers do.

Batches run concurrently, up to the mapping's MaximumConcurrency and the limit of the account. The messages of a failed
batch return after the queue's visibility timeout, and go to its dead-letter queue after maxReceiveCount receives.
Delivery is at least once: some messages are delivered a second time although the function handled them.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from local.aws.account import REGION
from local.aws.lambda_runtime import FunctionError, LambdaFunction
from local.aws.template import EventSourceMapping, Queue
from local.types import Json

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import DeleteMessageBatchRequestEntryTypeDef, MessageTypeDef

# One of this many handled messages is delivered a second time. SQS says only that this happens; here it happens often
# enough for every larger test to see it.
REDELIVERED_EVERY = 20

logger = logging.getLogger(__name__)


class QueuePoller:
    """Polls from its creation until `polling` is cancelled."""

    def __init__(self, mapping: EventSourceMapping, queue: Queue, function: LambdaFunction, sqs: "SQSClient") -> None:
        self.redelivered = 0  # messages that were delivered a second time although they were handled
        self._mapping = mapping
        self._queue = queue
        self._function = function
        self._sqs = sqs
        self._failed: dict[str, tuple[str, float]] = {}  # message id: receipt handle, monotonic time of return
        self._to_redeliver: set[str] = set()  # messages that return for their second delivery
        self._handled = 0
        self._in_work = 0  # batches
        self._change = asyncio.Condition()
        self._receiving = asyncio.Lock()
        self.polling = asyncio.create_task(self._poll())

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Receives nothing while the context is open, so that messages sent in this time can arrive in one batch."""
        async with self._receiving:
            yield

    async def until_idle(self) -> None:
        """Waits until the queue is empty and no batch is handled. Hidden messages that failed do not count."""
        idle = asyncio.create_task(self._until_idle())
        try:
            await asyncio.wait({idle, self.polling}, return_when=asyncio.FIRST_COMPLETED)
            if self.polling.done():
                self.polling.result()  # polling ends by an error only
            await idle
        finally:
            idle.cancel()

    async def return_failed(self) -> None:
        """Ends the visibility timeout of all failed messages now."""
        failed, self._failed = self._failed, {}
        for receipt_handle, _ in failed.values():
            await self._return(receipt_handle)

    async def _poll(self) -> None:
        slots = asyncio.Semaphore(self._mapping.maximum_concurrency)
        async with asyncio.TaskGroup() as batches:
            while True:
                await slots.acquire()  # Lambda receives nothing that it could not invoke the function with
                async with self._receiving:
                    messages = await asyncio.to_thread(self._receive)
                    self._in_work += 1
                batches.create_task(self._work(messages, slots))

    async def _work(self, messages: list["MessageTypeDef"], slots: asyncio.Semaphore) -> None:
        for message in messages:
            self._failed.pop(message["MessageId"], None)
        if messages:
            await self._handle(messages)
        slots.release()
        self._in_work -= 1
        async with self._change:
            self._change.notify_all()

    async def _until_idle(self) -> None:
        async with self._change:
            while not await self._is_idle():
                await self._change.wait()

    async def _is_idle(self) -> bool:
        answer = await asyncio.to_thread(
            self._sqs.get_queue_attributes,
            QueueUrl=self._queue.url,
            AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
        )
        waiting = int(answer["Attributes"]["ApproximateNumberOfMessages"])
        received = int(answer["Attributes"]["ApproximateNumberOfMessagesNotVisible"])
        failed = sum(returns > time.monotonic() for _, returns in self._failed.values())
        return waiting == 0 and received == failed and self._in_work == 0

    def _receive(self) -> list["MessageTypeDef"]:
        try:
            answer = self._sqs.receive_message(
                QueueUrl=self._queue.url,
                MaxNumberOfMessages=min(self._mapping.batch_size, 10),  # SQS gives no more at once
                WaitTimeSeconds=1,
                MessageSystemAttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
        except ClientError as error:
            # A server answers 500 at times, and so does moto under load. Lambda's pollers ask again.
            if error.response["ResponseMetadata"]["HTTPStatusCode"] < 500:
                raise
            logger.warning("SQS answered %s, it is polled again", error.response["ResponseMetadata"]["HTTPStatusCode"])
            return []
        return answer.get("Messages", [])

    async def _handle(self, messages: list["MessageTypeDef"]) -> None:
        returns_at = time.monotonic() + self._queue.visibility_timeout.total_seconds()
        ids = [message["MessageId"] for message in messages]
        try:
            # Lambda retries a throttled batch until its messages return to the queue:
            # https://docs.aws.amazon.com/lambda/latest/operatorguide/sqs-retries.html
            event = {"Records": [self._record(message) for message in messages]}
            answer = await self._function.invoke_with_retries(event, until=returns_at, wait=0.1, longest_wait=5)
            failed = failed_messages(answer, ids) if self._mapping.reports_item_failures else set()
        except FunctionError as error:
            logger.warning("a batch of %s failed and returns to the queue: %s", self._mapping.name, error)
            failed = set(ids)
        done: list[DeleteMessageBatchRequestEntryTypeDef] = []
        for message in messages:
            if message["MessageId"] in failed:
                self._failed[message["MessageId"]] = message["ReceiptHandle"], returns_at
            elif self._comes_again(message["MessageId"]):
                await self._return(message["ReceiptHandle"])
            else:
                done.append({"Id": message["MessageId"], "ReceiptHandle": message["ReceiptHandle"]})
        if done:
            await asyncio.to_thread(self._sqs.delete_message_batch, QueueUrl=self._queue.url, Entries=done)

    def _comes_again(self, message_id: str) -> bool:
        if message_id in self._to_redeliver:  # this was its second delivery
            self._to_redeliver.remove(message_id)
            return False
        self._handled += 1
        again = self._handled % REDELIVERED_EVERY == 0
        if again:
            self._to_redeliver.add(message_id)
            self.redelivered += 1
        return again

    async def _return(self, receipt_handle: str) -> None:
        await asyncio.to_thread(
            self._sqs.change_message_visibility,
            QueueUrl=self._queue.url,
            ReceiptHandle=receipt_handle,
            VisibilityTimeout=0,
        )

    def _record(self, message: "MessageTypeDef") -> dict[str, Any]:
        return {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": message["Body"],
            "attributes": message["Attributes"],
            "messageAttributes": {
                name: {key[0].lower() + key[1:]: value for key, value in attribute.items()}
                for name, attribute in message.get("MessageAttributes", {}).items()
            },
            "md5OfBody": message["MD5OfBody"],
            "eventSource": "aws:sqs",
            "eventSourceARN": self._queue.arn,
            "awsRegion": REGION,
        }


def failed_messages(answer: Json, message_ids: Collection[str]) -> set[str]:
    """The messages that return to the queue after a function with ReportBatchItemFailures gave this answer.

    An answer that names a message Lambda did not send, or has the wrong shape, fails the whole batch:
    https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
    """
    match answer:
        case None | {"batchItemFailures": None} | {"batchItemFailures": []}:
            return set()
        case {"batchItemFailures": [*failures]}:
            named = [item.get("itemIdentifier") if isinstance(item, dict) else None for item in failures]
            known = all(name in message_ids for name in named)
            return {message_id for message_id in message_ids if message_id in named or not known}
        case dict() if "batchItemFailures" not in answer:
            return set()
        case _:
            return set(message_ids)


@asynccontextmanager
async def queue_poller(
    mapping: EventSourceMapping, queue: Queue, function: LambdaFunction, sqs: "SQSClient"
) -> AsyncIterator[QueuePoller]:
    """Polls `queue` for `function` while the context is open."""
    poller = QueuePoller(mapping, queue, function, sqs)
    try:
        yield poller
    finally:
        poller.polling.cancel()
        with suppress(asyncio.CancelledError):
            await poller.polling
