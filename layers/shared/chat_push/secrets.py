"""Secrets of AWS Secrets Manager, cached for five minutes, so that a rotation needs no deploy."""

from functools import cache

import boto3
from aws_lambda_powertools.utilities.parameters import SecretsProvider
from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError, TransformParameterError
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError
from pydantic import BaseModel, ValidationError

from chat_push.observability import count, logger

CACHED_FOR_SECONDS = 300
# botocore's own patience, a minute for each of five calls, would outlast every function. This ends within 9 seconds, as
# long as the quickest of them has.
_PATIENCE = Config(connect_timeout=1, read_timeout=3, retries={"total_max_attempts": 2})

# A client takes on the credentials that it finds when it is made, and in SnapStart's snapshot there shall be none. This
# one, without any, is only made for what botocore reads from disk for it: the real one then takes 10 ms, not 120.
_session = boto3.Session()
_session.client("secretsmanager", region_name="us-east-1", config=Config(signature_version=UNSIGNED))


class SecretUnavailable(Exception):
    """The secret cannot be read now, or does not hold what the function needs."""


def read_secret[Secret: BaseModel](secret_id: str, model: type[Secret], *, anew: bool = False) -> Secret:
    """The secret's JSON as a model; `anew`: not from the cache. A secret that cannot be read is not cached.

    Raises SecretUnavailable, which names the secret and its fields, never a value; it is counted and logged by then.
    """
    try:
        return _read(secret_id, model, anew)
    except SecretUnavailable as error:
        count("SecretUnavailable")
        logger.error("secret unavailable: write it with ./dev secrets put", error=str(error))
        raise


def _read[Secret: BaseModel](secret_id: str, model: type[Secret], anew: bool) -> Secret:
    try:
        value = provider().get(secret_id, transform="json", max_age=CACHED_FOR_SECONDS, force_fetch=anew)
    except (
        GetParameterError,
        BotoCoreError,
    ) as error:  # The latter if even the function's own credentials are missing.
        raise SecretUnavailable(f"secret {secret_id} cannot be read: {error}") from None
    except TransformParameterError:
        # Its text may quote the secret's value.
        raise SecretUnavailable(f"secret {secret_id} is not JSON") from None
    try:
        return model.model_validate(value)
    except ValidationError as error:
        provider().store.clear()  # What is mended counts at once.
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise SecretUnavailable(f"secret {secret_id} is incomplete: {faults}") from None


@cache
def provider() -> SecretsProvider:
    """Secrets Manager and the cache, made when the first secret is read."""
    return SecretsProvider(boto_config=_PATIENCE, boto3_session=_session)
