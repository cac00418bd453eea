"""Builds functions and layers for this machine, by the same `sam build` that builds them for Lambda."""

import asyncio
import fcntl
import hashlib
import importlib.metadata
import os
import platform
import shutil
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from local.packages import PROJECT
from local.processes import run

# What Lambda's own runtime carries besides the standard library: its client for handlers, and boto3.
RUNTIME_PACKAGES = (
    *("awslambdaric", "simplejson", "snapshot-restore-py"),
    *("boto3", "botocore", "jmespath", "python-dateutil", "s3transfer", "six", "urllib3"),
)


@dataclass(frozen=True)
class Build:
    """A finished build."""

    template: Path  # names the built folders of functions and layers
    runtime: Path  # a folder for PYTHONPATH with what Lambda's own runtime carries


@asynccontextmanager
async def built(project: Path = PROJECT) -> AsyncIterator[Build]:
    """Functions and layers of `project` for this interpreter and CPU; built again only if an input changed.

    Other processes may build at the same time. They leave this build unchanged while the context is open.
    Raises ChildError with the end of SAM's output if it cannot be built.
    """
    builds = project / ".aws-sam" / "local" / f"{sys.implementation.cache_tag}-{platform.machine()}"
    builds.mkdir(parents=True, exist_ok=True)
    with (builds / "lock").open("w") as one_at_a_time:
        await _lock(one_at_a_time)
        folder = builds / _hash_of_inputs(project)
        if not folder.exists():
            await _sam_build(project, folder)
        with (folder / "in-use").open("w") as in_use:
            fcntl.flock(in_use, fcntl.LOCK_SH)
            _remove_unused(builds)
            fcntl.flock(one_at_a_time, fcntl.LOCK_UN)
            yield Build(folder / "template.yaml", folder / "runtime")


async def _lock(file: IO[str]) -> None:
    waiting = False
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not waiting:
                print("build: waiting for another build", flush=True)
            waiting = True
            await asyncio.sleep(0.2)  # a thread that waits for the lock could not be cancelled


def _hash_of_inputs(project: Path) -> str:
    digest = hashlib.sha256(f"{sys.version} {sys.prefix}".encode() + Path(__file__).read_bytes())
    for package in RUNTIME_PACKAGES:
        digest.update(f"{package}=={importlib.metadata.version(package)}\n".encode())
    files = [project / "template.yaml", project / "Makefile"]
    files += sorted(project.glob("functions/**/*")) + sorted(project.glob("layers/**/*"))
    for file in files:
        if file.is_file() and file.parent.name != "__pycache__":
            digest.update(f"{file.relative_to(project)}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


async def _sam_build(project: Path, folder: Path) -> None:
    """Runs `sam build` into `folder`, which appears only when all is done."""
    print("build: sam build of functions and layers (half a minute the first time)", flush=True)
    started = time.monotonic()
    unfinished = folder.parent / "unfinished"
    bin_folder = Path(sys.executable).parent
    await run(
        "sam-build",
        bin_folder / "sam",
        *("build", "--template-file", project / "template.yaml", "--build-dir", unfinished),
        *("--cached", "--cache-dir", _sam_cache(project, folder.parent)),
        folder=folder.parent,
        cwd=project,
        env={
            **os.environ,
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "SAM_CLI_TELEMETRY": "0",
            "BUILD_PYTHON": sys.executable,
            "BUILD_PLATFORM": f"{_wheel_system()}_{platform.machine()}",
        },
    )
    await copy_runtime(unfinished / "runtime")
    unfinished.rename(folder)
    print(f"build: done in {time.monotonic() - started:.0f} s", flush=True)


def _wheel_system() -> str:
    """The first part of pip's name for this platform, such as manylinux2014 or macosx_14_0."""
    return f"macosx_{platform.mac_ver()[0].split('.')[0]}_0" if sys.platform == "darwin" else "manylinux2014"


def _sam_cache(project: Path, builds: Path) -> Path:
    """The folder of SAM's cache of unchanged layers and functions. SAM ignores the Makefile, so each has its own."""
    cache = builds / f"cache-{hashlib.sha256((project / 'Makefile').read_bytes()).hexdigest()[:16]}"
    for other in builds.glob("cache-*"):
        if other != cache:
            shutil.rmtree(other)
    return cache


async def copy_runtime(runtime: Path) -> None:
    """Copies the packages of Lambda's runtime, and no others, from this environment to `runtime`.

    They are compiled, as in Lambda: pip may have left out the bytecode here, and boto3 alone takes a second to compile.
    """
    _copy_packages(runtime)
    compile_all = ("-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", runtime)
    await run("compile-runtime", sys.executable, *compile_all, folder=runtime.parent)


def _copy_packages(runtime: Path) -> None:
    runtime.mkdir()
    for package in RUNTIME_PACKAGES:
        distribution = importlib.metadata.distribution(package)
        for name in {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}:
            original = Path(str(distribution.locate_file(name)))
            if original.is_dir():
                shutil.copytree(original, runtime / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(original, runtime)


def _remove_unused(builds: Path) -> None:
    """Removes the builds that no process holds open."""
    for lock in builds.glob("*/in-use"):
        with lock.open() as in_use:
            try:
                fcntl.flock(in_use, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(lock.parent)
