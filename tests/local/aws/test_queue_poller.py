"""Messages of a queue reach a function, come back and become dead letters as with Lambda's own pollers."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders
from moto.core.botocore_stubber import MockRawResponse

from local.aws.account import ACCOUNT
from local.aws.lambda_runtime import ACCOUNT_CONCURRENCY, Account, LambdaFunction
from local.aws.queue_poller import REDELIVERED_EVERY, QueuePoller, failed_messages, queue_poller
from local.aws.services import Aws
from local.aws.template import EventSourceMapping, Queue, Redrive, Template
from local.types import Json
from tests.local.aws.conftest import StartFunction
from tests.waiting import eventually

FUNCTION = """
    import json, os, time

    def lambda_handler(event, context):
        print(json.dumps([record["body"] for record in event["Records"]]))
        bodies = {record["messageId"]: record["body"] for record in event["Records"]}
        if "raise" in bodies.values():
            raise LookupError("the whole batch")
        if "sleep" in bodies.values():
            time.sleep(4)
        if "wait" in bodies.values():
            while not os.path.exists(f"{os.environ['LAMBDA_TASK_ROOT']}/go"):
                time.sleep(0.01)
        if "record" in bodies.values():
            print("record: " + json.dumps(event["Records"][0]))
        poison = [key for key, body in bodies.items() if body == "poison"]
        return {"batchItemFailures": [{"itemIdentifier": key} for key in poison]}
"""


class Bench:
    """A queue with a dead-letter queue, and a function that is fed from it."""

    def __init__(self, aws: Aws, queue: Queue, dead_letters: Queue, function: LambdaFunction, account: Account) -> None:
        self.aws = aws
        self.queue = queue
        self.dead_letters = dead_letters
        self.function = function
        self.account = account
        self.poller: QueuePoller

    async def send(self, *bodies: str) -> None:
        for body in bodies:
            await asyncio.to_thread(self.aws.sqs.send_message, QueueUrl=self.queue.url, MessageBody=body)

    def batches(self) -> list[str]:
        return [line for line in self.function.log_lines() if line.startswith("[")]

    async def count(self, queue: Queue) -> int:
        answer = await asyncio.to_thread(self.aws.sqs.get_queue_attributes, QueueUrl=queue.url, AttributeNames=["All"])
        attributes = answer["Attributes"]
        return int(attributes["ApproximateNumberOfMessages"]) + int(attributes["ApproximateNumberOfMessagesNotVisible"])


@pytest.fixture
async def bench(services: Aws, start_function: StartFunction) -> AsyncIterator[Bench]:
    def queue(name: str, redrive: Redrive | None) -> Queue:
        url = f"{services.endpoint_url}/{ACCOUNT}/{name}"
        arn = f"arn:aws:sqs:us-east-1:{ACCOUNT}:{name}"
        return Queue(name, arn, url, timedelta(seconds=60), timedelta(days=1), redrive)

    dead_letters = queue(f"dead-{uuid4().hex}", None)
    source = queue(f"queue-{uuid4().hex}", Redrive(dead_letters.name, 2))
    await services.create(Template({}, {source.name: source, dead_letters.name: dead_letters}, {}, (), {}, {}))
    account = Account()
    function = await start_function(FUNCTION, name="Handle", seconds=30, account=account)
    mapping = EventSourceMapping(
        "PushQueueEvent", source.name, "Handle", 10, reports_item_failures=True, maximum_concurrency=2
    )
    bench = Bench(services, source, dead_letters, function, account)
    async with queue_poller(mapping, source, function, services.sqs) as bench.poller:
        yield bench


async def test_handled_messages_are_deleted_from_the_queue(bench: Bench) -> None:
    await bench.send("a", "b")
    await bench.poller.until_idle()
    assert sorted("".join(bench.batches()).replace("][", ", ")) == sorted('["a", "b"]')
    assert await bench.count(bench.queue) == 0


async def test_a_queue_that_answers_500_is_polled_again(bench: Bench) -> None:
    answered = asyncio.Event()
    loop = asyncio.get_running_loop()

    def answer(request: AWSPreparedRequest, **_: object) -> Any:
        if answered.is_set():
            return None
        loop.call_soon_threadsafe(answered.set)
        return AWSResponse(request.url, 500, HTTPHeaders(), MockRawResponse(""))

    bench.aws.sqs.meta.events.register("before-send.sqs.ReceiveMessage", answer)
    await answered.wait()
    bench.aws.sqs.meta.events.unregister("before-send.sqs.ReceiveMessage", answer)
    await bench.send("a")
    await bench.poller.until_idle()
    assert bench.batches() == ['["a"]']


async def test_a_record_has_the_fields_that_lambda_gives_it(bench: Bench) -> None:
    await bench.send("record")
    await bench.poller.until_idle()
    [line] = [line for line in bench.function.log_lines() if line.startswith("record: ")]
    assert '"eventSource": "aws:sqs"' in line
    assert f'"eventSourceARN": "{bench.queue.arn}"' in line
    assert '"ApproximateReceiveCount": "1"' in line
    assert '"messageAttributes": {}' in line


async def test_only_the_messages_reported_as_failed_return_to_the_queue(bench: Bench) -> None:
    await bench.send("a", "poison", "b")
    await bench.poller.until_idle()
    assert await bench.count(bench.queue) == 1
    assert await bench.count(bench.dead_letters) == 0


async def test_a_message_becomes_a_dead_letter_after_its_maximum_of_receives(bench: Bench) -> None:
    await bench.send("poison")
    for _ in range(2):
        await bench.poller.until_idle()
        await bench.poller.return_failed()
    await bench.poller.until_idle()
    assert bench.batches() == ['["poison"]'] * 2
    assert await bench.count(bench.queue) == 0
    assert await bench.count(bench.dead_letters) == 1


async def test_the_whole_batch_returns_to_the_queue_if_the_function_raises(bench: Bench) -> None:
    await bench.send("raise")
    await bench.poller.until_idle()
    assert await bench.count(bench.queue) == 1


async def test_the_whole_batch_returns_to_the_queue_if_the_function_is_killed(bench: Bench) -> None:
    await bench.send("sleep")
    await eventually(lambda: bench.batches() == ['["sleep"]'])
    await bench.function.kill()
    await bench.poller.until_idle()
    assert await bench.count(bench.queue) == 1


async def test_batches_run_concurrently_up_to_the_maximum_concurrency(bench: Bench, tmp_path: Path) -> None:
    for number in range(1, 4):
        await bench.send("wait")
        await eventually(lambda number=number: len(bench.batches()) == min(number, 2))  # type: ignore[misc]
    assert bench.function.environments() == 2
    (tmp_path / "Handle" / "go").touch()
    await bench.poller.until_idle()
    assert bench.batches() == ['["wait"]'] * 3
    assert bench.function.environments() == 2


async def test_a_throttled_batch_waits_and_is_not_received_again(bench: Bench) -> None:
    with ExitStack() as others:
        for _ in range(ACCOUNT_CONCURRENCY):
            others.enter_context(bench.account.execution("Other"))
        await bench.send("record")
        await eventually(lambda: bench.account.throttled >= 2)
        assert bench.batches() == []
    await bench.poller.until_idle()
    [line] = [line for line in bench.function.log_lines() if line.startswith("record: ")]
    assert '"ApproximateReceiveCount": "1"' in line
    assert await bench.count(bench.queue) == 0


async def test_the_poller_can_deliver_handled_messages_a_second_time(bench: Bench) -> None:
    bodies = [f"message {number}" for number in range(2 * REDELIVERED_EVERY)]
    await bench.send(*bodies)
    await bench.poller.until_idle()
    handled = Counter(body for batch in bench.batches() for body in json.loads(batch))
    assert handled.keys() == set(bodies)
    assert sorted(handled.values())[-3:] == [1, 2, 2]
    assert bench.poller.redelivered == 2
    assert await bench.count(bench.queue) == 0
    assert await bench.count(bench.dead_letters) == 0


async def test_messages_that_are_queued_while_the_poller_is_paused_arrive_in_one_batch(bench: Bench) -> None:
    async with bench.poller.paused():
        await bench.send("a", "b", "c")
    await bench.poller.until_idle()
    assert bench.batches() == ['["a", "b", "c"]']


@pytest.mark.parametrize(
    ("answer", "failed"),
    [
        (None, ""),
        ({}, ""),
        ({"batchItemFailures": None}, ""),
        ({"batchItemFailures": []}, ""),
        ({"batchItemFailures": [{"itemIdentifier": "a"}]}, "a"),
        ({"batchItemFailures": [{"itemIdentifier": "a"}, {"itemIdentifier": "a"}]}, "a"),
        ({"batchItemFailures": [{"itemIdentifier": ""}]}, "abc"),
        ({"batchItemFailures": [{"itemIdentifier": None}]}, "abc"),
        ({"batchItemFailures": [{"itemIdentifier": "a"}, {"itemIdentifier": "unknown"}]}, "abc"),
        ({"batchItemFailures": [{"id": "a"}]}, "abc"),
        ({"batchItemFailures": ["a"]}, "abc"),
        ({"batchItemFailures": "a"}, "abc"),
        ("done", "abc"),
    ],
)
def test_an_answer_of_the_function_fails_the_messages_that_lambda_would_fail(answer: Json, failed: str) -> None:
    assert failed_messages(answer, ["a", "b", "c"]) == set(failed)
