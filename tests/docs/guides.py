"""Reads README.md and the guides in docs/: their code, links, headings and tables."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).parents[2]
GUIDES = (
    *sorted(PROJECT.glob("*.md")),
    *sorted((PROJECT / "docs").glob("*.md")),
    *sorted(PROJECT.glob("client/*/*.md")),
)

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A code block of a guide. `needs`: from the comment in its first line, such as "an AWS account"."""

    file: Path
    line: int
    language: str
    text: str

    @property
    def needs(self) -> str | None:
        found = re.match(r"# needs (.+)", self.text)
        return found[1] if found else None

    @property
    def commands(self) -> list[str]:
        """The commands of a shell block, without comments."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line for line in lines if line and not line.startswith("#")]

    def __str__(self) -> str:
        return f"{self.file.relative_to(PROJECT)}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    """All code blocks in one of these languages."""
    return [block for file in GUIDES for block in _blocks(file) if block.language in languages]


def dev_commands() -> dict[str, list[str]]:
    """Each `./dev ...` of the guides, also within a sentence, with its places (file:line)."""
    found: dict[str, list[str]] = {}
    for file in GUIDES:
        text = file.read_text()
        for match in re.finditer(r"(?:^ *|`)(\./dev [^`#\n]+)", text, re.MULTILINE):
            line = text.count("\n", 0, match.start(1)) + 1
            found.setdefault(match[1].strip(), []).append(f"{file.name}:{line}")
    return found


def section(file: str, heading: str) -> str:
    """The text under a heading of a guide, up to the next heading of the same or a higher level."""
    path = PROJECT / file
    text = _without_code(path)
    found = re.search(rf"^(#+) {re.escape(heading)}\n", text, re.MULTILINE)
    assert found, f"{file} has no heading {heading}"
    after = re.compile(rf"^#{{1,{len(found[1])}}} ", re.MULTILINE).search(text, found.end())
    return path.read_text()[found.end() : after.start() if after else None]


def table(text: str, *, plain: bool = True) -> list[list[str]]:
    """The rows of the tables in a text; `plain`: without backticks."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("|-")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [[cell.replace("`", "") for cell in row] for row in rows] if plain else rows


def headings(file: Path) -> list[str]:
    """The headings of a file."""
    return re.findall(r"^#+ (.+)$", _without_code(file), re.MULTILINE)


def anchors(file: Path) -> set[str]:
    """The anchors of a file's headings, as GitHub makes them."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings(file)}


def links(file: Path) -> list[str]:
    """The targets of a file's links."""
    return re.findall(r"\]\(([^)\s]+)\)", _without_code(file))


@cache
def _without_code(file: Path) -> str:
    """The text with blanks instead of code, so that all offsets stay the same."""
    return _FENCE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), file.read_text())


def _blocks(file: Path) -> Iterator[Block]:
    text = file.read_text()
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        code = re.sub(rf"^{match['indent']}", "", match["text"], flags=re.MULTILINE)
        yield Block(file, line, match["language"], code)
