"""The metrics that each function publishes, read from the code."""

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import get_args

from chat_push.observability import Metric, MetricWithDimension

from local.packages import PROJECT

METRICS: frozenset[str] = frozenset(get_args(Metric.__value__))
DIVIDED_METRICS: frozenset[str] = frozenset(get_args(MetricWithDimension.__value__))


def _named_in(files: Iterable[Path]) -> set[str]:
    """The metrics whose names occur in the code of these files."""
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_text())))
    return {str(node.value) for node in nodes if isinstance(node, ast.Constant)} & (METRICS | DIVIDED_METRICS)


def _counted() -> Mapping[str, frozenset[str]]:
    layer = PROJECT / "layers" / "shared" / "chat_push"
    of_all = _named_in(set(layer.glob("*.py")) - {layer / "observability.py"})
    functions = {app.parent.name: app.parent.glob("*.py") for app in PROJECT.glob("functions/*/app.py")}
    return {service: frozenset(_named_in(files) | of_all) for service, files in functions.items()}


# By the dimension `service`, which is the name of the function's folder. Every function may publish those of the layer.
COUNTED = _counted()
