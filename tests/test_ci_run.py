"""What `.ci/run` runs, in which order, and what it does where a tool is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = ("bash", "dirname", "env", "echo")
STEPS = [
    "packages",
    "check",
    "test",
    "trace",
    "documents",
    "deploy",
    "screenshots",
    "instructions",
    "clients",
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout whose scripts only print that they ran, and a folder of programs with nothing to install."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/run", tmp_path / ".ci/run")
    (tmp_path / "scripts").mkdir()
    for name in (
        "check",
        "test",
        "trace-request",
        "docs-site",
        "check-deploy",
        "bench",
        "screenshots",
        "test-clients",
    ):
        program(tmp_path / "scripts" / name, f'echo "ran {name} $*"')
    (tmp_path / "bin").mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        assert found is not None
        (tmp_path / "bin" / name).symlink_to(found)
    for name in ("nginx", "valgrind", "cc", "chromium", "node", "npm"):
        program(tmp_path / "bin" / name, "exit 0")
    program(tmp_path / "bin/timeout", 'shift; exec "$@"')
    return tmp_path


def program(path: Path, command: str) -> None:
    path.write_text(f"#!/usr/bin/env bash\n{command}\n")
    path.chmod(0o755)


def run(tree: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PATH": str(tree / "bin")}
    argv = ("bash", str(tree / ".ci/run"))
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_each_step_runs_in_order_and_prints_its_time(tree: Path) -> None:
    done = run(tree)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.removeprefix("== ").partition(":")[0] for line in lines if line.endswith(" s")] == STEPS
    ran = [line.strip() for line in lines if line.startswith("ran ")]
    assert ran == [
        "ran check",
        "ran test",
        "ran trace-request --summary",
        "ran docs-site",
        "ran check-deploy --no-helm",
        "ran screenshots build/screenshots",
        "ran bench --instructions --dialects",
        "ran test-clients --agents --limit 420",
    ]


@pytest.mark.parametrize(
    ("script", "step"),
    [("check", "check"), ("test", "test"), ("bench", "instructions"), ("test-clients", "clients")],
)
def test_a_failing_step_ends_the_run_with_its_exit_code(tree: Path, script: str, step: str) -> None:
    program(tree / "scripts" / script, "exit 3")
    done = run(tree)
    assert done.returncode == 3
    assert done.stdout.splitlines()[-1].startswith(f"== {step}: ")
    assert done.stdout.endswith(" s, failed with exit code 3\n")


@pytest.mark.parametrize("tool", ["valgrind", "cc"])
def test_without_the_tools_the_count_is_skipped_with_a_message(tree: Path, tool: str) -> None:
    (tree / "bin" / tool).unlink()
    done = run(tree)
    assert done.returncode == 0, done.stderr
    assert "== instructions: skipped, needs valgrind and a C compiler" in done.stdout
    assert "ran bench" not in done.stdout
    assert f"no apt-get: cannot install {'gcc libc6-dev' if tool == 'cc' else tool}" in done.stderr


def test_what_is_missing_is_installed(tree: Path) -> None:
    (tree / "bin" / "valgrind").unlink()
    program(tree / "bin/sudo", 'shift; exec "$@"')
    program(
        tree / "bin/apt-get",
        f'echo "$*" >>{tree}/apt; [[ $2 == update ]] || cp {tree}/bin/nginx {tree}/bin/valgrind',
    )
    (tree / "bin/cp").symlink_to(shutil.which("cp") or "cp")
    done = run(tree)
    assert done.returncode == 0, done.stderr
    assert (
        (tree / "apt").read_text().splitlines()[1].endswith("install --yes --no-install-recommends valgrind")
    )
    assert "ran bench --instructions --dialects" in done.stdout


def test_packages_that_cannot_be_installed_do_not_end_the_run(tree: Path) -> None:
    (tree / "bin" / "valgrind").unlink()
    program(tree / "bin/timeout", "exit 100")
    program(tree / "bin/apt-get", "exit 100")
    done = run(tree)
    assert done.returncode == 0, done.stderr
    assert "valgrind could not be installed" in done.stderr
    assert "== instructions: skipped" in done.stdout


def test_without_chromium_there_are_no_screenshots(tree: Path) -> None:
    (tree / "bin/chromium").unlink()
    done = run(tree)
    assert done.returncode == 0, done.stderr
    assert "== screenshots: skipped, needs chromium" in done.stdout
    assert "ran screenshots" not in done.stdout


@pytest.mark.parametrize("tool", ["node", "npm"])
def test_without_node_the_agents_are_skipped(tree: Path, tool: str) -> None:
    (tree / "bin" / tool).unlink()
    done = run(tree)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("== clients: skipped, needs node and npm\n")
    assert "ran test-clients" not in done.stdout


def test_without_the_registry_the_agents_are_skipped(tree: Path) -> None:
    program(tree / "bin/npm", "exit 1")
    done = run(tree)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("== clients: skipped, the npm registry cannot be reached\n")
