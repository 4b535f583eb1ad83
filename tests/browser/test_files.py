"""The files of the operator's page: how large they are, and what they may not hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGES = Path(__file__).parents[2] / "sanic_proxy/pages"
FILES = sorted((PAGES / "ui").iterdir())
MAX_BYTES = 150_000


def test_the_page_with_all_its_files_is_below_150_kb() -> None:
    assert sum(file.stat().st_size for file in (*FILES, PAGES / "style.css")) < MAX_BYTES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_nothing_comes_from_elsewhere_or_the_root_of_the_host(file: Path) -> None:
    """All URLs are relative, so that the page works below a path prefix."""
    text = file.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
    assert "://" not in text
    assert not re.search(
        r"""(?:src|href|action)=["']?/|(?:get|call|stream|query|fetch)\((?:"[A-Z]+", )?["'`]/""", text
    )


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_nothing_is_read_as_markup_or_code(file: Path) -> None:
    text = file.read_text("utf-8")
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|DOMParser", text
    )
    assert not re.search(
        r"<style|style=|<script(?! type=\"module\" src=\"ui/ui\.js\"></script>)|\son[a-z]+=\"", text
    )
