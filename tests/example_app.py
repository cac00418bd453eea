"""The example app of client/expo: its packages, and its commands."""

import fcntl
import hashlib
import os
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

from local.packages import PROJECT, node

EXAMPLE = PROJECT / "client" / "expo" / "example"
MODULES = EXAMPLE / "node_modules"
_PLACEHOLDERS = {
    # test/server.mts replaces them: Metro does not notice that a variable has changed.
    "EXPO_PUBLIC_SUPABASE_URL": "http://supabase.invalid",
    "EXPO_PUBLIC_SUPABASE_PUBLISHABLE_KEY": "sb_publishable_placeholder",
    "EXPO_PUBLIC_CHAT_PUSH_URL": "http://api.invalid",
}
_EXPO = {"CI": "1", "EXPO_OFFLINE": "1", "EXPO_NO_TELEMETRY": "1"}


def export(platforms: list[str], folder: Path, *more: str) -> None:
    """Bundles the app into a folder, as `eas update` and `eas build` do. Raises AssertionError with the output."""
    options = [option for platform in platforms for option in ("--platform", platform)]
    run(MODULES / "expo" / "bin" / "cli", "export", *options, "--output-dir", folder, *more, **_EXPO, **_PLACEHOLDERS)


def run(*command: Path | str, **variables: str) -> None:
    """Runs a script of Node.js in the folder of the app. Raises AssertionError with its output if it fails."""
    _install()
    _node(command, variables)


@cache
def _install() -> None:
    """Installs the packages, unless those of package-lock.json are there. Another worker of pytest waits."""
    digest = hashlib.sha256(b"".join((EXAMPLE / name).read_bytes() for name in ("package-lock.json", ".npmrc")))
    stamp = MODULES / ".stamp"
    with (EXAMPLE / ".install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == digest.hexdigest():
            return
        _say("the packages of client/expo/example are installed: 600 MB ...")
        started = time.monotonic()
        npm = node().parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        _node((npm, "ci", "--loglevel=error", "--no-audit", "--no-fund"), {})
        stamp.write_text(digest.hexdigest())
        _say(f"done in {time.monotonic() - started:.0f} s")


def _node(command: tuple[Path | str, ...], variables: dict[str, str]) -> None:
    path = os.pathsep.join([str(node().parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, **variables}
    done = subprocess.run([node(), *command], cwd=EXAMPLE, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


def _say(text: str) -> None:
    print(text, file=sys.__stderr__, flush=True)  # pytest captures sys.stderr
