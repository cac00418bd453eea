"""The commands for whoever runs a deployed stack, or tries them on the local cloud; ./dev sets everything up."""

import argparse
import sys
from pathlib import Path
from uuid import UUID

# What a command imports, it imports itself: ./dev parses options before anything is installed.


def parser() -> argparse.ArgumentParser:
    """The options, which ./dev shows and checks before anything is installed."""
    options = argparse.ArgumentParser(prog="./dev")
    commands = options.add_subparsers(dest="command", required=True)
    redrive = commands.add_parser("redrive", description="Puts dead letters back into the queue.")
    secrets = commands.add_parser("secrets", description="Writes keys into the secrets of a stack.")
    put = secrets.add_subparsers(metavar="put", required=True).add_parser(
        "put", help="ask for them, and write them", description="Asks for the keys of a stack, and writes them."
    )
    examine = commands.add_parser("doctor", description="Says whether pushes are healthy, and what mends them.")
    for command in (redrive, put, examine):
        where = command.add_mutually_exclusive_group(required=True)
        where.add_argument("--stack", metavar="NAME", help="a deployed stack")
        where.add_argument("--env", type=Path, metavar="FILE", help="the local cloud of ./dev up --env FILE")
    examine.add_argument(
        "--send", type=UUID, metavar="USER", help="send one test push to this person's phones (users.id), and follow it"
    )
    return options


def main() -> int:
    """Runs a command; the exit code."""
    arguments = parser().parse_args()

    import boto3

    from operate.doctor import doctor
    from operate.redrive import redrive_local, redrive_stack
    from operate.secrets import put_secrets
    from operate.stack import NotReachable, deployed_region

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
