"""The demo tells the truth: its story is as it should be, and it says so when one is not."""

import json
from pathlib import Path

import pytest

from local.cloud import LocalCloud
from local.demo.run import NOTHING, READ_NEXT, Scene, Screen, Story, conclude, tell
from tests.docs.guides import PROJECT
from tests.system.chat import Chat


async def test_every_scene_of_the_story_is_as_it_should_be_and_is_written_as_data(
    cloud: LocalCloud, tmp_path: Path
) -> None:
    scenes = await tell(cloud)
    assert [scene.title for scene in scenes if not scene.ok] == []
    assert conclude(scenes, tmp_path / "story.json") == 0
    told = json.loads((tmp_path / "story.json").read_text())
    assert told["ok"]
    assert len(told["messages"]) == 11
    for message in told["messages"]:
        for phone in ("iPhone", "Pixel"):
            screen = message["phones"][phone]
            assert screen["expected"] == screen["observed"]
            assert screen["expected"].keys() == {"visible", "title", "body"}
    copies = [[phone["copies"] for phone in message["phones"].values()] for message in told["messages"]]
    assert copies == [[1, 1], [0, 0], [1, 1], [1, 1], [1, 1], [1, 1], [3, 3], [1, 1], [1, 0], [0, 0], [1, 0]]


@pytest.mark.parametrize(
    ("expected", "observed", "facts"),
    [
        (Screen(1, "Tina", "Hi"), NOTHING, {}),
        (NOTHING, Screen(1, "Tina", "Hi"), {}),
        (Screen(1, "Tina", "Hi"), Screen(2, "Tina", "Hi"), {}),
        (Screen(1, "Tina", "Hi"), Screen(1, "Tina", "Hello"), {}),
        (NOTHING, NOTHING, {"the Pixel is switched off": False}),
    ],
)
def test_one_wrong_scene_makes_the_demo_fail_and_is_named(
    expected: Screen,
    observed: Screen,
    facts: dict[str, bool],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    right = Scene("A photo", {"iPhone": NOTHING}, observed={"iPhone": NOTHING}, copies={"iPhone": 0})
    wrong = Scene("A dog", {"iPhone": expected}, observed={"iPhone": observed}, copies={"iPhone": 0}, facts=facts)
    assert conclude([right, wrong], tmp_path / "story.json") == 1
    assert "wrong: 2. A dog" in capsys.readouterr().out
    told = json.loads((tmp_path / "story.json").read_text())
    assert [told["ok"], *(message["ok"] for message in told["messages"])] == [False, True, False]
    assert any(line.startswith("✗") for line in wrong.lines())


def test_the_demo_ends_with_what_to_read_next(capsys: pytest.CaptureFixture[str]) -> None:
    conclude([], None)
    last = capsys.readouterr().out.splitlines()[-len(READ_NEXT) :]
    for line, name in zip(last, READ_NEXT, strict=True):
        assert line.startswith(f"  {name} ")
        assert (PROJECT / name.split()[0]).exists()


async def test_a_push_that_never_ends_makes_its_scene_wrong_and_the_story_goes_on(chat: Chat) -> None:
    story = Story(chat.cloud, chat.tina, chat.gus, chat.omar, chat.greta, {"iPhone": chat.phone})
    async with story.scene("A message", {"iPhone": NOTHING}) as scene:
        scene.message_id = await chat.send(webhook_lost=True)
        await chat.cloud.until_push(scene.message_id, lambda job: job["state"] == "done", seconds=0.5)
    assert scene.observed == scene.expected
    assert not scene.ok
