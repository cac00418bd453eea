"""The demo reports what its phones really show, and fails if one step is not as expected."""

import json
from pathlib import Path

import pytest

from local.cloud import LocalCloud
from local.demo.run import NEXT, new_scenario, report, run
from local.demo.scenario import NOTHING, Screen, Step
from local.demo.steps import STEPS
from local.packages import PROJECT


@pytest.mark.usefixtures("direct")
async def test_every_step_of_the_demo_ends_as_expected_and_is_in_its_json(cloud: LocalCloud, tmp_path: Path) -> None:
    steps = await run(cloud)
    assert [step.title for step in steps if not step.ok] == []
    assert report(steps, tmp_path / "demo.json") == 0
    result = json.loads((tmp_path / "demo.json").read_text())
    assert result["ok"]
    assert len(result["steps"]) == len(STEPS)
    for step in result["steps"]:
        assert step["phones"].keys() >= {"iPhone", "Pixel"}
        for screen in step["phones"].values():
            assert screen["expected"] == screen["observed"]
            assert screen["expected"].keys() == {"visible", "title", "body"}
    copies = [[phone["copies"] for phone in step["phones"].values()] for step in result["steps"]]
    first = [[1, 1], [0, 0], [1, 1], [1, 1], [1, 1], [1, 1]]
    muted_quiet_blocked = [[0, 0], [1, 1], [0, 0]]
    assert copies == [*first, *muted_quiet_blocked, [3, 3], [1, 1], [1, 0], [0, 0], [1] * 4, [1, 0]]


@pytest.mark.parametrize(
    ("expected", "observed", "checks"),
    [
        (Screen(1, "Tina", "Hi"), NOTHING, {}),
        (NOTHING, Screen(1, "Tina", "Hi"), {}),
        (Screen(1, "Tina", "Hi"), Screen(2, "Tina", "Hi"), {}),
        (Screen(1, "Tina", "Hi"), Screen(1, "Tina", "Hello"), {}),
        (NOTHING, NOTHING, {"the Pixel is deactivated": False}),
    ],
)
def test_one_failed_step_fails_the_demo_and_is_named(
    expected: Screen,
    observed: Screen,
    checks: dict[str, bool],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    passed = Step("A photo", {"iPhone": NOTHING}, observed={"iPhone": NOTHING}, copies={"iPhone": 0})
    failed = Step("A text", {"iPhone": expected}, observed={"iPhone": observed}, copies={"iPhone": 0}, checks=checks)
    assert report([passed, failed], tmp_path / "demo.json") == 1
    assert "1 of 2 steps ended as expected.\nfailed: 2. A text\n" in capsys.readouterr().out
    result = json.loads((tmp_path / "demo.json").read_text())
    assert [result["ok"], *(step["ok"] for step in result["steps"])] == [False, True, False]
    assert any(line.startswith("✗") for line in failed.lines())


def test_the_demo_ends_with_what_to_do_next(capsys: pytest.CaptureFixture[str]) -> None:
    report([], None)
    last = capsys.readouterr().out.splitlines()[-len(NEXT) :]
    for line, name in zip(last, NEXT, strict=True):
        assert line.startswith(f"  {name} ")
        assert (PROJECT / name.split()[0]).exists()


async def test_a_push_that_does_not_finish_fails_its_step_and_the_demo_continues(cloud: LocalCloud) -> None:
    nothing = {"iPhone": NOTHING, "Pixel": NOTHING}
    async with new_scenario(cloud) as scenario, scenario.step("A message", nothing) as step:
        cloud.pg_net.lose(1)
        step.message_id = await scenario.send("Hello Gus")
        await cloud.until_push(step.message_id, seconds=0.5)
    assert step.observed == step.expected
    assert not step.ok
