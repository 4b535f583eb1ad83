"""A clock that is set, forwards or back, changes no deadline: those are monotonic."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "sanic_proxy"
WALL_CLOCKS = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.datetime.now"}
# `created` of an answer; the seconds until a date that a provider names.
READ_IN = {"wire.now", "failures.retry_after_s"}


def readers_of_the_wall_clock() -> set[str]:
    """The functions that call one, as module.function."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            calls = [ast.unparse(node.func) for node in ast.walk(function) if isinstance(node, ast.Call)]
            if not WALL_CLOCKS.isdisjoint(calls):
                found.add(f"{path.stem}.{function.name}")
    return found


@pytest.mark.row(71)
def test_only_what_is_told_to_clients_reads_the_wall_clock() -> None:
    assert readers_of_the_wall_clock() == READ_IN
