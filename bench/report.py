"""What a benchmark reports, and how it reads: figures, targets, tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

type Cell = str | float | int


@dataclass(frozen=True)
class Target:
    """What a benchmark must reach: `value` at most `limit`, or at least it."""

    text: str
    value: float
    limit: float
    at_least: bool = False

    @property
    def ok(self) -> bool:
        """Whether the target is met."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@dataclass(frozen=True)
class Plot:
    """What of a table goes into its bar chart: a group of bars for each row, one bar for each column of `values`."""

    label: str
    values: tuple[str, ...]
    unit: str
    log: bool = False


@dataclass(frozen=True)
class Result:
    """What a benchmark found. `notes` are sentences that the figures need to be understood."""

    columns: tuple[str, ...]
    rows: list[tuple[Cell, ...]]
    targets: list[Target]
    plot: Plot | None = None
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every target is met."""
        return all(target.ok for target in self.targets)


class Percentiles(NamedTuple):
    """Of some values, in their unit."""

    p50: float
    p95: float
    p99: float


def percentiles(values: Sequence[float]) -> Percentiles:
    """The smallest value that is at least as great as 50, 95 and 99 % of them. Raises ValueError if there are none."""
    if not values:
        raise ValueError("percentiles of no values")
    ordered = sorted(values)
    p50, p95, p99 = (ordered[-(-len(ordered) * percent // 100) - 1] for percent in (50, 95, 99))
    return Percentiles(p50, p95, p99)


def shown(cell: Cell) -> str:
    """A cell as people read it: numbers with three digits that count."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int) or abs(cell) >= 100:
        return f"{cell:,.0f}"
    return f"{cell:#.3g}".removesuffix(".") if cell else "0"


def verdict(target: Target) -> str:
    """Whether the target is met, as a sentence."""
    limit = f"at {'least' if target.at_least else 'most'} {shown(target.limit)}"
    return f"{'met' if target.ok else 'MISSED'}: {target.text}: {shown(target.value)} ({limit})"


def table(result: Result) -> str:
    """The figures in columns of equal width, for a terminal: text to the left, numbers to the right."""
    lines = [result.columns, *([shown(cell) for cell in row] for row in result.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    words = [any(isinstance(row[place], str) for row in result.rows) for place in range(len(widths))]

    def aligned(cells: Sequence[str]) -> str:
        placed = zip(cells, widths, words, strict=True)
        return "  ".join(f"{cell:{'<' if word else '>'}{width}}" for cell, width, word in placed).rstrip()

    return "\n".join(map(aligned, lines))
