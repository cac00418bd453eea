"""Fixtures and settings of all tests: environment, Hypothesis, order, sockets, logs, Secrets Manager."""

import gc
import io
import json
import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from pytest_socket import disable_socket, enable_socket

from tests.http_fakes import Printed

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.parameters import SecretsProvider
    from mypy_boto3_secretsmanager import SecretsManagerClient
    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling

    from local.aws.services import Aws
    from local.cloud import LocalCloud

# Powertools reads it when chat_push.observability is imported. In a deployed stack, the template sets it.
os.environ["POWERTOOLS_METRICS_NAMESPACE"] = "ChatPush"

# The same examples on every machine. No example fails because it is slow.
hypothesis.settings.register_profile("chat-push", derandomize=True, deadline=None)
hypothesis.settings.load_profile("chat-push")


# A database is three hundred files. To create them after others were deleted takes ext4 ten times the processor time of
# a file system in memory. There must be more room than three workers fill.
_MEMORY = "/dev/shm"
if (
    os.path.ismount(_MEMORY)
    and shutil.disk_usage(_MEMORY).free > 6 << 30
    and not os.statvfs(_MEMORY).f_flag & os.ST_NOEXEC
):
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())  # tmp_path stays there: it outlives the tests
    tempfile.tempdir = _MEMORY

# These tests need no other process. They may open no network connection, not even to this machine.
_WITHOUT_SOCKETS = {Path(__file__).parent / folder for folder in ("bench", "client", "local/chaos", "unit")}

# Each pattern matches the tests that share one local cloud, and no test matches two. The longest ones come first.
CLOUDS = (
    r"tests/system/(?!test_(chaos|chat_client|conformance|console|example_app|expo_push|openapi|pg_net|up)\.py)",
    r"tests/(docs/|system/test_(chat_client|console|example_app|expo_push|openapi)\.py)",
    r"tests/system/test_conformance\.py",
    r"tests/operate/test_doctor",
)


def cloud_of(nodeid: str) -> int:
    """The index in CLOUDS of the cloud that a test uses; len(CLOUDS) for none."""
    return next((number for number, tests in enumerate(CLOUDS) if re.match(tests, nodeid)), len(CLOUDS))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs the tests without sockets before any cloud, which needs them until the end. Then the longest tests follow.

    test_secrecy is the last on its cloud: it reads the logs and queues of the others. test_chaos is one long test: as
    the last one, it would leave a worker without work.
    """
    items.sort(
        key=lambda item: (
            item.path.parent not in _WITHOUT_SOCKETS,
            cloud_of(item.nodeid),
            item.path.name == "test_secrecy.py",
            item.path.name != "test_chaos.py",
        )
    )


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Hides what is collected from the garbage collector: it stays until the end, and searching it takes long."""
    gc.disable()
    collected = yield
    gc.freeze()
    gc.enable()
    return collected


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: "Producer") -> "LoadScopeScheduling":
    """With `pytest -n`, one worker runs all tests that share a cloud. Other tests are distributed by file."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            cloud = cloud_of(nodeid)
            return CLOUDS[cloud] if cloud < len(CLOUDS) else nodeid.split("::")[0]

    return Scheduling(config, log)


@pytest.fixture(autouse=True)
def _no_sockets(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.path.parent not in _WITHOUT_SOCKETS:
        yield
        return
    disable_socket(allow_unix_socket=True)  # asyncio wakes its loop through a Unix socket
    yield
    enable_socket()


@pytest.fixture
def forget_secrets() -> Callable[[], None]:
    """A function that clears the cache of secrets, as five minutes do."""
    return lambda: _provider().store.clear()


@pytest.fixture
def secrets_manager(
    monkeypatch: pytest.MonkeyPatch, forget_secrets: Callable[[], None]
) -> "Iterator[SecretsManagerClient]":
    """An empty Secrets Manager in this process. The cache contains no secret of another test."""
    from moto import mock_aws

    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    with mock_aws():
        forget_secrets()
        yield _secrets_manager_client()


@cache
def _provider() -> "SecretsProvider":
    """The provider of the functions. moto must patch its client, which may have been created before moto started."""
    # The imports are here because they are slow and only few tests need them.
    from chat_push.secrets import provider
    from moto.core.models import patch_client

    patch_client(provider().client)
    return provider()


@cache
def _secrets_manager_client() -> "SecretsManagerClient":
    import boto3

    return boto3.client("secretsmanager")


@pytest.fixture(scope="session")
async def services(tmp_path_factory: pytest.TempPathFactory) -> "AsyncIterator[Aws]":
    """AWS's services over HTTP, as in the local cloud."""
    from local.aws.services import aws

    async with aws(tmp_path_factory.mktemp("aws")) as services:
        yield services


@pytest.fixture(scope="session")
async def running_cloud() -> "AsyncIterator[LocalCloud]":
    """One local cloud for all tests that leave it running."""
    from local.cloud import local_cloud

    async with local_cloud() as cloud:
        yield cloud


class Stdout(io.TextIOBase):
    """The current sys.stdout at each write. A log handler would keep the one that existed when it was created."""

    def write(self, text: str) -> int:
        return sys.stdout.write(text)


@pytest.fixture
def printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> Printed:
    """Returns all that was printed since the last call: log lines and metrics. All loggers are at DEBUG."""
    from chat_push.observability import logger

    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger.name)
    monkeypatch.setattr(logger.registered_handler, "stream", Stdout())
    return lambda: [json.loads(line) for line in capsys.readouterr().out.splitlines()]
