"""The scripts: what `--help` prints, and what an installation shows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(
    path.name for path in (ROOT / "scripts").iterdir() if path.is_file() and os.access(path, os.X_OK)
)
# The module that a script hands its arguments to.
MODULES = {
    "serve": ("sanic_proxy", "serve"),
    "bench": ("loadtest.bench",),
    "failover": ("loadtest.failover",),
    "soak": ("loadtest.soak",),
    "test-clients": ("tests.clients.run",),
    "trace-request": ("loadtest.trace_request",),
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A fresh one, without any environment."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def run(checkout: Path, *command: str, python: str = "/nowhere/python3") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=checkout,
        env={**os.environ, "PYTHON": python},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_help_describes_the_script_and_installs_nothing(checkout: Path, name: str, flag: str) -> None:
    before = sorted(checkout.rglob("*"))
    done = run(checkout, f"scripts/{name}", flag)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(checkout.rglob("*")) == before
    assert re.match(r"(?s)[A-Z].{20,}?[.;:]\s", done.stdout)
    assert f"\nusage: scripts/{name}" in done.stdout
    assert f"\nexample: scripts/{name}" in done.stdout
    assert max(len(line) for line in done.stdout.splitlines()) <= 116


@pytest.mark.parametrize("name", MODULES)
def test_help_has_every_option_of_the_program(name: str) -> None:
    module, *further = MODULES[name]
    command = [sys.executable, "-m", module, *further, "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    options = set(re.findall(r"--[a-z-]+", done.stdout)) - {"--help"}
    assert options
    printed = run(ROOT, f"scripts/{name}", "--help").stdout
    assert options <= set(re.findall(r"--[a-z-]+", printed))


STUB = """#!/usr/bin/env bash
# Python as far as an installation needs it: `-m venv FOLDER` copies it there, `-m pip` notes its arguments.
case "$1 $2" in
"-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && touch "$3/bin/pip" && chmod +x "$3/bin/pip" ;;
"-m pip") echo "$*" >>"$LOG"; [[ "$*" != *"$FAILS"* ]] ;;
"--version ") echo "Python 3.11.0" ;;
esac
"""


def installed(checkout: Path, *, fails: str = "nothing") -> subprocess.CompletedProcess[str]:
    stub = checkout / "stub"
    stub.write_text(STUB)
    stub.chmod(0o755)
    script = (
        f'set -euo pipefail; export LOG=log FAILS="{fails}"; source scripts/setup.sh; install runtime .venv'
    )
    return run(checkout, "bash", "-c", f"{script}; echo $venv", python=str(stub))


def test_an_installation_shows_a_line_per_step_with_its_time(checkout: Path) -> None:
    first = installed(checkout)
    assert (first.returncode, first.stdout) == (0, f"{checkout}/.venv\n")
    lines = first.stderr.splitlines()
    assert len(lines) == 4
    assert all(re.fullmatch(r"(creating|installing) .* \.\.\. \d+ s", line) for line in lines)
    assert "Python 3.11.0" in lines[0]
    assert re.search(r"runtime.txt \(\d+\) into .venv", lines[1])
    again = installed(checkout)
    assert (again.returncode, again.stderr) == (0, "")


def test_a_failed_step_is_reported_and_repeated_the_next_time(checkout: Path) -> None:
    failed = installed(checkout, fails="build.txt")
    assert failed.returncode != 0
    assert failed.stdout == ""
    assert re.search(r"build.txt \(\d+\) \.\.\. failed after \d+ s$", failed.stderr.rstrip())
    assert installed(checkout).returncode == 0


def test_without_a_recent_python_the_message_names_the_version(checkout: Path) -> None:
    empty = checkout / "empty"
    empty.mkdir()
    for tool in ("bash", "dirname", "cat", "cksum", "env"):
        (empty / tool).symlink_to(str(shutil.which(tool)))
    done = subprocess.run(
        ["scripts/serve"], cwd=checkout, env={"PATH": str(empty)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "sanic-proxy needs Python 3.11 or newer on the PATH (or in $PYTHON)\n"
    assert not (checkout / ".venv").exists()
