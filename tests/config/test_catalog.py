"""The rows."""

from __future__ import annotations

import urllib.parse

import pytest

from sanic_proxy.config.catalog import ROWS, Row

SHIPPED = [
    "straico",
    "openai",
    "anthropic",
    "groq",
    "cerebras",
    "sambanova",
    "google",
    "mistral",
    "deepseek",
    "together",
    "fireworks",
    "openrouter",
    "xai",
    "perplexity",
    "nvidia",
    "moonshot",
    "zai",
    "dashscope",
    "huggingface",
    "github",
    "cohere",
    "azure",
    "ollama",
    "vllm",
    "lmstudio",
    "llamacpp",
    "replay",
    "echo",
]
CALLED = [row for row in ROWS if not row.is_embedded]


def test_all_rows_are_there() -> None:
    assert [row.name for row in ROWS] == SHIPPED


def test_no_name_means_two_providers() -> None:
    names = [name for row in ROWS for name in (row.name, *row.aliases)]
    variables = [name for row in CALLED for name in (row.key_variable, *row.other_key_variables)]
    assert len(set(names)) == len(names)
    assert len(set(variables)) == len(variables)


@pytest.mark.parametrize("row", CALLED, ids=lambda row: row.name)
def test_a_row_is_complete(row: Row) -> None:
    assert row.key_variable == f"{row.name.upper()}_API_KEY"
    assert row.base_url_variable == f"{row.name.upper()}_BASE_URL"
    assert row.docs
    is_local = not row.key_required
    assert is_local is bool(row.example_url)
    assert (row.base_url is None) is (is_local or bool(row.endpoint_variable))
    assert all(header == header.lower() for header in row.forward_headers)


@pytest.mark.parametrize("row", [row for row in ROWS if row.base_url], ids=lambda row: row.name)
def test_a_public_address_is_https_and_takes_a_path_behind_it(row: Row) -> None:
    parts = urllib.parse.urlsplit(row.base_url or "")
    assert parts.scheme == "https"
    assert (parts.query, parts.fragment) == ("", "")
    assert not parts.path.endswith("/")
