"""A short chaos run, in a cloud of its own: it kills Postgres. The long one is ./dev chaos."""

import json
from pathlib import Path

import pytest

from local.chaos.run import conclude, run
from local.cloud import local_cloud


async def test_every_invariant_holds_while_everything_fails_that_can(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with local_cloud() as cloud:
        result = await run(cloud, messages=150, seed=1)
    json_file = tmp_path / "chaos.json"
    code = conclude(result, json_file)
    told = json.loads(json_file.read_text())
    assert (code, told["ok"], [v.violations for v in result.verdicts if v.violations]) == (0, True, [])
    assert min(result.done.values()) >= 1, "there is something that nobody did"
    assert min(result.faults.values()) >= 1, "a kind of fault did not strike"
    assert min(verdict.checked for verdict in result.verdicts) >= 1, "an invariant had nothing to look at"
    assert "--messages 150 --seed 1" in capsys.readouterr().out
