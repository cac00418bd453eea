"""Settings from the environment, and secrets from Secrets Manager."""

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import BotoCoreError, EndpointConnectionError, NoCredentialsError, ReadTimeoutError
from botocore.stub import Stubber
from chat_push.observability import metrics
from chat_push.secrets import AppSecret, BackendSecret, SecretReader, SecretUnavailable, provider, read_secret
from chat_push.settings import SettingsError, read_settings
from pydantic import BaseModel, SecretStr

from local.aws.cloudformation import translate
from tests.http_fakes import Printed
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
    def test_settings_are_read_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SUPABASE_URL", "https://a.supabase.co")
        monkeypatch.setenv("BATCH", "7")
        monkeypatch.delenv("EXPO_URL", raising=False)
        assert read_settings(Settings) == Settings(supabase_url="https://a.supabase.co", batch=7)

    @pytest.mark.parametrize("missing", [None, ""])
    def test_every_missing_or_empty_setting_is_named(
        self, monkeypatch: pytest.MonkeyPatch, missing: str | None
    ) -> None:
        for name in ("SUPABASE_URL", "BATCH"):
            if missing is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, missing)
        with pytest.raises(SettingsError, match=r"SUPABASE_URL: Field required; BATCH: Field required\. "):
            read_settings(Settings)

    def test_a_wrong_setting_is_named_without_its_value(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SUPABASE_URL", "https://a.supabase.co")
        monkeypatch.setenv("BATCH", "sb_secret_x")
        with pytest.raises(SettingsError, match="BATCH: Input should be a valid integer") as raised:
            read_settings(Settings)
        assert "sb_secret_x" not in str(raised.value)
        assert raised.value.__suppress_context__


class TestSecrets:
    def test_a_secret_is_read_into_a_model_whose_repr_hides_it(self, secrets_manager: "SecretsManagerClient") -> None:
        secrets_manager.create_secret(Name="keys", SecretString='{"current": "s3cret"}')
        keys = read_secret("keys", Keys)
        assert keys.current.get_secret_value() == "s3cret"
        assert "s3cret" not in repr(keys)

    def test_a_secret_is_read_once_and_then_cached(
        self, secrets_manager: "SecretsManagerClient", forget_secrets: Callable[[], None]
    ) -> None:
        secrets_manager.create_secret(Name="keys", SecretString='{"current": "old"}')
        read_secret("keys", Keys)
        secrets_manager.put_secret_value(SecretId="keys", SecretString='{"current": "new"}')
        assert read_secret("keys", Keys).current.get_secret_value() == "old"
        forget_secrets()
        assert read_secret("keys", Keys).current.get_secret_value() == "new"

    def test_a_failure_to_read_a_secret_is_not_cached(self, secrets_manager: "SecretsManagerClient") -> None:
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
            (json.dumps("s3cret"), "is incomplete: Input should be a valid dictionary or instance of Keys"),
        ],
    )
    def test_a_malformed_secret_is_named_without_its_value(
        self, secrets_manager: "SecretsManagerClient", value: str, text: str
    ) -> None:
        secrets_manager.create_secret(Name="keys", SecretString=value)
        with pytest.raises(SecretUnavailable) as raised:
            read_secret("keys", Keys)
        assert str(raised.value) == f"secret keys {text}"
        assert raised.value.__suppress_context__

    @pytest.mark.parametrize("key", ["sb_secret_é", "sb_secret_x\n", " sb_secret_x"])
    @pytest.mark.parametrize(
        ("model", "name"),
        [
            (BackendSecret, "supabase_secret_key"),
            (BackendSecret, "expo_access_token"),
            (AppSecret, "supabase_publishable_key"),
        ],
    )
    def test_a_key_that_no_header_can_carry_is_named_without_its_value(
        self, secrets_manager: "SecretsManagerClient", model: type[BaseModel], name: str, key: str
    ) -> None:
        keys = {"supabase_secret_key": "sb_secret_x", name: key}
        secrets_manager.create_secret(Name="keys", SecretString=json.dumps(keys))
        with pytest.raises(SecretUnavailable) as raised:
            read_secret("keys", model)
        fault = "must be ASCII characters without spaces and line breaks"
        assert str(raised.value) == f"secret keys is incomplete: {name}: {fault}"

    @pytest.mark.usefixtures("secrets_manager")
    def test_a_read_of_a_secret_times_out_before_any_function(self) -> None:
        config: Any = provider().client.meta.config
        seconds = config.retries["total_max_attempts"] * (config.connect_timeout + config.read_timeout)
        functions = properties(translate(TEMPLATE)["Resources"], "Lambda::Function").values()
        assert seconds < min(function["Timeout"] for function in functions)


class Outage:
    """Secrets Manager with an outage that a test starts and ends, and a clock that it sets."""

    def __init__(self, forget_secrets: Callable[[], None]) -> None:
        self.now = 1000.0
        self.attempts = 0
        self.error: BotoCoreError | None = None
        self.reader = SecretReader(provider, lambda: self.now)
        self._forget = forget_secrets
        self._events = provider().client.meta.events
        self._events.register_first("before-call.secrets-manager.GetSecretValue", self._call, "outage")

    def end(self) -> None:
        self._events.unregister("before-call.secrets-manager.GetSecretValue", unique_id="outage")

    def _call(self, **_: Any) -> None:
        self.attempts += 1
        if self.error:
            raise self.error

    def after(self, seconds: float) -> str:
        """Reads the secret so many seconds later, when the cache has expired."""
        self.now += seconds
        self._forget()
        return self.reader.read("keys", Keys).current.get_secret_value()


@pytest.fixture
def outage(secrets_manager: "SecretsManagerClient", forget_secrets: Callable[[], None]) -> Iterator[Outage]:
    secrets_manager.create_secret(Name="keys", SecretString='{"current": "old"}')
    outage = Outage(forget_secrets)
    yield outage
    outage.end()


DOWN = EndpointConnectionError(endpoint_url="https://secretsmanager.eu-central-1.amazonaws.com")


class TestOutage:
    @pytest.mark.parametrize(
        "error",
        [DOWN, ReadTimeoutError(endpoint_url="https://secretsmanager"), NoCredentialsError()],
        ids=lambda error: type(error).__name__,
    )
    def test_while_secrets_manager_is_down_the_last_good_value_is_used_for_an_hour_and_no_longer(
        self, outage: Outage, error: BotoCoreError
    ) -> None:
        assert outage.after(0) == "old"
        outage.error = error
        for _ in range(11):
            assert outage.after(300) == "old"
        with pytest.raises(SecretUnavailable, match="secret keys cannot be read"):
            outage.after(300)

    def test_the_use_of_a_last_good_value_is_logged_and_counted_without_the_value(
        self, outage: Outage, printed: Printed
    ) -> None:
        outage.after(0)
        outage.error = DOWN
        metrics.clear_metrics()  # those of other tests
        outage.after(300)
        metrics.flush_metrics()
        lines = printed()
        assert [emf["SecretKept"] for emf in lines if "_aws" in emf] == [[1.0]]
        [line] = [line for line in lines if line.get("level") == "WARNING"]
        assert line["secret"] == "keys"
        assert '"old"' not in json.dumps(lines)

    def test_secrets_manager_is_tried_once_a_minute_during_an_outage_and_a_new_value_is_used_at_once(
        self, outage: Outage, secrets_manager: "SecretsManagerClient"
    ) -> None:
        outage.after(0)
        outage.error = DOWN
        outage.after(300)
        outage.attempts = 0
        for _ in range(59):
            outage.after(1)
        assert outage.attempts == 0
        outage.error = None
        secrets_manager.put_secret_value(SecretId="keys", SecretString='{"current": "new"}')
        assert outage.after(1) == "new"

    def test_the_hour_of_a_last_good_value_begins_with_the_last_successful_read(self, outage: Outage) -> None:
        outage.after(0)
        outage.after(3000)
        outage.error = DOWN
        assert outage.after(3000) == "old"

    def test_a_forced_refresh_never_returns_the_last_good_value(
        self, outage: Outage, secrets_manager: "SecretsManagerClient"
    ) -> None:
        outage.after(0)
        outage.error = DOWN
        outage.after(300)
        with pytest.raises(SecretUnavailable):
            outage.reader.read("keys", Keys, force_refresh=True)
        outage.error = None
        secrets_manager.put_secret_value(SecretId="keys", SecretString='{"current": "new"}')
        assert outage.reader.read("keys", Keys, force_refresh=True).current.get_secret_value() == "new"
        assert outage.after(0) == "new"

    def test_without_a_last_good_value_a_secret_is_unavailable_during_an_outage(self, outage: Outage) -> None:
        outage.error = DOWN
        with pytest.raises(SecretUnavailable):
            outage.after(0)

    @pytest.mark.parametrize(
        ("code", "status", "is_outage"),
        [
            ("InternalServiceError", 500, True),
            ("ServiceUnavailable", 503, True),
            ("ThrottlingException", 400, True),
            ("TooManyRequestsException", 429, True),
            ("AccessDeniedException", 400, False),
            ("ResourceNotFoundException", 400, False),
            ("DecryptionFailure", 400, False),
        ],
    )
    def test_a_deleted_or_forbidden_secret_is_unavailable_at_once(
        self, outage: Outage, code: str, status: int, is_outage: bool
    ) -> None:
        outage.after(0)
        with Stubber(provider().client) as refusing:
            refusing.add_client_error("get_secret_value", code, http_status_code=status)
            if is_outage:
                assert outage.after(300) == "old"
            else:
                with pytest.raises(SecretUnavailable, match=code):
                    outage.after(300)

    def test_a_malformed_value_is_not_replaced_by_the_last_good_one(
        self, outage: Outage, secrets_manager: "SecretsManagerClient"
    ) -> None:
        outage.after(0)
        for wrong in ("not JSON", "{}"):
            secrets_manager.put_secret_value(SecretId="keys", SecretString=wrong)
            with pytest.raises(SecretUnavailable):
                outage.after(0)
