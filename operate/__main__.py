"""The commands for whoever runs a deployed stack, or tries them on the local cloud; ./dev sets everything up."""

import argparse
import sys
from pathlib import Path

from operate import doctor
from operate.redrive import redrive_local, redrive_stack


def main() -> int:
    """Runs a command; the exit code."""
    parser = argparse.ArgumentParser(prog="./dev")
    commands = parser.add_subparsers(dest="command", required=True)
    redrive = commands.add_parser("redrive").add_mutually_exclusive_group(required=True)
    redrive.add_argument("--stack", metavar="NAME", help="a deployed stack")
    redrive.add_argument("--env", type=Path, metavar="FILE", help="the local cloud of ./dev up --env FILE")
    doctor.add_arguments(commands.add_parser("doctor"))
    arguments = parser.parse_args()
    if arguments.command == "doctor":
        return doctor.doctor(arguments)
    moved = redrive_stack(arguments.stack) if arguments.stack else redrive_local(arguments.env)
    print(f"{moved} dead letters are back in the queue")
    return 0


if __name__ == "__main__":
    sys.exit(main())
