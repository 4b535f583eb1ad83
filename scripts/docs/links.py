"""Links of the documents, for readers outside the repository.

`python scripts/docs/links.py FILE` prints FILE with absolute links, as the README in the wheel has them.
"""

from __future__ import annotations

import posixpath
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
# A Markdown link or image to a file of the repository, perhaps with an anchor.
_LINK = re.compile(r"(\]\()([^)#:\s]+)((?:#[^)\s]*)?\))")


def repository() -> str:
    """The address of the repository, as pyproject.toml has it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return str(project["urls"]["Source"])


def relinked(text: str, folder: str, target: Callable[[str], str]) -> str:
    """The text with each link to a file replaced by `target(path)`; the path is from the repository's root.

    `folder` is where the text lies, from the root.
    """

    def replace(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, match[2]))
        return f"{match[1]}{target(path)}{match[3]}"

    return _LINK.sub(replace, text)


def absolute(path: str) -> str:
    """Where the repository shows a file or a folder."""
    kind = "tree" if (ROOT / path).is_dir() else "blob"
    return f"{repository()}/{kind}/main/{path}"


if __name__ == "__main__":
    found = Path(sys.argv[1]).resolve()
    sys.stdout.write(relinked(found.read_text("utf-8"), str(found.parent.relative_to(ROOT)), absolute))
