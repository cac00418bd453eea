"""Events and the context with which Lambda invokes a function, and the metrics that it prints."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.http_fakes import Printed

ROOT = Path(__file__).parents[2]

type LoadFunction = Callable[..., ModuleType]
type Invoke = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass
class Context:
    """The part of Lambda's context that the functions and Powertools use."""

    function_name: str
    seconds_left: float = 20
    memory_limit_in_mb: int = 512
    aws_request_id: str = "8b1e6a4e-0000-4000-8000-000000000000"

    @property
    def invoked_function_arn(self) -> str:
        return f"arn:aws:lambda:eu-central-1:123456789012:function:{self.function_name}:live"

    def get_remaining_time_in_millis(self) -> int:
        return round(self.seconds_left * 1000)


def event(name: str) -> dict[str, Any]:
    """An event of AWS, from tests/events."""
    loaded: dict[str, Any] = json.loads((ROOT / "tests" / "events" / f"{name}.json").read_text())
    return loaded


def numbers_of(printed: Printed) -> dict[str, Any]:
    """The printed metrics: their value, or values, by name or by name{second dimension}."""
    numbers: dict[str, Any] = {}
    for emf in printed():
        for described in emf.get("_aws", {}).get("CloudWatchMetrics", []):
            assert described["Namespace"] == "ChatPush"
            [dimensions] = described["Dimensions"]
            second = [f"{{{emf[name]}}}" for name in dimensions if name != "service"]
            for metric in described["Metrics"]:
                values = emf[metric["Name"]]
                numbers["".join([metric["Name"], *second])] = values[0] if len(values) == 1 else values
    return numbers
