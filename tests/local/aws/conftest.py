"""Parts of the local cloud, run for real with functions that a test writes itself."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from textwrap import dedent

import psutil
import pytest

from local.aws.build import copy_runtime
from local.aws.lambda_runtime import Account, LambdaFunction, lambda_function
from local.aws.template import Function

type StartFunction = Callable[..., Awaitable[LambdaFunction]]


def is_running(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="session")
async def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lambda") / "runtime"
    await copy_runtime(folder)
    return folder


@pytest.fixture
async def start_function(tmp_path: Path, runtime: Path) -> AsyncIterator[StartFunction]:
    """Starts a function whose app.py has the given source."""
    async with AsyncExitStack() as stack:

        async def start(
            source: str,
            *,
            name: str = "Echo",
            seconds: int = 5,
            megabytes: int = 512,
            layers: tuple[Path, ...] = (),
            account: Account | None = None,
        ) -> LambdaFunction:
            code = tmp_path / name
            code.mkdir()
            (code / "app.py").write_text(dedent(source))
            function = Function(
                name=name,
                folder=code,
                handler="app.lambda_handler",
                timeout=timedelta(seconds=seconds),
                memory_megabytes=megabytes,
                environment={"SETTING": "of the template"},
                layers=layers,
            )
            environment = {"AWS_REGION": "us-east-1"}
            return await stack.enter_async_context(
                lambda_function(function, runtime=runtime, environment=environment, folder=tmp_path, account=account)
            )

        yield start
