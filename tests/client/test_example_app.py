"""The example app of client/expo, without a cloud."""

from pathlib import Path

from tests.example_app import export, run


def test_the_example_app_has_no_type_errors() -> None:
    run(Path("node_modules", "typescript", "bin", "tsc"))


def test_the_example_app_is_bundled_for_iphones_and_android(tmp_path: Path) -> None:
    export(["ios", "android"], tmp_path)
    assert {file.parent.name for file in tmp_path.rglob("*.hbc")} == {"ios", "android"}
