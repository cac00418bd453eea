"""A short chaos run, in a cloud of its own, because it kills Postgres. `./dev chaos` is the long run."""

import json
from pathlib import Path

import pytest

from local.chaos.run import report, run
from local.cloud import local_cloud


async def test_every_invariant_holds_while_every_fault_strikes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with local_cloud(direct=True) as cloud:
        result = await run(cloud, messages=150, seed=1)
    json_file = tmp_path / "chaos.json"
    code = report(result, json_file)
    written = json.loads(json_file.read_text())
    assert (code, written["ok"], [v.violations for v in result.verdicts if v.violations]) == (0, True, [])
    assert min(result.done.values()) >= 1, "an action or an attack never succeeded"
    assert min(result.faults.values()) >= 1, "a kind of fault never struck"
    assert [verdict.invariant for verdict in result.verdicts if not verdict.checked] == []
    assert "--messages 150 --seed 1" in capsys.readouterr().out
