"""What a command works on: the resources of a deployed stack, or the file of a running local cloud."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient


class NotReachable(Exception):
    """The stack or the local cloud is not there, or this account may not look; the text says what to do."""


def stack_resource(stack: str, logical_id: str) -> str:
    """The physical id of a resource: a queue's URL, a secret's ARN. Raises NotReachable."""
    with _found(stack) as cloudformation:
        found = cloudformation.describe_stack_resource(StackName=stack, LogicalResourceId=logical_id)
        return found["StackResourceDetail"]["PhysicalResourceId"]


def stack_outputs(stack: str) -> dict[str, str]:
    """The stack's outputs by name. Raises NotReachable."""
    with _found(stack) as cloudformation:
        (described,) = cloudformation.describe_stacks(StackName=stack)["Stacks"]
        return {output["OutputKey"]: output["OutputValue"] for output in described.get("Outputs", [])}


def local_environment(env_file: Path) -> dict[str, str]:
    """What `./dev up --env FILE` wrote, by name. Raises NotReachable."""
    try:
        return dict(line.split("=", 1) for line in env_file.read_text().splitlines())
    except (OSError, ValueError) as error:
        raise NotReachable(f"--env {env_file}: not a file of ./dev up --env FILE ({error})") from None


@contextmanager
def _found(stack: str) -> Iterator["CloudFormationClient"]:
    """CloudFormation as whoever the AWS configuration says, with its errors in words."""
    try:
        yield boto3.client("cloudformation")
    except (BotoCoreError, ClientError) as error:
        # CloudFormation says of a stack and of a resource alike that it does not exist, and which; botocore names the
        # credentials or the Region that it misses.
        raise NotReachable(
            f"--stack {stack}: {error}. Look at the name with: aws cloudformation list-stacks; "
            "AWS_PROFILE and AWS_REGION choose the account and the Region."
        ) from None
