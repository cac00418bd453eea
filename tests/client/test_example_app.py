"""The example app of client/expo, without a cloud."""

import subprocess
import sys
from pathlib import Path

from tests.example_app import MODULES, export, run

HERMES = MODULES / "hermes-compiler" / "hermesc" / ("linux64-bin" if sys.platform == "linux" else "osx-bin") / "hermesc"


def test_the_example_app_has_no_type_errors() -> None:
    run(Path("node_modules", "typescript", "bin", "tsc"))


def test_the_example_app_is_bundled_for_iphones_and_android(tmp_path: Path) -> None:
    # `expo export` gives the same bundle to Hermes, which takes four times as long as Metro to optimize it.
    export(["ios", "android"], tmp_path, "--no-bytecode", "--no-minify")
    bundles = list(tmp_path.rglob("*.js"))
    assert {file.parent.name for file in bundles} == {"ios", "android"}
    for bundle in bundles:
        subprocess.run([HERMES, "-O0", "-w", "-emit-binary", "-out", bundle.with_suffix(".hbc"), bundle], check=True)
