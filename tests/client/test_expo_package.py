"""The TypeScript client of client/expo: its types, and its own tests."""

import subprocess
from pathlib import Path

from local.packages import NODE_MODULES, PROJECT, node

PACKAGE = PROJECT / "client" / "expo"


def test_the_package_has_no_type_errors() -> None:
    run(node(), NODE_MODULES / "typescript" / "bin" / "tsc", "--project", PACKAGE)


def test_the_tests_of_the_package_pass() -> None:
    run(node(), "--test", *sorted((PACKAGE / "test").glob("*.test.ts")))


def run(*command: Path | str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
