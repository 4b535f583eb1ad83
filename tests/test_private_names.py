"""Tests know the product as its callers do: no private names, and no help from other tests."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PATHS = sorted(path for path in TESTS.rglob("*.py") if "drivers" not in path.parts)
# Packages whose private names are not for tests.
OURS = ("sanic_proxy", "loadtest", "tests")
# Whose tests import from each other's files: a program of its own, and the data that its test is about.
SHARED = ("tests.support", "tests.clients", "tests.catalogue")
ALLOWED = {
    "_request_id",  # documented by openai-python
    "_startup",  # Sanic's: pytest-sanic knows no listeners of this version
}
# A connection fed with bytes is taken apart into its steps.
EXEMPT = {"server/test_connection.py"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def findings(tree: ast.AST) -> Iterator[str]:
    """What a file of tests uses and should not."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            is_ours = module.split(".")[0] in OURS
            yield from (
                f"line {node.lineno}: imports {module}.{alias.name}"
                for alias in node.names
                if is_ours and (is_private(alias.name) or any(map(is_private, module.split("."))))
            )
            if module.split(".")[0] == "tests" and module != "tests" and not module.startswith(SHARED):
                yield f"line {node.lineno}: imports from {module} instead of tests.support"
        elif (
            isinstance(node, ast.Attribute)
            and is_private(node.attr)
            and node.attr not in ALLOWED
            and ast.unparse(node.value) not in {"self", "cls", "super()"}
        ):
            yield f"line {node.lineno}: touches {ast.unparse(node)}"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: str(path.relative_to(TESTS)))
def test_no_private_name_and_no_other_test_is_used(path: Path) -> None:
    found = list(findings(ast.parse(path.read_text("utf-8"))))
    assert bool(found) is (str(path.relative_to(TESTS)) in EXEMPT), "\n".join(found)


@pytest.mark.parametrize(
    "line",
    [
        "from sanic_proxy.state import _x",
        "from sanic_proxy._x import y",
        "from tests.test_state import x",
        "from tests.conftest import x",
        "a.b._x()",
        "a()._x = 1",
    ],
)
def test_it_is_found(line: str) -> None:
    assert list(findings(ast.parse(line)))


@pytest.mark.parametrize(
    "line", ["self._x = 1", "a.__dict__", "from tests.support.load import send_chat", "a.b_"]
)
def test_the_rest_is_not(line: str) -> None:
    assert not list(findings(ast.parse(line)))
