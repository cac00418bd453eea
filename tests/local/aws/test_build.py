"""`sam build` builds for this machine what it builds for Lambda, and only if an input changed."""

import asyncio
import importlib.util
import re
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from textwrap import dedent

import pytest

from local.aws.build import RUNTIME_PACKAGES, Build, built
from local.aws.template import Function, read_template
from local.packages import PROJECT
from local.processes import ChildError, run
from tests.stack import ENDPOINT, PARAMETERS


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one function and one layer, and the Makefile of this one."""
    (tmp_path / "template.yaml").write_text(
        dedent("""
            Transform: AWS::Serverless-2016-10-31
            Resources:
              SendChatPush:
                Type: AWS::Serverless::Function
                Metadata: {BuildMethod: makefile, ContextPath: .}
                Properties:
                  CodeUri: functions/send
                  Handler: app.lambda_handler
                  Runtime: python3.13
                  Layers: [!Ref SharedLayer]
              SharedLayer:
                Type: AWS::Serverless::LayerVersion
                Metadata: {BuildMethod: makefile, BuildArchitecture: arm64, ContextPath: .}
                Properties: {ContentUri: layers/shared, CompatibleRuntimes: [python3.13]}
        """)
    )
    shutil.copy(PROJECT / "Makefile", tmp_path)
    (tmp_path / "functions" / "send").mkdir(parents=True)
    (tmp_path / "functions" / "send" / "app.py").write_text("one = 1")
    (tmp_path / "layers" / "shared" / "chat_push" / "__pycache__").mkdir(parents=True)
    (tmp_path / "layers" / "shared" / "chat_push" / "__init__.py").write_text("two = 2")
    (tmp_path / "layers" / "shared" / "chat_push" / "__pycache__" / "old.pyc").touch()
    return tmp_path


async def test_a_function_is_built_only_once_from_the_same_input(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with asyncio.timeout(300):
        await asyncio.gather(*(_build(project) for _ in range(2)))
        await _build(project)
    assert capsys.readouterr().out.count("build: done") == 1


async def test_a_replaced_build_is_deleted_when_no_process_uses_it(project: Path) -> None:
    async with built(project) as first:
        (project / "functions" / "send" / "app.py").write_text("one = 3")
        async with built(project) as second:
            assert second.template != first.template
            assert first.template.exists()
        await _build(project)
        assert first.template.exists()
    await _build(project)
    assert not first.template.exists()
    assert second.template.exists()


async def test_a_build_has_bytecode_that_python_does_not_check_against_the_source(project: Path) -> None:
    async with built(project) as build:
        function = read_template(build.template, {}, "http://127.0.0.1").functions["SendChatPush"]
        for folder in (function.folder, *function.layers):
            [bytecode] = _bytecode(folder)
            assert bytecode[:4] == importlib.util.MAGIC_NUMBER
            assert bytecode[4:8] == b"\x01\0\0\0"
            assert str(project).encode() not in bytecode


async def test_the_layers_stay_below_45_megabytes() -> None:
    """Unzipped, with bytecode. Each cold start reads them, and the snapshot of SnapStart holds them."""
    async with built() as build:
        layers = list(build.template.parent.glob("*Layer"))
        files = [file for layer in layers for file in layer.rglob("*") if file.is_file()]
        assert len(layers) == 2
        assert sum(file.stat().st_size for file in files) <= 45_000_000


async def test_a_failed_build_raises_an_error_with_the_reason_and_leaves_nothing(project: Path) -> None:
    (project / "functions" / "send" / "app.py").unlink()
    for _ in range(2):
        with pytest.raises(ChildError, match=r"cp: .*No such file"):
            await _build(project)


# The build of this project


@pytest.fixture
async def build() -> AsyncIterator[Build]:
    async with built() as build:
        yield build


@pytest.fixture
def functions(build: Build) -> dict[str, Function]:
    return dict(read_template(build.template, PARAMETERS, ENDPOINT).functions)


async def test_every_import_of_a_function_is_in_its_code_its_layers_or_the_runtime(
    build: Build, functions: dict[str, Function], tmp_path: Path
) -> None:
    for function in functions.values():
        layers = [layer / "python" for layer in function.layers]
        await run(
            f"imports-of-{function.name}",
            *(sys.executable, "-I", "-S", Path(__file__).with_name("import_everything.py")),
            *(function.folder, *layers, build.runtime),
            folder=tmp_path,
            env={**function.environment, "AWS_DEFAULT_REGION": "us-east-1"},
        )


def test_no_layer_has_a_package_that_the_lambda_runtime_has() -> None:
    locked = (PROJECT / "layers" / "dependencies" / "requirements.txt").read_text()
    packages = set(re.findall(r"^([\w-]+)==", locked, re.MULTILINE))
    assert "httpx" in packages
    assert not packages & set(RUNTIME_PACKAGES)


def test_each_package_of_the_layer_is_locked_with_hashes() -> None:
    locked = (PROJECT / "layers" / "dependencies" / "requirements.txt").read_text()
    packages = re.split(r"\n(?=\S)", locked.strip())
    assert packages
    for package in packages:
        assert re.match(r"[\w-]+==\S+ ", package)
        assert "--hash=sha256:" in package


def test_every_built_file_has_bytecode_that_python_does_not_check_against_the_source(
    functions: dict[str, Function],
) -> None:
    """Lambda's folders are read-only: each cold start would compile the files without bytecode again."""
    for folder in {folder for function in functions.values() for folder in (function.folder, *function.layers)}:
        compiled = {file.parent.parent / f"{file.name.split('.')[0]}.py" for file in folder.rglob("*.pyc")}
        assert compiled == set(folder.rglob("*.py"))
        assert all(bytecode[4:8] == b"\x01\0\0\0" for bytecode in _bytecode(folder))


async def _build(project: Path) -> None:
    async with built(project):
        pass


def _bytecode(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in folder.rglob("*.pyc")]
