"""Loads the functions as Lambda does, with fakes of Supabase and Expo, and moto's Secrets Manager."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.functions.invocation import ROOT, LoadFunction
from tests.http_fakes import EXPO_URL, SUPABASE_URL, DataApi

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient


@pytest.fixture
def load_function(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoadFunction]:
    """Loads a function with this environment. It is loaded by path, because every function has an app.py."""
    siblings: set[str] = set()  # the modules beside app.py, which it imports by their bare names

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


@pytest.fixture
def api() -> DataApi:
    return DataApi()


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch, api: DataApi, expo: Callable[[httpx.Request], httpx.Response]) -> None:
    """Replaces the network by the fakes of Supabase and Expo. All code before it is real."""
    hosts: dict[str, Callable[[httpx.Request], httpx.Response]] = {SUPABASE_URL: api, EXPO_URL: expo}

    def handle(transport: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        request.read()
        return hosts[f"{request.url.scheme}://{request.url.host}"](request)

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", handle)


@pytest.fixture
def secret(secrets_manager: "SecretsManagerClient") -> None:
    secrets_manager.create_secret(Name="backend", SecretString='{"supabase_secret_key": "sb_secret_x"}')
