"""./dev redrive moves dead letters back into their queue, in a deployed stack or in the local cloud."""

import asyncio
import json
import sys
from pathlib import Path
from uuid import uuid4

import boto3
import pytest

from local.aws.services import Aws
from operate.__main__ import main
from operate.redrive import move_dead_letters, redrive_local, redrive_stack


class Stack:
    """The queues of a deployed stack."""

    def __init__(self, aws: Aws, name: str) -> None:
        self.aws = aws
        self.name = name
        queue = {"Type": "AWS::SQS::Queue"}
        cloudformation = boto3.client("cloudformation")
        cloudformation.create_stack(
            StackName=name, TemplateBody=json.dumps({"Resources": {"PushQueue": queue, "PushDeadLetters": queue}})
        )
        resources = cloudformation.describe_stack_resources(StackName=name)["StackResources"]
        urls = {resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in resources}
        self.queue, self.dead_letters = urls["PushQueue"], urls["PushDeadLetters"]

    def put(self, *bodies: str) -> None:
        """Adds dead letters."""
        for body in bodies:
            self.aws.sqs.send_message(QueueUrl=self.dead_letters, MessageBody=body)

    def queued(self) -> list[str]:
        """Receives the records of the queue and returns their bodies."""
        bodies: list[str] = []
        while found := self.aws.sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10).get("Messages"):
            bodies += [message["Body"] for message in found]
        return bodies

    def dead(self) -> int:
        counted = self.aws.sqs.get_queue_attributes(QueueUrl=self.dead_letters, AttributeNames=["All"])["Attributes"]
        return int(counted["ApproximateNumberOfMessages"]) + int(counted["ApproximateNumberOfMessagesNotVisible"])


@pytest.fixture
async def stack(services: Aws, monkeypatch: pytest.MonkeyPatch) -> Stack:
    for name, value in services.environment.items():
        monkeypatch.setenv(name, value)  # so that boto3 finds the stack
    return await asyncio.to_thread(Stack, services, f"chat-push-{uuid4().hex}")


async def test_redrive_moves_each_dead_letter_once_with_its_body_unchanged(stack: Stack) -> None:
    ids = [str(uuid4()) for _ in range(23)]
    stack.put(*ids)
    assert await asyncio.to_thread(redrive_stack, stack.name) == 23
    assert sorted(stack.queued()) == sorted(ids)
    assert stack.dead() == 0


async def test_redrive_of_an_empty_queue_moves_nothing(stack: Stack) -> None:
    assert await asyncio.to_thread(redrive_stack, stack.name) == 0


async def test_a_record_that_cannot_be_sent_stays_a_dead_letter(stack: Stack) -> None:
    stack.put("id")
    with pytest.raises(stack.aws.sqs.exceptions.QueueDoesNotExist):
        await asyncio.to_thread(move_dead_letters, stack.aws.sqs, stack.dead_letters, f"{stack.queue}-gone")
    assert stack.dead() == 1


async def test_redrive_names_what_it_may_not_do(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stack.put("id")
    stack.aws.sqs.delete_queue(QueueUrl=stack.queue)
    monkeypatch.setattr(sys, "argv", ["./dev", "redrive", "--stack", stack.name])
    assert await asyncio.to_thread(main) == 1
    assert capsys.readouterr().err.startswith(f"./dev redrive: --stack {stack.name}: An error occurred (")
    assert stack.dead() == 1


async def test_redrive_finds_the_local_cloud_by_its_env_file(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in stack.aws.environment:
        monkeypatch.delenv(name)
    env_file = tmp_path / "env"
    # The URLs of the local cloud point to it; those of moto's CloudFormation point to AWS.
    queue, dead_letters = (
        url.replace("https://sqs.us-east-1.amazonaws.com", stack.aws.endpoint_url)
        for url in (stack.queue, stack.dead_letters)
    )
    environment = {**stack.aws.environment, "SQS_URL": queue, "DEAD_LETTERS_URL": dead_letters}
    env_file.write_text("".join(f"{name}={value}\n" for name, value in environment.items()))
    stack.put("id")
    assert await asyncio.to_thread(redrive_local, env_file) == 1
    assert stack.queued() == ["id"]
