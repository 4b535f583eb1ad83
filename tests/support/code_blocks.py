"""The code blocks of the documents; `python -m tests.support.code_blocks` lists those that no test runs."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "scripts/docs").glob("*.md")),
]
_BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, the words behind it (`run`, `manual`), and where it stands."""

    page: Path
    line: int
    language: str
    tag: str
    text: str

    @property
    def place(self) -> str:
        """The page and line, as an editor finds it."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks() -> Iterator[Block]:
    """All of them, in order."""
    for page in PAGES:
        text = page.read_text("utf-8")
        for match in _BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            yield Block(page, line, match[1], match[2].strip(), match[3])


def main() -> None:
    """Print the blocks that are marked `manual`."""
    for block in blocks():
        if block.tag == "manual":
            sys.stdout.write(f"{block.place}\n{block.text}\n")


if __name__ == "__main__":
    main()
