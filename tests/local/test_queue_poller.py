"""Messages of a queue reach a function, come back and become dead letters as with Lambda's own pollers."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import pytest

from local.account import ACCOUNT
from local.aws import Aws
from local.cloudformation import Json
from local.lambda_runtime import LambdaFunction
from local.queue_poller import QueuePoller, failed_messages, queue_poller
from local.template import EventSourceMapping, Queue, Redrive, Template
from tests.local.conftest import StartFunction, eventually

FUNCTION = """
    import json, time

    def lambda_handler(event, context):
        print(json.dumps([record["body"] for record in event["Records"]]))
        bodies = {record["messageId"]: record["body"] for record in event["Records"]}
        if "raise" in bodies.values():
            raise LookupError("the whole batch")
        if "sleep" in bodies.values():
            time.sleep(4)
        if "record" in bodies.values():
            print("record: " + json.dumps(event["Records"][0]))
        poison = [key for key, body in bodies.items() if body == "poison"]
        return {"batchItemFailures": [{"itemIdentifier": key} for key in poison]}
"""


class Bench:
    """A queue with a dead-letter queue, and a function that is fed from it."""

    def __init__(self, aws: Aws, queue: Queue, dead_letters: Queue, function: LambdaFunction) -> None:
        self.aws = aws
        self.queue = queue
        self.dead_letters = dead_letters
        self.function = function
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
    function = await start_function(FUNCTION, name="Handle")
    mapping = EventSourceMapping("Doorbell", source.name, "Handle", 10, reports_item_failures=True)
    bench = Bench(services, source, dead_letters, function)
    async with queue_poller(mapping, source, function, services.sqs) as bench.poller:
        yield bench


async def test_messages_reach_the_function_and_leave_the_queue(bench: Bench) -> None:
    await bench.send("a", "b")
    await bench.poller.until_idle()
    assert sorted("".join(bench.batches()).replace("][", ", ")) == sorted('["a", "b"]')
    assert await bench.count(bench.queue) == 0


async def test_a_record_looks_as_lambda_builds_it(bench: Bench) -> None:
    await bench.send("record")
    await bench.poller.until_idle()
    [line] = [line for line in bench.function.log_lines() if line.startswith("record: ")]
    assert '"eventSource": "aws:sqs"' in line
    assert f'"eventSourceARN": "{bench.queue.arn}"' in line
    assert '"ApproximateReceiveCount": "1"' in line
    assert '"messageAttributes": {}' in line


async def test_only_the_reported_messages_come_back(bench: Bench) -> None:
    await bench.send("a", "poison", "b")
    await bench.poller.until_idle()
    assert await bench.count(bench.queue) == 1
    assert await bench.count(bench.dead_letters) == 0


async def test_a_message_that_fails_too_often_becomes_a_dead_letter(bench: Bench) -> None:
    await bench.send("poison")
    for _ in range(2):
        await bench.poller.until_idle()
        await bench.poller.return_failed()
    await bench.poller.until_idle()
    assert bench.batches() == ['["poison"]'] * 2
    assert await bench.count(bench.queue) == 0
    assert await bench.count(bench.dead_letters) == 1


async def test_a_batch_whose_function_raises_comes_back_whole(bench: Bench) -> None:
    await bench.send("raise")
    await bench.poller.until_idle()
    assert await bench.count(bench.queue) == 1


async def test_a_batch_whose_function_is_killed_comes_back_whole(bench: Bench) -> None:
    await bench.send("sleep")
    await eventually(lambda: bench.batches() == ['["sleep"]'])
    await bench.function.kill()
    await bench.poller.until_idle()
    assert await bench.count(bench.queue) == 1


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
def test_an_answer_fails_what_lambda_says_it_fails(answer: Json, failed: str) -> None:
    assert failed_messages(answer, ["a", "b", "c"]) == set(failed)
