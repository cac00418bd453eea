"""Secrets in AWS Secrets Manager: their models, and a reader that caches them for five minutes."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any

import boto3
from aws_lambda_powertools.utilities.parameters import SecretsProvider
from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError, TransformParameterError
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import AfterValidator, BaseModel, Field, SecretStr, ValidationError

from chat_push.observability import count, logger
from chat_push.validation import describe

CACHED_FOR_SECONDS = 300
# An outage of an AWS service can last this long. If the secret was replaced meanwhile, the old value is refused, and
# the secret is read again (key_refresh).
LAST_GOOD_VALUE_SECONDS = 3600
# A failing read takes up to CLIENT_TIMEOUTS. No webhook waits that long, so only one read a minute is tried.
RETRY_OUTAGE_AFTER_SECONDS = 60
# At most 8 seconds in total: the shortest timeout of a function is 9. By default botocore would try for five minutes.
CLIENT_TIMEOUTS = Config(connect_timeout=1, read_timeout=3, retries={"total_max_attempts": 2})

# A client reads the credentials when it is created, and SnapStart's snapshot must contain none. This client has none.
# Creating it makes botocore load its files, so that the real client takes 10 ms instead of 120.
_session = boto3.Session()
_session.client("secretsmanager", region_name="us-east-1", config=Config(signature_version=UNSIGNED))


def _sendable(key: SecretStr) -> SecretStr:
    value = key.get_secret_value()
    if not (value.isascii() and value.isprintable() and " " not in value):
        raise ValueError("must be ASCII characters without spaces and line breaks")
    return key


# A key that is sent as a header. For another value, httpx fails, or reports that the server does not respond.
type Key = Annotated[SecretStr, AfterValidator(_sendable)]


class BackendSecret(BaseModel):
    """The keys of the workers."""

    supabase_secret_key: Key = Field(min_length=1)
    expo_access_token: Key | None = None
    fcm_service_account: SecretStr | None = None  # the text of its JSON file
    apns_key: SecretStr | None = None  # the text of the .p8 file
    apns_key_id: str | None = None
    apns_team_id: str | None = None
    apns_topic: str | None = None

    @property
    def key(self) -> str:
        """The key of the database."""
        return self.supabase_secret_key.get_secret_value()

    @property
    def token(self) -> str | None:
        """The access token of Expo. Empty means none."""
        return (self.expo_access_token.get_secret_value() if self.expo_access_token else None) or None


class WebhookSecret(BaseModel):
    """The secret of the webhook. `previous` is accepted, too, until the database has the current one."""

    current: SecretStr
    previous: SecretStr | None = None


class AppSecret(BaseModel):
    """The key that every copy of the app contains."""

    supabase_publishable_key: Key = Field(min_length=1)


class SecretUnavailable(Exception):
    """The secret cannot be read now, or a field of it is missing or wrong."""


class SecretReader:
    """Reads secrets through the cache of `provider`. During an outage of AWS it returns the last good value.

    A secret that was deleted, or that the function may no longer read, is no outage: it is unavailable at once. `clock`
    returns seconds that also pass while the function is frozen.
    """

    def __init__(self, provider: Callable[[], SecretsProvider], clock: Callable[[], float] = time.time) -> None:
        self._provider = provider
        self._clock = clock
        self._last_good_values: dict[str, _LastGoodValue] = {}

    def read[Secret: BaseModel](self, secret_id: str, model: type[Secret], *, force_refresh: bool = False) -> Secret:
        """Like read_secret, without log and metric of a failure. `force_refresh` excludes the last good value, too."""
        last_good = None if force_refresh else self._last_good_value(secret_id)
        if last_good and self._clock() < last_good.retry_at:
            return model.model_validate(last_good.value)
        try:
            value = self._provider().get(
                secret_id, transform="json", max_age=CACHED_FOR_SECONDS, force_fetch=force_refresh
            )
        except (GetParameterError, BotoCoreError) as error:  # BotoCoreError: for example no credentials.
            if not last_good or not _is_outage(error):
                raise SecretUnavailable(f"secret {secret_id} cannot be read: {error}") from None
            last_good.retry_at = self._clock() + RETRY_OUTAGE_AFTER_SECONDS
            count("SecretKept")
            logger.warning("secret cannot be read now, its last value is used", secret=secret_id, error=str(error))
            return model.model_validate(last_good.value)
        except TransformParameterError:
            # Its text may quote the secret's value.
            raise SecretUnavailable(f"secret {secret_id} is not JSON") from None
        try:
            secret = model.model_validate(value)
        except ValidationError as error:
            self._provider().store.clear()  # So that a corrected value is read at once.
            raise SecretUnavailable(f"secret {secret_id} is incomplete: {describe(error)}") from None
        self._last_good_values[secret_id] = _LastGoodValue(value, until=self._clock() + LAST_GOOD_VALUE_SECONDS)
        return secret

    def _last_good_value(self, secret_id: str) -> "_LastGoodValue | None":
        last_good = self._last_good_values.get(secret_id)
        return last_good if last_good and self._clock() < last_good.until else None


@dataclass
class _LastGoodValue:
    """The last good value of a secret. After a failed read, the next one is not tried before `retry_at`."""

    value: Any = field(repr=False)
    until: float
    retry_at: float = 0.0


def _is_outage(error: Exception) -> bool:
    """Whether AWS did not respond, responded 5xx, or throttles. Powertools keeps botocore's error as the context."""
    cause = error.__context__ if isinstance(error, GetParameterError) else error
    if not isinstance(cause, ClientError):
        return isinstance(cause, BotoCoreError)
    status = cause.response["ResponseMetadata"]["HTTPStatusCode"]
    return status >= 500 or status == 429 or "Throttl" in cause.response["Error"]["Code"]


@cache
def provider() -> SecretsProvider:
    """Secrets Manager and the cache, created for the first secret that is read."""
    return SecretsProvider(boto_config=CLIENT_TIMEOUTS, boto3_session=_session)


_reader = SecretReader(provider)


def read_secret[Secret: BaseModel](secret_id: str, model: type[Secret], *, force_refresh: bool = False) -> Secret:
    """The secret's JSON as a model; with `force_refresh` never from the cache. A failure is not cached.

    Raises SecretUnavailable, after counting and logging it. Its text names the secret and its fields, never a value.
    """
    try:
        return _reader.read(secret_id, model, force_refresh=force_refresh)
    except SecretUnavailable as error:
        count("SecretUnavailable")
        logger.error("secret unavailable: write it with ./dev secrets put", error=str(error))
        raise
