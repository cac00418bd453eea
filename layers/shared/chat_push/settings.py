"""Settings of a function, from its environment."""

import os

from pydantic import BaseModel, ValidationError

from chat_push.validation import field_errors


class SettingsError(Exception):
    """The function cannot start. The text names each wrong environment variable and its error."""


def read_settings[Settings: BaseModel](model: type[Settings]) -> Settings:
    """The settings of a function. The environment variable of a field has its name in upper case; empty means missing.

    Raises SettingsError, which ends the start of the function, if a setting is missing or wrong.
    """
    environment = {name.lower(): value for name, value in os.environ.items()}
    try:
        return model.model_validate({name: environment[name] for name in model.model_fields if environment.get(name)})
    except ValidationError as error:
        wrong = "; ".join(f"{field.upper()}: {message}" for field, message in field_errors(error.errors()))
        raise SettingsError(f"wrong environment variables: {wrong}. The parameters of template.yaml set them") from None
