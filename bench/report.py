"""The result of a benchmark: figures and targets, and their text form."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

type Cell = str | float | int


@dataclass(frozen=True)
class Target:
    """A limit for a figure: `value` must be at most `limit`, or at least `limit` if `at_least`."""

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
    """The bar chart of a table: a group of bars for each row, with one bar for each column of `values`."""

    label: str
    values: tuple[str, ...]
    unit: str
    log: bool = False


@dataclass(frozen=True)
class Result:
    """The figures of a benchmark. `notes` are sentences that explain them."""

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
    """Percentiles, in the unit of the values."""

    p50: float
    p95: float
    p99: float


def percentiles(values: Sequence[float]) -> Percentiles:
    """The smallest values that are at least as great as 50, 95 and 99 % of all. Raises ValueError for no values."""
    if not values:
        raise ValueError("percentiles of no values")
    ordered = sorted(values)
    p50, p95, p99 = (ordered[-(-len(ordered) * percent // 100) - 1] for percent in (50, 95, 99))
    return Percentiles(p50, p95, p99)


def shown(cell: Cell) -> str:
    """A cell as text; numbers have three significant digits."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int) or abs(cell) >= 100:
        return f"{cell:,.0f}"
    return f"{cell:#.3g}".removesuffix(".") if cell else "0"


def verdict(target: Target) -> str:
    """One line that says whether the target is met, such as "met: ratio: 0.500 (at most 1.25)"."""
    limit = f"at {'least' if target.at_least else 'most'} {shown(target.limit)}"
    return f"{'met' if target.ok else 'MISSED'}: {target.text}: {shown(target.value)} ({limit})"


def table(result: Result) -> str:
    """The figures as a table for a terminal, with text aligned to the left and numbers to the right."""
    lines = [result.columns, *([shown(cell) for cell in row] for row in result.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    words = [any(isinstance(row[place], str) for row in result.rows) for place in range(len(widths))]

    def aligned(cells: Sequence[str]) -> str:
        placed = zip(cells, widths, words, strict=True)
        return "  ".join(f"{cell:{'<' if word else '>'}{width}}" for cell, width, word in placed).rstrip()

    return "\n".join(map(aligned, lines))
