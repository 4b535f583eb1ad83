"""The README agrees with the code."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from sanic_proxy.config.catalog import ROWS, Row
from sanic_proxy.config.model import VARIABLES
from sanic_proxy.config.reference import provider_row
from tests.support.code_blocks import blocks
from tests.support.proxy import Proxy

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "scripts/docs").glob("*.md"))]


def test_the_settings_shown_are_those_that_are_declared() -> None:
    shown = [line for line in README.splitlines() if line.startswith("| `SANIC_PROXY_")]
    assert len(shown) == 10
    assert set(shown) <= {variable.row for variable in VARIABLES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_setting_is_made_up(page: Path) -> None:
    known = {variable.name for variable in VARIABLES} | {"KEY"}  # what the load test presents
    assert set(re.findall(r"SANIC_PROXY_([A-Z_]+[A-Z])", page.read_text("utf-8"))) <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_readme_is_short_and_every_page_is_linked_from_it() -> None:
    assert len(README.splitlines()) <= 210
    assert [page.name for page in PAGES[1:] if f"(scripts/docs/{page.name})" not in README] == []
    contents = (ROOT / "scripts/docs/mkdocs.yml").read_text("utf-8")
    missing = [page.name for page in PAGES[1:] if f"- {page.name}\n" not in contents]
    assert missing == [], "name them in scripts/docs/mkdocs.yml"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_marked_run_or_manual_and_valid(page: Path) -> None:
    """tests/test_documents.py runs those marked `sh run`; the others, `sh manual`, are for people."""
    found = [block for block in blocks() if block.page == page and block.language in {"sh", "bash"}]
    assert [block.place for block in found if block.tag not in {"run", "manual"}] == []
    text = "\n".join(f"(\n{block.text}\n)" for block in found)
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    assert done.stderr == ""


@pytest.mark.parametrize("row", [row for row in ROWS if not row.is_embedded], ids=lambda row: row.name)
def test_every_provider_has_its_row(row: Row) -> None:
    assert provider_row(row) in README


def test_the_curl_gives_the_answer_that_is_shown(proxy: Proxy) -> None:
    shown = re.search(r"\$ (curl .*?)\n    (\{.*?\})\n", README, re.DOTALL)
    assert shown is not None
    command = shlex.split(shown[1].replace("\\\n", " "))
    reply = proxy.request("POST", command[1].partition(":8000")[2], json.loads(command[-1]))
    changing = {"id": None, "created": None}
    assert {**reply.json, **changing} == {**json.loads(shown[2]), **changing}


def test_requirement_files_pin_with_hashes_and_name_no_host() -> None:
    paths = list((ROOT / "scripts" / "requirements").rglob("*.txt"))
    assert paths
    for path in paths:
        text = path.read_text("utf-8")
        pins = re.findall(r"^[A-Za-z0-9._\[\]-]+==\S+ \\$", text, re.MULTILINE)
        assert len(pins) == len(re.findall(r"^[A-Za-z]", text, re.MULTILINE)), path
        assert "://" not in text
        assert text.count("--hash=sha256:") >= len(pins)


def test_there_are_at_most_ten_direct_dependencies() -> None:
    """Besides typing-extensions, which is Python 3.12's own `typing` for 3.11."""
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    declared = re.search(r"^dependencies = \[\n(.*?)^\]", project, re.MULTILINE | re.DOTALL)
    assert declared is not None
    lines = declared[1].strip().splitlines()
    assert len([line for line in lines if '"typing-extensions>' not in line]) <= 10
