"""Publishes results: bench/results.json, a plot for each benchmark, and the generated part of docs/performance.md."""

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.report import Plot, Result, Target, shown, verdict

type Json = dict[str, Any]

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- written by ./dev bench: begin -->\n", "<!-- written by ./dev bench: end -->\n"


def machine() -> Json:
    """The machine and the commit that the figures belong to."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return {
        "cpus": os.cpu_count(),
        "cpu": _cpu_model(),
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit.stdout.strip() or "unknown",
    }


def as_json(description: str, result: Result, measured_on: Json) -> Json:
    """The part of results.json for one benchmark."""
    return {
        "description": description,
        "machine": measured_on,
        "ok": result.ok,
        "targets": [vars(target) | {"ok": target.ok} for target in result.targets],
        "columns": list(result.columns),
        "rows": [list(row) for row in result.rows],
        "notes": list(result.notes),
    }


class Publication:
    """The published results in the repository `root`. `names` is the order of the benchmarks."""

    def __init__(self, names: tuple[str, ...], root: Path = ROOT) -> None:
        self._names = names
        self._results = root / "bench" / "results.json"
        self._plots = root / "bench" / "plots"
        self._page = root / "docs" / "performance.md"

    def results(self) -> Json:
        """The content of results.json: the newest result of each benchmark, by name."""
        return json.loads(self._results.read_text()) if self._results.exists() else {}

    def add(self, name: str, description: str, result: Result, measured_on: Json) -> None:
        """Replaces the published result of one benchmark."""
        known = self.results() | {name: as_json(description, result, measured_on)}
        ordered = {name: known[name] for name in self._names if name in known}
        self._results.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n")
        if result.plot:
            self._plots.mkdir(exist_ok=True)
            _draw(result, result.plot, self._plots / f"{name}.png")
        self._write_page(ordered)

    def _write_page(self, results: Json) -> None:
        before, _, rest = self._page.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        parts = [_section(name, part, self._plots / f"{name}.png") for name, part in results.items()]
        self._page.write_text(before + BEGIN + "".join(parts) + "\n" + END + after)


def _section(name: str, part: Json, plot: Path) -> str:
    """The section of docs/performance.md for one benchmark."""
    rows = [part["columns"], ["---"] * len(part["columns"]), *([shown(cell) for cell in row] for row in part["rows"])]
    targets = [
        Target(**{field: value for field, value in target.items() if field != "ok"}) for target in part["targets"]
    ]
    on = part["machine"]
    paragraphs = [
        f"## {name}",
        part["description"],
        "\n".join(f"| {' | '.join(row)} |" for row in rows),
        "\n".join(f"- {verdict(target)}" for target in targets),
        "\n".join(f"- {note}" for note in part["notes"]),
        f"![{name}](../bench/plots/{plot.name})" if plot.exists() else "",
        f"Measured on {on['date']} at {on['commit']}: {on['cpus']} processors, {on['cpu']}, Python {on['python']}.",
    ]
    return "".join(f"\n{paragraph}\n" for paragraph in paragraphs if paragraph)


def _draw(result: Result, plot: Plot, file: Path) -> None:
    """Draws the bar chart of the table."""
    from matplotlib.figure import Figure  # takes a second to import

    label = result.columns.index(plot.label)
    names = [str(row[label]) for row in result.rows]
    thickness = 0.8 / len(plot.values)
    figure = Figure(figsize=(7, 1.2 + 0.22 * len(names) * (len(plot.values) + 1)), layout="constrained")
    axes = figure.subplots()
    for number, column in enumerate(plot.values):
        place = result.columns.index(column)
        values = [float(row[place]) for row in result.rows]
        bars = axes.barh([row + number * thickness for row in range(len(names))], values, thickness, label=column)
        axes.bar_label(bars, [shown(value) for value in values], padding=2, fontsize=7)
    axes.set_yticks([row + 0.4 - thickness / 2 for row in range(len(names))], names)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlabel(plot.unit)
    if plot.log:
        axes.set_xscale("log")
    if len(plot.values) > 1:
        axes.legend(fontsize=8)
    figure.savefig(file, dpi=80, metadata={"Software": None})


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()  # arm64 names no model
