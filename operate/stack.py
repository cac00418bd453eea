"""What a command works on: the resources of a deployed stack, or the file of a running local cloud."""

import socket
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import BotoCoreError, ClientError

SAMCONFIG = Path(__file__).parents[1] / "samconfig.toml"


class NotReachable(Exception):
    """The stack or the local cloud is not there, or this account may not look; the text says what to do."""


def aws_of(stack: str) -> boto3.Session:
    """AWS where `sam deploy` has put the stack: it writes the Region into samconfig.toml, and nowhere else."""
    return boto3.Session(region_name=deployed_region(stack))


def deployed_region(stack: str) -> str | None:
    """The Region that samconfig.toml names for a stack; None: that of AWS's configuration."""
    for commands in tomllib.loads(SAMCONFIG.read_text()).values():
        deploy = commands.get("deploy", {}).get("parameters", {}) if isinstance(commands, dict) else {}
        if deploy.get("stack_name") == stack and "region" in deploy:
            return str(deploy["region"])
    return None


def stack_resource(stack: str, logical_id: str) -> str:
    """The physical id of a resource: a queue's URL, a secret's ARN. Raises NotReachable."""
    with reached(f"--stack {stack}"):
        found = (
            aws_of(stack)
            .client("cloudformation")
            .describe_stack_resource(StackName=stack, LogicalResourceId=logical_id)
        )
        return found["StackResourceDetail"]["PhysicalResourceId"]


def stack_outputs(stack: str) -> dict[str, str]:
    """The stack's outputs by name. Raises NotReachable."""
    with reached(f"--stack {stack}"):
        (described,) = aws_of(stack).client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
        return {output["OutputKey"]: output["OutputValue"] for output in described.get("Outputs", [])}


def local_environment(env_file: Path) -> dict[str, str]:
    """What `./dev up --env FILE` wrote, by name. Raises NotReachable, also if that cloud has ended since."""
    try:
        environment = dict(line.split("=", 1) for line in env_file.read_text().splitlines())
        aws = urlsplit(environment["AWS_ENDPOINT_URL"])
    except (OSError, ValueError, KeyError) as error:
        raise NotReachable(f"--env {env_file}: not a file of ./dev up --env FILE ({error})") from None
    try:
        socket.create_connection((aws.hostname or "", aws.port or 80), timeout=5).close()
    except OSError:
        raise NotReachable(
            f"--env {env_file}: its local cloud does not run any more; start it anew: ./dev up --env {env_file}"
        ) from None
    return environment


def local_aws(environment: Mapping[str, str]) -> tuple[boto3.Session, str]:
    """The AWS services of the local cloud that has this environment: a session, and the URL for its clients."""
    session = boto3.Session(
        environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"], region_name=environment["AWS_REGION"]
    )
    return session, environment["AWS_ENDPOINT_URL"]


@contextmanager
def reached(where: str) -> Iterator[None]:
    """Turns what AWS refuses into NotReachable: no such stack, no rights, no credentials, no Region, no network."""
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        # AWS names the stack, resource or action, and botocore what it misses; some of their sentences end in a stop.
        raise NotReachable(
            f"{where}: {str(error).rstrip('.')}. AWS_PROFILE chooses the account, samconfig.toml the Region, or else "
            "AWS_DEFAULT_REGION; its stacks are listed by: aws cloudformation list-stacks"
        ) from None
