"""What an examination comes to: one line for what is well, three for a finding."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Healthy:
    """Examined, and well."""

    what: str

    def __str__(self) -> str:
        return f"ok        {self.what}"


@dataclass(frozen=True)
class Finding:
    """Something is wrong: what it is, what follows from it, and the command that mends it."""

    what: str
    consequence: str
    remedy: str

    def __str__(self) -> str:
        return f"FINDING   {self.what}\n  so      {self.consequence}\n  remedy by {self.remedy}"


@dataclass(frozen=True)
class NotExamined:
    """Nobody knows, and why."""

    what: str
    why: str

    def __str__(self) -> str:
        return f"unknown   {self.what}: {self.why}"


@dataclass(frozen=True)
class NotLocal:
    """A part that the local cloud does not have."""

    what: str

    def __str__(self) -> str:
        return f"-         {self.what}: not in the local cloud"


@dataclass(frozen=True)
class Waiting:
    """Nothing yet; the examination goes on."""

    what: str

    def __str__(self) -> str:
        return f"...       {self.what}"


type Result = Healthy | Finding | NotExamined | NotLocal | Waiting


class Unhealthy(Exception):
    """A check cannot go on, for a reason that is a finding itself."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.what)
        self.finding = finding


def duration(seconds: float) -> str:
    """A time as people say it."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
