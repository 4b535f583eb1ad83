"""Validation against clients' JSON Schemas, in bounded time and without a network."""

from __future__ import annotations

import contextlib
import resource
import socket
import subprocess
import sys
import time
from typing import Any

import pytest

from sanic_proxy.providers.straico.validation.schemas import InvalidSchema, compile_schema
from tests.support.machine import slowness

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("schema", "value", "violation"),
    [
        (PERSON, {"name": "Ada", "age": 36}, None),
        (PERSON, {"age": 36}, '"name" is a required property'),
        (PERSON, {"name": "Ada", "age": "36"}, 'at /age: "36" is not of type "integer"'),
        (PERSON, {"name": "Ada", "x": 1}, "Additional properties are not allowed ('x' was unexpected)"),
        ({"type": "string", "format": "email"}, "no address", None),
        ({"type": "integer"}, 10**40, None),
        ({"type": "array", "items": {"$ref": "#"}}, [[[]]], None),
        ({"type": "array", "items": {"$ref": "#"}}, [[1]], 'at /0/0: 1 is not of type "array"'),
        ({"type": "string", "pattern": "^(?=a)"}, "b", None),
        ({"type": "string", "pattern": "^a$"}, "b", '"b" does not match "^a$"'),
        ({"allOf": [{"pattern": "^(?=a)"}, {"pattern": "^a$"}]}, "b", '"b" does not match "^a$"'),
        (
            {"patternProperties": {"^(?=a)": {}, "^b": {"type": "null"}}, "additionalProperties": False},
            {"a": 1},
            None,
        ),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "type": "null"}, None, None),
        ({"enum": ["\ud83d"]}, "a", InvalidSchema),
        ({"type": "string"}, "\ud83d", "it contains a lone surrogate"),
        ({"type": "nonsense"}, 1, InvalidSchema),
        ({"properties": []}, 1, InvalidSchema),
        ({"pattern": 7}, 1, InvalidSchema),
        ({"$ref": "#/$defs/none"}, 1, InvalidSchema),
        ({"$schema": "http://127.0.0.1:1/own"}, 1, InvalidSchema),
        (True, 1, InvalidSchema),
        (None, 1, InvalidSchema),
    ],
)
def test_a_value_is_validated(schema: object, value: object, violation: object) -> None:
    if violation is InvalidSchema:
        with pytest.raises(InvalidSchema):
            compile_schema(schema)
        return
    assert compile_schema(schema).violation(value) == violation


def test_a_long_violation_keeps_its_end() -> None:
    violation = compile_schema({"type": "integer"}).violation("x" * 10_000)
    assert violation is not None
    assert len(violation) < 400
    assert violation.endswith('is not of type "integer"')


@pytest.mark.parametrize(
    "reference", ["http://127.0.0.1:{}/x.json", "//127.0.0.1:{}/x", "file:///etc/hostname"]
)
@pytest.mark.parametrize("key", ["$ref", "$dynamicRef", "$schema"])
def test_nothing_is_fetched(reference: str, key: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        target = reference.format(server.getsockname()[1])
        with pytest.raises(InvalidSchema):
            compile_schema({"properties": {"a": {key: target}}} if key != "$schema" else {key: target})
        with pytest.raises(TimeoutError):
            server.accept()


def nested(levels: int, key: str) -> Any:
    node: Any = {} if key else 0
    for _ in range(levels):
        node = {key: node} if key else [node]
    return node


def doubling(levels: int) -> dict[str, Any]:
    """Each level refers to the next one twice."""
    chain = {f"a{n}": {"anyOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(levels)}
    return {"$defs": {**chain, f"a{levels}": {"type": "string"}}, "$ref": "#/$defs/a0"}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string", "pattern": "^(a+)+$"}, "a" * 50_000 + "!"),
        ({"type": "string", "pattern": "(x|y)*x(x|y){300}z"}, "xy" * 20_000),
        ({"type": "string", "pattern": "(a{1000}){1000}"}, "a"),
        (nested(10_000, "items"), 1),
        (nested(20_000, "not"), 1),
        ({"items": {"$ref": "#"}}, nested(20_000, "")),
        ({"$ref": "#"}, 1),
        ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, 1),
        ({"properties": {f"p{n}": {"type": "string"} for n in range(100_000)}}, {}),
        ({"anyOf": [{"type": "integer"}] * 1000}, {"a": ["y" * 10] * 20_000}),
        ({"items": {"type": "integer"}}, ["x" * 100] * 50_000),
        (doubling(14), 1),
        (doubling(40), 1),
    ],
    ids=[
        *("backtracking", "states", "huge", "deep", "not", "deep value", "loop", "two loops", "wide"),
        *("large errors", "many errors", "nested errors", "doubling"),
    ],
)
def test_no_schema_blocks_the_worker(schema: Any, value: object) -> None:
    started, peak_kib = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with contextlib.suppress(InvalidSchema):
        compile_schema(schema).violation(value)
    assert time.process_time() - started < 2 * slowness()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_kib < 200 * 1024


def test_all_validations_of_a_request_share_one_budget() -> None:
    judge = compile_schema(doubling(15))
    started = time.process_time()
    violations = [judge.violation(1) for _ in range(1000)]
    assert time.process_time() - started < 3 * slowness()
    assert violations[0] == "it does not match the schema"
    assert violations[-1] == "the limit for checking values of this request is reached"


def test_the_library_is_loaded_only_if_needed() -> None:
    code = "import sys, sanic_proxy.providers.straico.provider; sys.exit('jsonschema_rs' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
