"""The list of Python calls of one request."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import CodeType

import pytest

from loadtest.trace_request import Call, call_of, module_changes, summary, walk

ROOT = Path(__file__).parents[2]
FOLDERS = {"/any/sanic_proxy/": "", "/sanic/venv/sanic/": "sanic/"}


def call(module: str, function: str = "f") -> Call:
    return Call(module, function, 1)


def code(path: str) -> CodeType:
    """A function that stands on line 3 of a file."""
    compiled = compile("\n\ndef f(): pass", path, "exec")
    (function,) = (each for each in compiled.co_consts if isinstance(each, CodeType))
    return function


@pytest.mark.parametrize(
    ("path", "module"),
    [
        ("/any/sanic_proxy/app.py", "app"),
        ("/any/sanic_proxy/server/connection.py", "server/connection"),
        ("/sanic/venv/sanic/http/http1.py", "sanic/http/http1"),
        ("<string>", "generated"),
    ],
)
def test_functions_of_the_proxy_and_of_sanic_are_listed(path: str, module: str) -> None:
    line = call_of(code(path), FOLDERS)
    assert line == Call(module, "f", 3)


@pytest.mark.parametrize("path", ["/sanic/venv/json/decoder.py", "<frozen importlib._bootstrap>"])
def test_functions_of_the_standard_library_are_not(path: str) -> None:
    assert call_of(code(path), FOLDERS) is None


@pytest.mark.parametrize(("modules", "changes"), [("", 0), ("a", 0), ("aab", 1), ("abab", 3)])
def test_a_module_change_is_between_two_calls(modules: str, changes: int) -> None:
    assert module_changes([call(module) for module in modules]) == changes


def test_equal_calls_in_a_row_are_one_line() -> None:
    calls = [call("a"), call("a"), call("b"), call("a")]
    assert walk(calls).split("\n") == ["    a:1 f  x 2", "    b:1 f", "    a:1 f"]


def test_the_summary_counts_calls_changes_functions_and_modules() -> None:
    calls = [call("app"), call("sanic/app"), call("app", "g"), call("app")]
    expected = "whole: 4 Python calls (1 of them Sanic's), 2 module changes; 3 functions in 2 modules"
    assert summary("whole", calls) == expected


def test_a_whole_and_a_streamed_request_are_traced() -> None:
    argv = (sys.executable, "-m", "loadtest.trace_request")
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    whole, streamed = done.stdout.split("streamed request: ")
    assert whole.startswith("whole request: ")
    for text in (whole, streamed):
        assert " routes/chat:" in text
        assert " upstream/" in text
    assert int(streamed.split()[0]) > int(whole.removeprefix("whole request: ").split()[0]) > 0
