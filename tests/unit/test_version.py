"""The version that the functions log."""

import tomllib

from chat_push import __version__

from local.packages import PROJECT


def test_the_layer_has_the_version_of_the_project() -> None:
    assert __version__ == tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
