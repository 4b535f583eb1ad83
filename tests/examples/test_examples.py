"""The examples: set-ups load, programs' snippets parse, and their requests are answered."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson
import pytest
import yaml

from sanic_proxy.cli import print_table
from sanic_proxy.config.catalog import ROWS
from sanic_proxy.config.loader import load
from sanic_proxy.config.reference import toml_schema
from tests.support.proxy import Proxy

FOLDER = Path(__file__).parent
DOCUMENTS = (FOLDER.parents[1] / "scripts/docs/clients.md").read_text("utf-8")
SETUPS = sorted((FOLDER / "setups").glob("*.toml"))
PROGRAMS = sorted((FOLDER / "programs").iterdir())
REQUESTS = [
    pytest.param(request, id=f"{path.stem} {number}")
    for path in sorted((FOLDER / "requests").glob("*.json"))
    for number, request in enumerate(json.loads(path.read_bytes()))
]
KEYS = {
    variable: "https://example.openai.azure.com" if variable.endswith("ENDPOINT") else "sk-0123456789"
    for row in ROWS
    for variable in (row.key_variable, row.endpoint_variable)
    if variable
} | {"ADA_KEY": "sk-ada-0123", "CI_KEY": "sk-ci-0123", "SANIC_PROXY_API_KEYS": "sk-client-0123"}


@pytest.mark.parametrize("path", SETUPS, ids=lambda path: path.stem)
def test_set_ups_load_and_fit_the_schema(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = path.read_text("utf-8")
    keys = {name: key for name, key in KEYS.items() if not name.startswith("STRAICO") or "straico/" in text}
    addresses = {"OLLAMA_BASE_URL": "http://127.0.0.1:11434/v1", "SANIC_PROXY_CONFIG": str(path)}
    settings = load({**keys, **addresses}, tmp_path)
    assert print_table(settings, argparse.Namespace()) == 0  # `sanic-proxy check`
    assert f"model {settings.models[0].name}: " in capsys.readouterr().out
    assert settings.warnings == ()
    document = tomllib.loads(text)
    jsonschema_rs.validator_for(orjson.loads(toml_schema())).validate(document)
    schema = text.splitlines()[0].removeprefix("#:schema ")
    assert (path.parent / schema).exists()


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_programs_snippets_name_the_proxy(path: Path) -> None:
    text = path.read_text("utf-8")
    if path.suffix in {".json", ".yaml"}:
        document = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
        assert document
    elif path.suffix == ".toml":
        assert tomllib.loads(text)
    else:
        subprocess.run(["bash", "-n", path], check=True)
    assert re.search(r"http://(127\.0\.0\.1|host\.docker\.internal):8000", text)
    assert f"programs/{path.name})" in DOCUMENTS


@pytest.mark.parametrize("request_of_a_program", REQUESTS)
def test_the_requests_of_programs_are_answered(proxy: Proxy, request_of_a_program: dict[str, Any]) -> None:
    recorded = request_of_a_program
    body = recorded.get("body")
    if body is not None:
        body = {**body, "model": "echo/echo"}
    headers = {"authorization": "Bearer KEY", **recorded["headers"]}
    reply = proxy.request(recorded["method"], recorded["path"], body, headers=headers)
    assert reply.status == 200
    if body is None:
        assert reply.json["object"] == "list"
    elif body["stream"]:
        frames = [line[6:] for line in reply.body.decode().splitlines() if line.startswith("data: ")]
        assert frames[-1] == "[DONE]"
        chunks = [json.loads(frame) for frame in frames[:-1]]
        text = "".join(choice["delta"].get("content") or "" for c in chunks for choice in c["choices"])
        assert "Hello there" in text
        assert any(chunk.get("usage") for chunk in chunks)
    else:
        assert "Hello there" in reply.json["choices"][0]["message"]["content"]


def test_the_python_client_streams_through_the_proxy(proxy: Proxy, tmp_path: Path) -> None:
    """The other clients are in environments of their own: `scripts/test-clients --examples`."""
    environ = {**os.environ, "OPENAI_BASE_URL": f"{proxy.url}/v1", "OPENAI_API_KEY": "KEY"}
    command = [sys.executable, str(FOLDER / "clients/openai_python.py"), "echo/echo"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("Hello there\n", "")
