"""Secrets of AWS Secrets Manager, cached for five minutes, so that a rotation needs no deploy."""

from aws_lambda_powertools.utilities import parameters
from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError, TransformParameterError
from pydantic import BaseModel, ValidationError

CACHED_FOR_SECONDS = 300


class SecretUnavailable(Exception):
    """The secret cannot be read now, or does not hold what the function needs."""


def read_secret[Secret: BaseModel](secret_id: str, model: type[Secret]) -> Secret:
    """The secret's JSON as a model. Raises SecretUnavailable, which names the secret and its fields, never a value."""
    try:
        value = parameters.get_secret(secret_id, transform="json", max_age=CACHED_FOR_SECONDS)
    except GetParameterError as error:
        raise SecretUnavailable(f"secret {secret_id} cannot be read: {error}") from None
    except TransformParameterError:
        # Its text may quote the secret's value.
        raise SecretUnavailable(f"secret {secret_id} is not JSON") from None
    try:
        return model.model_validate(value)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise SecretUnavailable(f"secret {secret_id} is incomplete: {faults}") from None
