"""The committed OpenAPI document: up to date, valid, and true for the routes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from openapi_spec_validator import validate

from tests.support.proxy import Proxy, running_proxy

ROOT = Path(__file__).parents[2]
DOCUMENT = json.loads((ROOT / "sanic_proxy/pages/openapi.json").read_bytes())
OPERATIONS = [
    (method.upper(), path, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]
# Values of the parameters of paths that have no example.
EXAMPLES = {"file_id": "file-abc", "batch_id": "batch-abc", "response_id": "resp_abc", "key": "app"}
ADMIN_KEY = "admin-key-0123456789"


def test_the_committed_document_is_up_to_date() -> None:
    """Making it fails if a route is neither described nor listed as not described, with the reason."""
    command = [sys.executable, "scripts/docs/openapi.py"]
    done = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, check=True)
    committed = (ROOT / "sanic_proxy/pages/openapi.json").read_bytes()
    assert json.loads(committed) == json.loads(done.stdout), "run scripts/generate"


def test_the_proxy_does_not_import_what_makes_the_document() -> None:
    code = "import sys, sanic_proxy.app; print({'sanic_ext', 'pydantic'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_the_document_is_valid() -> None:
    validate(DOCUMENT)


def test_each_operation_is_complete() -> None:
    ids = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(ids) == len(set(ids))
    for method, path, operation in OPERATIONS:
        assert operation["summary"], (method, path)
        assert set(operation["tags"]) <= {tag["name"] for tag in DOCUMENT["tags"]}
        for parameter in map(resolved, operation["parameters"]):
            assert parameter.get("description"), (path, parameter["name"])
        for media in operation.get("requestBody", {}).get("content", {}).values():
            assert media["example"], (method, path)


def test_what_needs_a_key_says_which() -> None:
    schemes = DOCUMENT["components"]["securitySchemes"]
    for _, path, operation in OPERATIONS:
        names = [name for requirement in operation["security"] for name in requirement]
        if path.startswith(("/health", "/api/hello", "/ui/login")):
            wanted = []
        elif path.startswith(("/admin/", "/key/", "/spend/", "/metrics", "/ui/")):
            wanted = {
                "/metrics": ["admin"],
                "/ui/session": ["session"],
                "/ui/logout": ["session"],
                "/ui/usage": ["session"],
            }.get(path, ["admin", "session"])
        else:
            wanted = ["bearer", "x-api-key", "api-key", "x-goog-api-key"]
        assert names == wanted, path
        assert set(names) <= schemes.keys()


def test_the_document_is_true_for_keys() -> None:
    settings = {"SANIC_PROXY_API_KEYS": "client-key-0123", "SANIC_PROXY_ADMIN_KEY": ADMIN_KEY}
    with running_proxy(settings) as keyed:
        for method, path, operation in OPERATIONS:
            status = keyed.request(method, filled(path)).status
            wanted = 401 if operation["security"] else 403 if path == "/ui/login" else 200
            assert status == wanted, (method, path)


def test_the_document_is_true_for_the_routes(proxy: Proxy) -> None:
    for method, path, operation in OPERATIONS:
        if is_for_administrators(operation) or path.startswith("/ui/"):
            continue
        content = operation.get("requestBody", {}).get("content", {})
        body = content.get("application/json", {}).get("example")
        reply = proxy.request(method, filled(path), body)
        is_unknown = reply.status == 404 and ("{response_id}" in path or method == "GET")
        assert reply.status in {200, 400} or is_unknown, (method, path, reply.body)


def test_examples_of_the_administrators_routes_are_accepted() -> None:
    settings = {
        "SANIC_PROXY_API_KEYS": "client-key-0123",
        "SANIC_PROXY_ADMIN_KEY": ADMIN_KEY,
        "GROQ_API_KEY": "gsk-0123456789",
        "SANIC_PROXY_ECHO": "on",
    }
    with running_proxy(settings) as keyed:
        for method, path, operation in OPERATIONS:
            if not is_for_administrators(operation):
                continue
            content = operation.get("requestBody", {}).get("content", {})
            body = content.get("application/json", {}).get("example")
            query = "&".join(
                f"{parameter['name']}={parameter['example']}"
                for parameter in map(resolved, operation["parameters"])
                if parameter["in"] == "query" and "example" in parameter
            )
            headers = {"authorization": f"Bearer {ADMIN_KEY}"}
            if (method, path) in {("POST", "/admin/keys"), ("POST", "/key/generate")}:
                keyed.request("DELETE", "/admin/keys/app", headers=headers)
            else:
                keyed.request("POST", "/admin/keys", {"name": "app"}, headers)
            is_endless = path == "/admin/events"
            reply = keyed.request("HEAD" if is_endless else method, f"{filled(path)}?{query}", body, headers)
            assert reply.status in {200, 201}, (method, path, reply.body)


def is_for_administrators(operation: dict[str, Any]) -> bool:
    return {"admin": []} in operation["security"]


def filled(path: str) -> str:
    """A path with an example for each parameter."""
    methods = DOCUMENT["paths"][path].values()
    described = {
        parameter["name"]: parameter.get("example")
        for operation in methods
        for parameter in map(resolved, operation["parameters"])
        if parameter["in"] == "path"
    }
    return re.sub(r"{(\w+)}", lambda name: described[name[1]] or EXAMPLES[name[1]], path)


def resolved(parameter: dict[str, Any]) -> dict[str, Any]:
    """A parameter, or the shared one that is referred to."""
    if "$ref" in parameter:
        found: dict[str, Any] = DOCUMENT["components"]["parameters"][parameter["$ref"].rpartition("/")[2]]
        return found
    return parameter
