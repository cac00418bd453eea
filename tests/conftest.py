"""What holds for every test: the environment that is read on import, Hypothesis, logs and Secrets Manager."""

import io
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests.borders import Printed

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.parameters import SecretsProvider
    from mypy_boto3_secretsmanager import SecretsManagerClient

    from local.aws import Aws
    from local.cloud import LocalCloud

# Powertools reads it when chat_push.observability is imported; the template sets it.
os.environ["POWERTOOLS_METRICS_NAMESPACE"] = "ChatPush"

# The same examples on every machine, and none of them fails for being slow there.
hypothesis.settings.register_profile("chat-push", derandomize=True, deadline=None)
hypothesis.settings.load_profile("chat-push")


# Fixtures that start a whole local cloud, those with the most tests first.
CLOUDS = ("running_cloud", "patients_cloud")


@pytest.hookimpl(wrapper=True)  # before xdist, which makes the groups a part of the tests' names
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Shares the tests out to the workers of `pytest -n`: what uses one cloud to one of them, and first, as it takes

    longest; last of it those that look at what the others left in logs and queues. The rest by files.
    """

    def place(item: pytest.Item) -> int:
        fixtures = getattr(item, "fixturenames", ())
        return next((number for number, cloud in enumerate(CLOUDS) if cloud in fixtures), len(CLOUDS))

    items.sort(key=lambda item: (place(item), item.path.name == "test_secrecy.py"))
    for item in items:
        group = CLOUDS[place(item)] if place(item) < len(CLOUDS) else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
    yield


@pytest.fixture
def forget_secrets() -> Callable[[], None]:
    """Lets the five minutes pass for which secrets are cached."""
    return lambda: _provider().store.clear()


@pytest.fixture
def secrets_manager(
    monkeypatch: pytest.MonkeyPatch, forget_secrets: Callable[[], None]
) -> "Iterator[SecretsManagerClient]":
    """An empty Secrets Manager in this process, and no secret cached from another test."""
    from moto import mock_aws

    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    with mock_aws():
        forget_secrets()
        yield _secrets_manager_client()


@cache
def _provider() -> "SecretsProvider":
    """What the functions read secrets with. It may be older than moto, which then has to be told of its client."""
    # Here, because only few tests pay for these imports.
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
    """AWS's services over HTTP, as the local cloud has them."""
    from local.aws import aws

    async with aws(tmp_path_factory.mktemp("aws")) as services:
        yield services


@pytest.fixture(scope="session")
async def running_cloud() -> "AsyncIterator[LocalCloud]":
    """One local cloud for all tests that only use it."""
    from local.cloud import local_cloud

    async with local_cloud() as cloud:
        yield cloud


class Stdout(io.TextIOBase):
    """Standard output as it is when something is written; a log handler keeps that of the time when it was made."""

    def write(self, text: str) -> int:
        return sys.stdout.write(text)


@pytest.fixture
def printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> Printed:
    """Everything that a function printed since it was last asked: its log and its metrics. All loggers are at DEBUG."""
    from chat_push.observability import logger

    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger.name)
    monkeypatch.setattr(logger.registered_handler, "stream", Stdout())
    return lambda: [json.loads(line) for line in capsys.readouterr().out.splitlines()]
