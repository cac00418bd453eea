"""Scripts of faults: which requests a fault strikes. The faults of each service are in its faults.py."""

from collections.abc import Collection
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Script[Fault, Endpoint](BaseModel):
    """A fault for the next `times` requests to an endpoint, or for the next that concern `token`."""

    model_config = ConfigDict(extra="forbid")

    fault: Fault
    times: Annotated[int, Field(ge=1)] = 1
    on: Endpoint
    token: str | None = None


class ScriptedFaults[Fault, Endpoint]:
    """The scripts that have not struck yet, in order."""

    def __init__(self) -> None:
        self.scripts: list[Script[Fault, Endpoint]] = []

    def take(self, on: Endpoint, token: str | None = None) -> Fault | None:
        """The fault that strikes a request, or on `connect` a connection. None: none. Decrements its count."""
        for script in self.matching(on, [] if token is None else [token]):
            return self.use_up(script)
        return None

    def matching(self, on: Endpoint, tokens: Collection[str]) -> list[Script[Fault, Endpoint]]:
        """The scripts for such a request, which concerns these tokens."""
        return [
            script for script in self.scripts if script.on == on and (script.token is None or script.token in tokens)
        ]

    def use_up(self, script: Script[Fault, Endpoint]) -> Fault:
        """Decrements the count of a script. Returns its fault."""
        script.times -= 1
        if script.times == 0:
            self.scripts.remove(script)
        return script.fault
