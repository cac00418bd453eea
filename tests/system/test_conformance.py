"""The scenarios of client/conformance. Each is played twice, so that each client is on each of its phones."""

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from local.cloud import LocalCloud
from local.packages import PROJECT, node
from local.types import Json
from tests.system.conformance.driver import Drivers
from tests.system.conformance.player import Player

_CLIENT = PROJECT / "client"
_CLIENTS = {
    "python": ("python", [sys.executable, "-m", "conformance.driver"]),
    "typescript": ("expo", [str(node()), "conformance/driver.ts"]),
    "async-storage": ("expo", [str(node()), "conformance/driver.ts", "async-storage"]),
}


def _scenarios() -> list[Any]:
    """Each scenario, named by its rule."""
    files = sorted((_CLIENT / "conformance" / "scenarios").glob("*.json"))
    return [
        pytest.param(scenario, id=f"{file.stem}: {scenario['rule']}")
        for file in files
        for scenario in json.loads(file.read_text())
    ]


@pytest.fixture(scope="module")
async def clients() -> AsyncIterator[dict[str, Drivers]]:
    clients = {name: Drivers(_CLIENT / folder, command) for name, (folder, command) in _CLIENTS.items()}
    yield clients
    for drivers in clients.values():
        await drivers.end()


@pytest.mark.parametrize("first", ["python", "typescript"])
@pytest.mark.parametrize("scenario", _scenarios())
async def test_a_scenario_ends_as_its_rule_says(
    cloud: LocalCloud, clients: dict[str, Drivers], scenario: Json, first: str, tmp_path: Path
) -> None:
    [second] = {"python", "typescript"} - {first}
    await Player(cloud, scenario, [clients[first], clients[second]], tmp_path).play()


async def test_what_a_client_on_async_storage_did_without_a_network_survives_a_kill(
    cloud: LocalCloud, clients: dict[str, Drivers], tmp_path: Path
) -> None:
    [scenario] = [each.values[0] for each in _scenarios() if each.id.startswith("outbox: An edit and a deletion")]
    await Player(cloud, scenario, [clients["async-storage"], clients["python"]], tmp_path).play()
