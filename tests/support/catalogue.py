"""pytest's part of the catalogue: which tests carry a row's number, and a table at the end of a full run."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.catalogue import ROWS, Row

_SHOWN: pytest.StashKey[dict[int, list[str]]] = pytest.StashKey()
WIDTH = 110


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--catalogue", action="store_true", help="print which test shows each row of the catalogue"
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Note which of the tests that are about to run show which row."""
    shown: dict[int, list[str]] = defaultdict(list)
    for item in items:
        for mark in item.iter_markers("row"):
            for number in mark.args:
                shown[number].append(item.nodeid)
    config.stash[_SHOWN] = dict(shown)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With xdist, the workers collect the tests and the controller prints the table."""
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output["rows"] = session.config.stash.get(_SHOWN, {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """xdist: a worker has ended; all workers have collected the same tests."""
    if (shown := getattr(node, "workeroutput", {}).get("rows")) is not None:
        node.config.stash[_SHOWN] = shown


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if not is_full_run(config) and (config.option.collectonly or not config.option.catalogue):
        return
    failed = {report.nodeid for report in terminalreporter.stats.get("failed", [])}
    terminalreporter.section("the catalogue of failures")
    for line in table(config.stash.get(_SHOWN, {}), failed):
        terminalreporter.write_line(line)


def is_full_run(config: pytest.Config) -> bool:
    """Whether all tests are to run, with or without the slow ones."""
    is_whole = config.args == config.getini("testpaths") and not config.option.keyword
    return is_whole and config.option.markexpr in {"", "not slow"} and not config.option.collectonly


def table(shown: dict[int, list[str]], failed: set[str]) -> list[str]:
    """A line per row: its number, its title, and who shows it or deals with it."""
    return [_line(row, shown.get(row.number, []), failed) for row in ROWS]


def _line(row: Row, tests: list[str], failed: set[str]) -> str:
    opening = f"{row.number:2} {row.title:54} "
    names = list(dict.fromkeys(_short(test) for test in tests))
    if not names:
        return opening + (row.owner or "not in this run")
    if not failed.isdisjoint(tests):
        opening += "FAILED "
    more = f" +{len(names) - 1}" if len(names) > 1 else ""
    return opening + names[0][: WIDTH - len(opening) - len(more)] + more


def _short(nodeid: str) -> str:
    """The file and the name of a test: without folders, parameters and what all names begin with."""
    path, _, name = nodeid.partition("::")
    bare = name.partition("[")[0].removeprefix("test_")
    return f"{Path(path).stem.removeprefix('test_')}: {bare.replace('_', ' ')}"


def numbers_in(paths: Iterable[Path]) -> set[int]:
    """All rows that a `mark.row(...)` in these files names, whether or not its test is about to run."""
    calls = [node for path in paths for node in ast.walk(ast.parse(path.read_text("utf-8"))) if _is_row(node)]
    arguments = [argument for call in calls if isinstance(call, ast.Call) for argument in call.args]
    return {
        argument.value
        for argument in arguments
        if isinstance(argument, ast.Constant) and isinstance(argument.value, int)
    }


def _is_row(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.row"
