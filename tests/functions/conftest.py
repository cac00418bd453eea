"""Functions as Lambda loads them, between Supabase, Expo and Secrets Manager."""

import importlib.util
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.borders import EXPO_URL, SUPABASE_URL, DataApi
from tests.functions.invocation import ROOT, LoadFunction

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient


@pytest.fixture
def load_function(monkeypatch: pytest.MonkeyPatch) -> LoadFunction:
    """Starts a function with the given environment. By path, since each one has an app.py."""

    def load(name: str, **environment: str) -> ModuleType:
        for variable, value in environment.items():
            monkeypatch.setenv(variable, value)
        spec = importlib.util.spec_from_file_location(name, ROOT / "functions" / name / "app.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def api() -> DataApi:
    return DataApi()


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch, api: DataApi, expo: Callable[[httpx.Request], httpx.Response]) -> None:
    """Supabase and Expo where the network begins; everything before it is real."""
    hosts: dict[str, Callable[[httpx.Request], httpx.Response]] = {SUPABASE_URL: api, EXPO_URL: expo}

    def handle(transport: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        request.read()
        return hosts[f"{request.url.scheme}://{request.url.host}"](request)

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", handle)


@pytest.fixture
def secret(secrets_manager: "SecretsManagerClient") -> None:
    secrets_manager.create_secret(Name="backend", SecretString='{"supabase_secret_key": "sb_secret_x"}')
