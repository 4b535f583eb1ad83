"""The private names of Sanic: all listed, all there, and a sentence where one is missing."""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import sanic.app
import sanic.http.http1
import sanic.mixins.startup
import sanic.request.types
import sanic.response.types
import sanic.server.protocols.base_protocol
import sanic.server.protocols.http_protocol
import sanic.server.protocols.websocket_protocol
import sanic.server.runners
import sanic.worker.manager
import sanic.worker.process

from sanic_proxy.server import compat
from sanic_proxy.server.request import HeaderFields, ProxyRequest

ROOT = Path(__file__).parents[2]
MODULES: list[ModuleType] = [
    sanic.app,
    sanic.http.http1,
    sanic.mixins.startup,
    sanic.request.types,
    sanic.response.types,
    sanic.server.protocols.base_protocol,
    sanic.server.protocols.http_protocol,
    sanic.server.protocols.websocket_protocol,
    sanic.server.runners,
    sanic.worker.manager,
    sanic.worker.process,
]
# Ours, in modules and classes that do not derive from the class of Sanic's that has the same name.
UNRELATED = {"_app", "_headers", "_manager", "_send", "_serve", "_state"}


def used() -> Iterator[tuple[str, str]]:
    """Every private name that our code reads, sets or defines beside Sanic, and where."""
    for path in sorted((ROOT / "sanic_proxy").glob("**/*.py")):
        source = path.read_text()
        if "sanic" not in source.replace("sanic_proxy", ""):
            continue
        for node in ast.walk(ast.parse(source)):
            name = getattr(node, "attr", None) or (
                node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else None
            )
            if isinstance(name, str) and name.startswith("_") and not name.startswith("__"):
                yield name, path.name


def sanics() -> set[str]:
    sources = "".join(inspect.getsource(module) for module in MODULES)
    return {
        *re.findall(r"(?:self|cls|protocol|app)\.(_[a-z]\w*)", sources),
        *re.findall(r"def (_[a-z]\w*)", sources),
    }


def test_every_private_name_of_sanic_that_is_used_is_listed() -> None:
    listed = {name for _, name, _ in compat.NAMES}
    private = sanics()
    unlisted = {(name, where) for name, where in used() if name in private - listed - UNRELATED}
    assert not unlisted


def test_private_names_of_sanic_are_used_in_one_module_only() -> None:
    listed = {name for _, name, _ in compat.NAMES}
    assert {where for name, where in used() if name in listed - UNRELATED} == {"compat.py"}


def test_a_public_name_is_the_same_attribute() -> None:
    request = ProxyRequest(b"/", HeaderFields({"x-request-id": "given"}), "1.1", "GET", None, None)
    assert request.id == request.given_id == "given"
    request.path_parameters = {"name": "value"}
    assert request.match_info == {"name": "value"}


def test_no_more_than_25_names_are_relied_on() -> None:
    assert len(compat.NAMES) <= 25
    assert len({(id(owner), name) for owner, name, _ in compat.NAMES}) == len(compat.NAMES)


def test_a_missing_name_is_named_with_the_versions_that_have_it() -> None:
    names = [*compat.NAMES, (sanic.app.Sanic, "_gone", "does something")]
    with pytest.raises(compat.IncompatibleSanic) as failure:
        compat.check(names, "99.1")
    assert str(failure.value) == (
        "Sanic 99.1 lacks Sanic._gone (does something). The proxy is known to work with Sanic "
        f"{', '.join(compat.KNOWN_GOOD)}: install one of these"
    )


def test_sanic_is_pinned_to_a_version_that_is_known_to_work() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (pin,) = [line for line in project["dependencies"] if re.match(r"sanic[=<>~!]", line)]
    assert pin in {f"sanic=={version}" for version in compat.KNOWN_GOOD}
    assert importlib.metadata.version("sanic") in compat.KNOWN_GOOD
