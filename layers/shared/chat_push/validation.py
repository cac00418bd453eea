"""The readable form of pydantic's validation errors. It never contains the value of a field."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError


def field_errors(errors: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The path of each wrong field, joined by dots, and its error. The path is empty for the value as a whole."""
    return [(".".join(map(str, error["loc"])), str(error["msg"]).removeprefix("Value error, ")) for error in errors]


def describe(error: ValidationError) -> str:
    """All wrong fields in one line, such as `current: Field required; previous: Input should be a valid string`."""
    return "; ".join(
        f"{field}: {message}" if field else message
        for field, message in field_errors(error.errors(include_input=False))
    )
