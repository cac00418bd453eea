"""template.yaml as SAM translates it, complete or with one change."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from local.packages import PROJECT

type Resources = dict[str, Any]

TEMPLATE = PROJECT / "template.yaml"
PARAMETERS = {
    "SupabaseUrl": "https://abcdefghijklmnopqrst.supabase.co",
}
ENDPOINT = "http://127.0.0.1:5055"


def properties(resources: Resources, kind: str) -> dict[str, dict[str, Any]]:
    """The properties of each resource of a type, by logical id."""
    return {name: resource["Properties"] for name, resource in resources.items() if resource["Type"] == f"AWS::{kind}"}


def changed(folder: Path, correct: str, wrong: str, template: Path = TEMPLATE) -> Path:
    """A copy of the template, with one text changed wherever it is."""
    text = template.read_text()
    assert correct in text, f"{correct!r} is not in the template"
    path = folder / "template.yaml"
    path.write_text(text.replace(correct, wrong))
    return path


def assert_broken(rule: Callable[..., None], **stack: Mapping[str, Any] | object) -> None:
    """Expect a test, called with those of these values that it takes, to fail."""
    with pytest.raises((AssertionError, LookupError)):
        rule(**{name: stack[name] for name in inspect.signature(rule).parameters})
