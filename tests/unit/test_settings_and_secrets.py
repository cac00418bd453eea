"""Settings from the environment, and secrets from Secrets Manager."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from chat_push.secrets import SecretUnavailable, provider, read_secret
from chat_push.settings import SettingsError, read_settings
from pydantic import BaseModel, SecretStr

from local.cloudformation import translate
from tests.stack import TEMPLATE, properties

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient


class Settings(BaseModel):
    supabase_url: str
    batch: int
    expo_url: str = "https://exp.host"


class Keys(BaseModel):
    current: SecretStr
    previous: SecretStr | None = None


class TestSettings:
    def test_come_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SUPABASE_URL", "https://a.supabase.co")
        monkeypatch.setenv("BATCH", "7")
        monkeypatch.delenv("EXPO_URL", raising=False)
        assert read_settings(Settings) == Settings(supabase_url="https://a.supabase.co", batch=7)

    @pytest.mark.parametrize("missing", [None, ""])
    def test_that_are_missing_or_empty_are_all_named(
        self, monkeypatch: pytest.MonkeyPatch, missing: str | None
    ) -> None:
        for name in ("SUPABASE_URL", "BATCH"):
            if missing is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, missing)
        with pytest.raises(SettingsError, match=r"SUPABASE_URL: Field required; BATCH: Field required$"):
            read_settings(Settings)

    def test_that_are_wrong_are_named_without_their_value(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SUPABASE_URL", "https://a.supabase.co")
        monkeypatch.setenv("BATCH", "sb_secret_x")
        with pytest.raises(SettingsError, match="BATCH: Input should be a valid integer") as raised:
            read_settings(Settings)
        assert "sb_secret_x" not in str(raised.value)
        assert raised.value.__suppress_context__


class TestSecrets:
    def test_are_read_into_a_model_that_hides_them(self, secrets_manager: "SecretsManagerClient") -> None:
        secrets_manager.create_secret(Name="keys", SecretString='{"current": "s3cret"}')
        keys = read_secret("keys", Keys)
        assert keys.current.get_secret_value() == "s3cret"
        assert "s3cret" not in repr(keys)

    def test_are_cached(self, secrets_manager: "SecretsManagerClient", forget_secrets: Callable[[], None]) -> None:
        secrets_manager.create_secret(Name="keys", SecretString='{"current": "old"}')
        read_secret("keys", Keys)
        secrets_manager.put_secret_value(SecretId="keys", SecretString='{"current": "new"}')
        assert read_secret("keys", Keys).current.get_secret_value() == "old"
        forget_secrets()
        assert read_secret("keys", Keys).current.get_secret_value() == "new"

    def test_that_cannot_be_read_are_asked_for_again(self, secrets_manager: "SecretsManagerClient") -> None:
        with pytest.raises(SecretUnavailable, match=r"secret keys cannot be read: .*ResourceNotFoundException"):
            read_secret("keys", Keys)
        secrets_manager.create_secret(Name="keys", SecretString='{"current": "s3cret"}')
        assert read_secret("keys", Keys)

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ("s3cret", "is not JSON"),
            ('{"current": "s3cret"', "is not JSON"),
            (json.dumps({"previous": "s3cret"}), "is incomplete: current: Field required"),
            (json.dumps({"current": ["s3cret"]}), "is incomplete: current: Input should be a valid string"),
            (json.dumps("s3cret"), "is incomplete: : Input should be a valid dictionary or instance of Keys"),
        ],
    )
    def test_with_a_fault_are_named_without_their_value(
        self, secrets_manager: "SecretsManagerClient", value: str, text: str
    ) -> None:
        secrets_manager.create_secret(Name="keys", SecretString=value)
        with pytest.raises(SecretUnavailable) as raised:
            read_secret("keys", Keys)
        assert str(raised.value) == f"secret keys {text}"
        assert raised.value.__suppress_context__

    @pytest.mark.usefixtures("secrets_manager")
    def test_that_hang_are_given_up_before_any_function_times_out(self) -> None:
        config: Any = provider().client.meta.config
        seconds = config.retries["total_max_attempts"] * (config.connect_timeout + config.read_timeout)
        functions = properties(translate(TEMPLATE)["Resources"], "Lambda::Function").values()
        assert seconds < min(function["Timeout"] for function in functions)
