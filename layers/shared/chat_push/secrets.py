"""Secrets of AWS Secrets Manager, cached for five minutes, so that a rotation needs no deploy."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import boto3
from aws_lambda_powertools.utilities.parameters import SecretsProvider
from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError, TransformParameterError
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import BaseModel, ValidationError

from chat_push.observability import count, logger

CACHED_FOR_SECONDS = 300
# Outages of AWS's services last that long now and then. A secret that was replaced meanwhile is refused by whoever it
# is for, and then read anew.
LAST_GOOD_VALUE_SECONDS = 3600
# Each attempt may take as long as CLIENT_TIMEOUTS has, which no webhook waits for.
RETRY_OUTAGE_AFTER_SECONDS = 60
# botocore's own patience, a minute for each of five calls, would outlast every function. This ends within 9 seconds, as
# long as the quickest of them has.
CLIENT_TIMEOUTS = Config(connect_timeout=1, read_timeout=3, retries={"total_max_attempts": 2})

# A client takes on the credentials that it finds when it is made, and in SnapStart's snapshot there shall be none. This
# one, without any, is only made for what botocore reads from disk for it: the real one then takes 10 ms, not 120.
_session = boto3.Session()
_session.client("secretsmanager", region_name="us-east-1", config=Config(signature_version=UNSIGNED))


class SecretUnavailable(Exception):
    """The secret cannot be read now, or does not hold what the function needs."""


class SecretReader:
    """Reads secrets through the cache of `provider`, and goes on with the last good value while AWS has an outage.

    Only in an outage: a secret that was deleted, or that the function may no longer read, is gone at once. `clock`
    gives seconds that go on while the function is frozen.
    """

    def __init__(self, provider: Callable[[], SecretsProvider], clock: Callable[[], float] = time.time) -> None:
        self._provider = provider
        self._clock = clock
        self._last_good_values: dict[str, _LastGoodValue] = {}

    def read[Secret: BaseModel](self, secret_id: str, model: type[Secret], *, force_refresh: bool = False) -> Secret:
        """As read_secret, but neither counted nor logged. With `force_refresh` the last good value is no answer."""
        kept = None if force_refresh else self._last_good_value(secret_id)
        if kept and self._clock() < kept.retry_at:
            return model.model_validate(kept.value)
        try:
            value = self._provider().get(
                secret_id, transform="json", max_age=CACHED_FOR_SECONDS, force_fetch=force_refresh
            )
        except (
            GetParameterError,
            BotoCoreError,
        ) as error:  # The latter if even the function's credentials are missing.
            if not kept or not _is_outage(error):
                raise SecretUnavailable(f"secret {secret_id} cannot be read: {error}") from None
            kept.retry_at = self._clock() + RETRY_OUTAGE_AFTER_SECONDS
            count("SecretKept")
            logger.warning("secret cannot be read now, its last value is used", secret=secret_id, error=str(error))
            return model.model_validate(kept.value)
        except TransformParameterError:
            # Its text may quote the secret's value.
            raise SecretUnavailable(f"secret {secret_id} is not JSON") from None
        try:
            secret = model.model_validate(value)
        except ValidationError as error:
            self._provider().store.clear()  # What is mended counts at once.
            faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
            raise SecretUnavailable(f"secret {secret_id} is incomplete: {faults}") from None
        self._last_good_values[secret_id] = _LastGoodValue(value, until=self._clock() + LAST_GOOD_VALUE_SECONDS)
        return secret

    def _last_good_value(self, secret_id: str) -> "_LastGoodValue | None":
        kept = self._last_good_values.get(secret_id)
        return kept if kept and self._clock() < kept.until else None


@dataclass
class _LastGoodValue:
    """The last good value of a secret; after a refresh that failed, it is not asked for before `retry_at`."""

    value: Any = field(repr=False)
    until: float
    retry_at: float = 0.0


def _is_outage(error: Exception) -> bool:
    """Whether AWS did not answer, answered 5xx, or throttles. Powertools leaves botocore's error as the context."""
    cause = error.__context__ if isinstance(error, GetParameterError) else error
    if not isinstance(cause, ClientError):
        return isinstance(cause, BotoCoreError)
    status = cause.response["ResponseMetadata"]["HTTPStatusCode"]
    return status >= 500 or status == 429 or "Throttl" in cause.response["Error"]["Code"]


@cache
def provider() -> SecretsProvider:
    """Secrets Manager and the cache, made when the first secret is read."""
    return SecretsProvider(boto_config=CLIENT_TIMEOUTS, boto3_session=_session)


_reader = SecretReader(provider)


def read_secret[Secret: BaseModel](secret_id: str, model: type[Secret], *, force_refresh: bool = False) -> Secret:
    """The secret's JSON as a model; `force_refresh`: not from the cache. A secret that cannot be read is not cached.

    Raises SecretUnavailable, which names the secret and its fields, never a value; it is counted and logged by then.
    """
    try:
        return _reader.read(secret_id, model, force_refresh=force_refresh)
    except SecretUnavailable as error:
        count("SecretUnavailable")
        logger.error("secret unavailable: write it with ./dev secrets put", error=str(error))
        raise
