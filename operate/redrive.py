"""Puts dead letters back into their queue, in a deployed stack or in a running local cloud."""

from pathlib import Path
from typing import TYPE_CHECKING

from operate.stack import aws_of, local_aws, local_environment, stack_resource

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient


def redrive_stack(stack: str) -> int:
    """Redrives a deployed stack, as whoever the AWS configuration says; returns how many records that were.

    Raises NotReachable.
    """
    dead_letters_url, queue_url = (stack_resource(stack, queue) for queue in ("PushDeadLetters", "PushQueue"))
    return move_dead_letters(aws_of(stack).client("sqs"), dead_letters_url, queue_url)


def redrive_local(env_file: Path) -> int:
    """Redrives the cloud that `./dev up --env FILE` keeps running; returns how many records that were.

    Raises NotReachable.
    """
    environment = local_environment(env_file)
    session, endpoint_url = local_aws(environment)
    sqs = session.client("sqs", endpoint_url=endpoint_url)
    return move_dead_letters(sqs, environment["DEAD_LETTERS_URL"], environment["SQS_URL"])


def move_dead_letters(sqs: "SQSClient", dead_letters_url: str, queue_url: str) -> int:
    """Sends every dead letter to its queue again and only then deletes it; returns how many.

    By hand, because the local cloud knows no StartMessageMoveTask. Whoever ends it in between leaves a record in both
    queues, which sends nothing twice: a job has one lease.
    """
    moved = 0
    # The wait makes SQS ask all of its servers; else it answers with the records of some.
    while found := sqs.receive_message(QueueUrl=dead_letters_url, MaxNumberOfMessages=10, WaitTimeSeconds=1).get(
        "Messages", []
    ):
        for message in found:
            sqs.send_message(QueueUrl=queue_url, MessageBody=message["Body"])
            sqs.delete_message(QueueUrl=dead_letters_url, ReceiptHandle=message["ReceiptHandle"])
        moved += len(found)
    return moved
