"""The sources of the documentation site: the pages of this folder, and those of the repository's root.

`python scripts/docs/site.py FOLDER` writes them with `mkdocs.yml` into FOLDER. Nothing is written twice: the
README is the first page.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from links import ROOT, absolute, relinked

DOCS = "scripts/docs"
# Pages from elsewhere in the repository, by their name on the site.
ELSEWHERE = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "security.md": "SECURITY.md",
}
# ```sh run: the words behind the language are for the tests.
_TAG = re.compile(r"^(```\w+) (?:run|manual)\b.*$", re.MULTILINE)


def pages() -> dict[str, str]:
    """The source of each page of the site, from the repository's root."""
    own = {path.name: f"{DOCS}/{path.name}" for path in sorted((ROOT / DOCS).glob("*.md"))}
    return own | ELSEWHERE


def page(name: str) -> str:
    """A page as the site has it: links to other pages stay within it, others go to the repository."""
    names = {source: page for page, source in pages().items()}
    source = pages()[name]
    text = (ROOT / source).read_text("utf-8")
    return _TAG.sub(
        r"\1", relinked(text, posixpath.dirname(source), lambda path: names.get(path) or absolute(path))
    )


def write(folder: Path) -> None:
    """The whole site's sources."""
    shutil.rmtree(folder / "pages", ignore_errors=True)
    (folder / "pages").mkdir(parents=True)
    for name in pages():
        (folder / "pages" / name).write_text(page(name), "utf-8")
    shutil.copy(ROOT / DOCS / "mkdocs.yml", folder)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
