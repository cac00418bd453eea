"""The commands for whoever runs a deployed stack, or tries them on the local cloud; ./dev sets everything up."""

import argparse
import sys
from pathlib import Path

import boto3

from operate.doctor import add_arguments, doctor
from operate.redrive import redrive_local, redrive_stack
from operate.secrets import put_secrets
from operate.stack import NotReachable, deployed_region


def main() -> int:
    """Runs a command; the exit code."""
    parser = argparse.ArgumentParser(prog="./dev")
    commands = parser.add_subparsers(dest="command", required=True)
    redrive = commands.add_parser("redrive", help="put dead letters back into the queue")
    secrets = commands.add_parser("secrets", help="write keys into the secrets")
    put = secrets.add_subparsers(metavar="put", required=True).add_parser("put", help="ask for them, and write them")
    examine = commands.add_parser("doctor", help="say whether pushes are healthy, and what mends them")
    for command in (redrive, put, examine):
        where = command.add_mutually_exclusive_group(required=True)
        where.add_argument("--stack", metavar="NAME", help="a deployed stack")
        where.add_argument("--env", type=Path, metavar="FILE", help="the local cloud of ./dev up --env FILE")
    add_arguments(examine)
    arguments = parser.parse_args()
    if arguments.stack and (region := deployed_region(arguments.stack)) not in (None, boto3.Session().region_name):
        found = f"The stack is in {region}, as samconfig.toml says."
        print(f"{found} Before aws: export AWS_DEFAULT_REGION={region}\n", file=sys.stderr)
    try:
        match arguments.command:
            case "doctor":
                return doctor(arguments)
            case "redrive":
                moved = redrive_stack(arguments.stack) if arguments.stack else redrive_local(arguments.env)
                print(f"{moved} dead letters are back in the queue")
            case "secrets":
                put_secrets(arguments.stack, arguments.env)
    except NotReachable as error:
        sys.exit(f"./dev {arguments.command}: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
