"""Functions as Lambda loads them."""

import importlib.util
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.functions.invocation import ROOT, LoadFunction


@pytest.fixture
def load_function(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoadFunction]:
    """Starts a function with the given environment. By path, since each one has an app.py."""
    siblings: set[str] = set()  # modules beside an app.py, which imports them by their bare names

    def load(name: str, **environment: str) -> ModuleType:
        for variable, value in environment.items():
            monkeypatch.setenv(variable, value)
        folder = ROOT / "functions" / name
        siblings.update(file.stem for file in folder.glob("*.py"))
        monkeypatch.syspath_prepend(folder)
        spec = importlib.util.spec_from_file_location(name, folder / "app.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    yield load
    for sibling in siblings:
        sys.modules.pop(sibling, None)
