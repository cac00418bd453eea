"""Moves dead letters back into their queue, in a deployed stack or in a running local cloud."""

from pathlib import Path
from typing import TYPE_CHECKING

from operate.stack import aws_of, local_aws, local_environment, stack_resource

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


def redrive_stack(stack: str) -> int:
    """Moves the dead letters of a stack in the account of the AWS configuration. Returns their number.

    Raises NotReachable.
    """
    dead_letters_url, queue_url = (stack_resource(stack, queue) for queue in ("PushDeadLetters", "PushQueue"))
    return move_dead_letters(aws_of(stack).client("sqs"), dead_letters_url, queue_url)


def redrive_local(env_file: Path) -> int:
    """Moves the dead letters of the cloud that `./dev up --env FILE` runs. Returns their number.

    Raises NotReachable.
    """
    environment = local_environment(env_file)
    session, endpoint_url = local_aws(environment)
    sqs = session.client("sqs", endpoint_url=endpoint_url)
    return move_dead_letters(sqs, environment["DEAD_LETTERS_URL"], environment["SQS_URL"])


def move_dead_letters(sqs: "SQSClient", dead_letters_url: str, queue_url: str) -> int:
    """Sends each dead letter to the queue, then deletes it. Returns the number of records.

    It does not use StartMessageMoveTask, which the local cloud does not implement. If it is interrupted between the two
    calls, the record is in both queues. This sends no push twice, because each job has one lease.
    """
    moved = 0
    # With a wait time (long polling), SQS reads all of its servers; without one, it reads a sample.
    while found := sqs.receive_message(QueueUrl=dead_letters_url, MaxNumberOfMessages=10, WaitTimeSeconds=1).get(
        "Messages", []
    ):
        for message in found:
            sqs.send_message(QueueUrl=queue_url, MessageBody=message["Body"])
            sqs.delete_message(QueueUrl=dead_letters_url, ReceiptHandle=message["ReceiptHandle"])
        moved += len(found)
    return moved
