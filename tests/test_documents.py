"""The code blocks of the documents run, or are at least valid."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path

import jsonschema_rs
import pytest

from sanic_proxy.config.reference import toml_schema
from tests.support.code_blocks import Block, blocks
from tests.support.proxy import Proxy, clean_environment, running_proxy

BLOCKS = list(blocks())
SHELL = [block for block in BLOCKS if block.language in {"sh", "bash"}]
ADDRESS = "http://127.0.0.1:8000"


def of(*languages: str) -> list[object]:
    return [pytest.param(block, id=block.place) for block in BLOCKS if block.language in languages]


@pytest.fixture(scope="module")
def described_proxy() -> Iterator[Proxy]:
    """The proxy that the documents speak of, on another port."""
    with running_proxy({"SANIC_PROXY_ADMIN_KEY": "admin-key-0123"}) as proxy:
        yield proxy


@pytest.mark.parametrize("block", [b for b in SHELL if b.tag == "run"], ids=lambda block: block.place)
def test_commands_run(block: Block, described_proxy: Proxy, tmp_path: Path) -> None:
    command = tmp_path / "bin/sanic-proxy"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m sanic_proxy "$@"\n')
    command.chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    environment = clean_environment(
        {"PATH": f"{command.parent}:{os.environ['PATH']}", "SANIC_PROXY_ADMIN_KEY": "admin-key-0123"}
    )
    script = f"set -euo pipefail\n{block.text.replace(ADDRESS, described_proxy.url)}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("block", of("toml", "json"))
def test_files_are_valid(block: Block) -> None:
    if block.language == "json":
        assert json.loads(block.text)
        return
    document = tomllib.loads(block.text)
    if {"proxy", "providers", "models", "clients", "teams", "limits"} & set(document):
        jsonschema_rs.validator_for(json.loads(toml_schema())).validate(document)


@pytest.mark.parametrize("block", of("python"))
def test_programs_compile(block: Block) -> None:
    code = "".join(line for line in block.text.splitlines(True) if not line.startswith("#"))
    compile(textwrap.dedent(code), block.place, "exec")
