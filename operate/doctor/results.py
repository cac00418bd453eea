"""What a check reports: one line if it passes, three lines for a finding."""

from dataclasses import dataclass

# Consequences that several checks share.
NOTHING_SENT = "No push is sent until the fault is fixed; until then jobs wait in the database, for up to 24 hours."
LATE = "The sweep sends the pushes instead of the webhook, up to a minute late."


@dataclass(frozen=True)
class Healthy:
    """The check passed."""

    what: str

    def __str__(self) -> str:
        return f"ok        {self.what}"


@dataclass(frozen=True)
class Finding:
    """A fault, its consequence, and its remedy: a command or SQL where there is one, else an instruction."""

    what: str
    consequence: str
    remedy: str

    def __str__(self) -> str:
        return f"FINDING   {self.what}\n  effect  {self.consequence}\n  remedy  {self.remedy}"


@dataclass(frozen=True)
class NotExamined:
    """The check could not be made, for the reason `why`."""

    what: str
    why: str

    def __str__(self) -> str:
        return f"unknown   {self.what}: {self.why}"


@dataclass(frozen=True)
class NotLocal:
    """The local cloud does not have the part that this check examines."""

    what: str

    def __str__(self) -> str:
        return f"-         {self.what}: not in the local cloud"


@dataclass(frozen=True)
class Waiting:
    """Progress of a check that takes minutes."""

    what: str

    def __str__(self) -> str:
        return f"...       {self.what}"


type Result = Healthy | Finding | NotExamined | NotLocal | Waiting


class Unhealthy(Exception):
    """The check cannot continue; `finding` is the reason."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.what)
        self.finding = finding


def duration(seconds: float) -> str:
    """The duration in the largest unit of which there are at least two, such as "7 minutes"."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
