"""Where a command works: the resources of a deployed stack, or the environment of a running local cloud."""

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
    """The stack or the local cloud cannot be reached. The text names the option and the fix."""


def aws_of(stack: str) -> boto3.Session:
    """A session in the Region of the stack, which `sam deploy` writes only into samconfig.toml."""
    return boto3.Session(region_name=deployed_region(stack))


def deployed_region(stack: str) -> str | None:
    """The Region that samconfig.toml names for a stack; None if it names none and the AWS configuration decides.

    Raises NotReachable.
    """
    try:
        environments = tomllib.loads(SAMCONFIG.read_text()).values()
    except (OSError, ValueError) as error:
        raise NotReachable(f"--stack {stack}: samconfig.toml cannot be read: {error}") from None
    for commands in environments:
        deploy = commands.get("deploy", {}).get("parameters", {}) if isinstance(commands, dict) else {}
        if deploy.get("stack_name") == stack and "region" in deploy:
            return str(deploy["region"])
    return None


def stack_resource(stack: str, logical_id: str) -> str:
    """The physical id of a resource: a queue's URL, a secret's ARN. Raises NotReachable."""
    with not_reachable_on_error(f"--stack {stack}"):
        found = (
            aws_of(stack)
            .client("cloudformation")
            .describe_stack_resource(StackName=stack, LogicalResourceId=logical_id)
        )
        return found["StackResourceDetail"]["PhysicalResourceId"]


def stack_outputs(stack: str) -> dict[str, str]:
    """The outputs of the stack by name. Raises NotReachable."""
    with not_reachable_on_error(f"--stack {stack}"):
        (described,) = aws_of(stack).client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
        return {output["OutputKey"]: output["OutputValue"] for output in described.get("Outputs", [])}


def local_environment(env_file: Path) -> dict[str, str]:
    """The variables that `./dev up --env FILE` wrote. Raises NotReachable, also if that cloud does not run any more."""
    try:
        environment = dict(line.split("=", 1) for line in env_file.read_text().splitlines())
        aws = urlsplit(environment["AWS_ENDPOINT_URL"])
        port = aws.port or 80
    except (OSError, ValueError, KeyError) as error:
        raise NotReachable(f"--env {env_file}: not a file that ./dev up --env FILE wrote ({error})") from None
    try:
        socket.create_connection((aws.hostname or "", port), timeout=5).close()
    except OSError:
        raise NotReachable(
            f"--env {env_file}: its local cloud does not run any more; start it again: ./dev up --env {env_file}"
        ) from None
    return environment


def local_aws(environment: Mapping[str, str]) -> tuple[boto3.Session, str]:
    """A session for the AWS services of the local cloud with this environment, and their endpoint URL."""
    session = boto3.Session(
        environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"], region_name=environment["AWS_REGION"]
    )
    return session, environment["AWS_ENDPOINT_URL"]


@contextmanager
def not_reachable_on_error(where: str) -> Iterator[None]:
    """Raises NotReachable for an error of AWS: no stack, no rights, no credentials, no Region, no network."""
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        # The error names the stack, the action or the missing setting. Some errors end in a full stop.
        raise NotReachable(
            f"{where}: {str(error).rstrip('.')}. Set the account by AWS_PROFILE and the Region by samconfig.toml or "
            "AWS_DEFAULT_REGION. To list the stacks: aws cloudformation list-stacks"
        ) from None
