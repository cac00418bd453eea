"""The commands of ./dev for the operator of a deployed stack. They also work on the local cloud."""

import argparse
import sys
from uuid import UUID

from operate.files import file_of_caller

# The imports are inside main(), because ./dev calls parser() before any package is installed.


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the options, which needs the standard library only."""
    options = argparse.ArgumentParser(prog="./dev")
    commands = options.add_subparsers(dest="command", required=True)
    redrive = commands.add_parser("redrive", description="Puts dead letters back into the queue.")
    secrets = commands.add_parser("secrets", description="Writes the keys of a stack into its secrets.")
    put = secrets.add_subparsers(metavar="put", required=True).add_parser(
        "put", help="ask for the keys and write them", description="Asks for the keys of a stack and writes them."
    )
    examine = commands.add_parser(
        "doctor", description="Checks whether pushes are healthy, and names a remedy for each fault."
    )
    for command in (redrive, put, examine):
        where = command.add_mutually_exclusive_group(required=True)
        where.add_argument("--stack", type=_stack, metavar="NAME", help="a deployed stack")
        where.add_argument("--env", type=file_of_caller, metavar="FILE", help="the local cloud of ./dev up --env FILE")
    examine.add_argument(
        "--send",
        type=UUID,
        metavar="USER",
        help="send one test push to the phones of this user (users.id) and wait for its receipts",
    )
    return options


def _stack(name: str) -> str:
    if not name:  # as of --stack "$STACK", if the variable is not set
        raise argparse.ArgumentTypeError("the name of the stack is empty")
    return name


def main() -> int:
    """Runs a command and returns the exit code. That of the doctor is 2 if it could examine nothing."""
    arguments = parser().parse_args()

    import boto3

    from operate.doctor import doctor
    from operate.redrive import redrive_local, redrive_stack
    from operate.secrets import put_secrets
    from operate.stack import NotReachable, deployed_region, not_reachable_on_error

    where = f"--stack {arguments.stack}" if arguments.stack else f"--env {arguments.env}"
    try:
        with not_reachable_on_error(where):
            region = deployed_region(arguments.stack) if arguments.stack else None
            if region and region != boto3.Session().region_name:
                found = f"samconfig.toml names the Region {region} for this stack."
                print(f"{found} Before you run aws: export AWS_DEFAULT_REGION={region}\n", file=sys.stderr)
            match arguments.command:
                case "doctor":
                    return doctor(arguments)
                case "redrive":
                    moved = redrive_stack(arguments.stack) if arguments.stack else redrive_local(arguments.env)
                    print(f"{moved} dead letters are back in the queue")
                case "secrets":
                    put_secrets(arguments.stack, arguments.env)
    except NotReachable as error:
        print(f"./dev {arguments.command}: {error}", file=sys.stderr)
        return 2 if arguments.command == "doctor" else 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
