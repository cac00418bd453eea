"""Settings of a function, from its environment."""

import os

from pydantic import BaseModel, ValidationError


class SettingsError(Exception):
    """The function cannot start; the text names each setting and what is wrong with it."""


def read_settings[Settings: BaseModel](model: type[Settings]) -> Settings:
    """The function's settings; field `supabase_url` is the environment variable SUPABASE_URL; an empty one is none.

    Raises SettingsError, which ends the function's start, when one is missing or wrong.
    """
    environment = {name.lower(): value for name, value in os.environ.items()}
    try:
        return model.model_validate({name: environment[name] for name in model.model_fields if environment.get(name)})
    except ValidationError as error:
        raise SettingsError(f"settings of {model.__module__}: {describe(error)}") from None


def describe(error: ValidationError) -> str:
    """Names and faults of the fields, in upper case as in the environment, without any value."""
    return "; ".join(f"{str(fault['loc'][0]).upper()}: {fault['msg']}" for fault in error.errors(include_input=False))
