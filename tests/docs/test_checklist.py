"""docs/checklist.md has each box of the specification's checklist with tests that exist."""

import ast
import json

import pytest

from tests.docs.checklist import CHECKLIST, DOCUMENT, SCENARIOS, Box, document
from tests.docs.guides import PROJECT

BOXES = [box for boxes in CHECKLIST.values() for box in boxes]


def test_the_checklist_has_each_box_of_the_specification() -> None:
    """Section F: seven headings with boxes, and four testing scenarios."""
    assert [len(boxes) for boxes in CHECKLIST.values()] == [4, 4, 4, 3, 3, 4, 4, 4]
    assert len({box.text for box in BOXES}) == 30


def test_the_checklist_is_generated_from_its_table() -> None:
    assert DOCUMENT.read_text() == document(), "run python -m tests.docs.checklist"


@pytest.mark.parametrize("box", BOXES, ids=lambda box: box.text)
def test_each_box_is_shown_by_tests_that_exist(box: Box) -> None:
    assert box.tests or box.scenarios
    for test in box.tests:
        file, name = test.split("::")
        module = ast.parse((PROJECT / "tests" / file).read_text())
        functions = [node.name for node in module.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        assert functions.count(name) == 1, test
    for scenario in box.scenarios:
        file, rule = scenario.split(": ", 1)
        assert rule in [each["rule"] for each in json.loads((SCENARIOS / f"{file}.json").read_text())]
