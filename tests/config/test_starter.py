"""The files of `sanic-proxy init`."""

from __future__ import annotations

import tomllib
from pathlib import Path

import jsonschema_rs
import orjson
import pytest

from sanic_proxy.config import starter
from sanic_proxy.config.catalog import ROWS
from sanic_proxy.config.loader import load

KEY = "sk-canary-0123456789"
ALL = {
    variable: f"https://{row.name}.example/v1" if "://" in variable or "URL" in variable else KEY
    for row in ROWS
    for variable in (row.key_variable if row.key_required else row.base_url_variable,)
    if variable and not row.is_embedded
} | {"AZURE_OPENAI_ENDPOINT": "https://acme.openai.azure.com"}


def written(directory: Path, environ: dict[str, str]) -> dict[str, str]:
    for file in starter.files(environ):
        assert starter.write(directory, file)
    return {file.name: file.text for file in starter.files(environ)}


@pytest.mark.parametrize("environ", [{}, ALL], ids=["no key", "every key"])
def test_the_files_load_with_the_providers_found(tmp_path: Path, environ: dict[str, str]) -> None:
    written(tmp_path, environ)
    names = [provider.name for provider in load({}, tmp_path).providers]
    expected = [row.name for row in ROWS if not row.is_embedded] if environ else ["echo"]
    assert names == expected
    assert starter.providers_found(environ) == tuple(expected if environ else ())


def test_every_commented_line_is_valid_toml_by_the_schema(tmp_path: Path) -> None:
    texts = written(tmp_path, {"GROQ_API_KEY": KEY})
    lines = texts["proxy.toml"].splitlines()
    assert lines[0] == "#:schema ./proxy.schema.json"
    document = tomllib.loads(
        "\n".join(line.removeprefix("#") for line in lines if not line.startswith(("# ", "#:")))
    )
    assert document["models"]["fast"]["targets"] == ["groq/MODEL", "PROVIDER/MODEL"]
    jsonschema_rs.validator_for(orjson.loads(texts["proxy.schema.json"])).validate(document)


@pytest.mark.parametrize("value", ["plain-1", "it's\\$HOME`x`#", 'double"quote'])
def test_any_value_survives_in_the_environment_file(tmp_path: Path, value: str) -> None:
    written(tmp_path, {"GROQ_API_KEY": f"{KEY}{value}"})
    (key,) = load({}, tmp_path).providers[0].keys
    assert key.hint.removeprefix("...") == f"{KEY}{value}"[-4:]


def test_half_a_provider_is_not_written_as_one_that_is_on() -> None:
    assert starter.providers_found({"AZURE_API_KEY": KEY, "OLLAMA_API_KEY": KEY, "GROQ_API_KEY": " "}) == ()
