"""The text form of results, and their publication."""

import json
from pathlib import Path

import pytest

from bench.publish import Publication
from bench.report import Plot, Result, Target, percentiles, shown, table, verdict

MACHINE = {"cpus": 2, "cpu": "Testium", "python": "3.12.1", "date": "2026-11-22", "commit": "abc1234"}
FAST = Result(
    columns=("what", "ms"),
    rows=[("ours", 12.345), ("theirs", 2500)],
    targets=[Target("ratio", 0.5, 1.25)],
    plot=Plot("what", ("ms",), "milliseconds"),
    notes=("Warm.",),
)
SLOW = Result(columns=("what", "ms"), rows=[("ours", 5000.0)], targets=[Target("a second", 5000, 1000)])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository without results."""
    (tmp_path / "bench").mkdir()
    (tmp_path / "docs").mkdir()
    page = "# Performance\n\n<!-- written by ./dev bench: begin -->\n<!-- written by ./dev bench: end -->\n\nThe end.\n"
    (tmp_path / "docs" / "performance.md").write_text(page)
    return tmp_path


@pytest.mark.parametrize(
    ("count", "expected"), [(1, (1, 1, 1)), (2, (1, 2, 2)), (100, (50, 95, 99)), (300, (150, 285, 297))]
)
def test_a_percentile_is_one_of_the_measured_values(count: int, expected: tuple[int, int, int]) -> None:
    assert percentiles(range(count, 0, -1)) == expected


def test_percentiles_of_no_values_are_an_error() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentiles([])


@pytest.mark.parametrize(
    ("value", "at_least", "ok"), [(1, False, True), (1.1, False, False), (1, True, True), (0.9, True, False)]
)
def test_a_target_is_met_at_exactly_its_limit(value: float, at_least: bool, ok: bool) -> None:
    assert Target("t", value, 1, at_least).ok is ok


def test_reported_numbers_have_three_significant_digits() -> None:
    cells = (0, 0.0, 0.0012345, 1.0, 12.345, 99.96, 123.4, 1234567, "as it is")
    assert [shown(cell) for cell in cells] == [
        *("0", "0", "0.00123", "1.00", "12.3", "100", "123", "1,234,567", "as it is"),
    ]


def test_a_table_of_results_aligns_numbers_to_the_right() -> None:
    assert table(FAST).splitlines() == ["what       ms", "ours     12.3", "theirs  2,500"]


def test_a_verdict_names_the_target_and_its_limit() -> None:
    assert verdict(SLOW.targets[0]) == "MISSED: a second: 5,000 (at most 1,000)"
    assert verdict(Target("rate", 95.0, 90, at_least=True)) == "met: rate: 95.0 (at least 90)"


def test_results_json_holds_figures_targets_and_verdict(root: Path) -> None:
    Publication(("fast",), root).add("fast", "How fast.", FAST, MACHINE)
    assert json.loads((root / "bench" / "results.json").read_text()) == {
        "fast": {
            "description": "How fast.",
            "machine": MACHINE,
            "ok": True,
            "targets": [{"text": "ratio", "value": 0.5, "limit": 1.25, "at_least": False, "ok": True}],
            "columns": ["what", "ms"],
            "rows": [["ours", 12.345], ["theirs", 2500]],
            "notes": ["Warm."],
        }
    }


def test_publishing_one_benchmark_keeps_the_others(root: Path) -> None:
    publication = Publication(("fast", "slow"), root)
    publication.add("slow", "", SLOW, MACHINE)
    publication.add("fast", "", SLOW, MACHINE)
    publication.add("fast", "", FAST, MACHINE)
    assert {name: part["ok"] for name, part in publication.results().items()} == {"fast": True, "slow": False}
    assert list(publication.results()) == ["fast", "slow"]


def test_the_performance_page_shows_table_verdicts_and_plot_and_keeps_its_prose(root: Path) -> None:
    publication = Publication(("fast", "slow"), root)
    for _ in range(2):
        publication.add("fast", "How fast.", FAST, MACHINE)
        publication.add("slow", "How slow.", SLOW, MACHINE)
    page = (root / "docs" / "performance.md").read_text()
    assert page.startswith("# Performance\n")
    assert page.endswith("\nThe end.\n")
    assert [page.count(line) for line in ("## fast\n", "## slow\n")] == [1, 1]
    assert "| what | ms |\n| --- | --- |\n| ours | 12.3 |\n" in page
    assert "- met: ratio: 0.500 (at most 1.25)\n" in page
    assert "- MISSED: a second: 5,000 (at most 1,000)\n" in page
    assert "![fast](../bench/plots/fast.png)" in page
    assert "![slow]" not in page
    assert (root / "bench" / "plots" / "fast.png").read_bytes().startswith(b"\x89PNG")
