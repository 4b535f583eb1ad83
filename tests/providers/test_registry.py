"""Settings -> provider objects."""

from __future__ import annotations

import ast
import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import sanic_proxy
from sanic_proxy.config.catalog import ROWS
from sanic_proxy.config.loader import load
from sanic_proxy.dialects.registry import DIALECTS
from sanic_proxy.providers.base import ChatProvider, protocol, provider_class
from sanic_proxy.providers.registry import build_providers
from sanic_proxy.upstream.client import UpstreamClient


def built(directory: Path, **environ: str) -> dict[str, tuple[ChatProvider, ...]]:
    async def build() -> dict[str, tuple[ChatProvider, ...]]:
        settings = load(environ, directory)
        client = UpstreamClient(settings.pool, None)
        await client.aclose()
        return build_providers(settings, client)

    return asyncio.run(build())


def test_each_protocol_has_its_class(tmp_path: Path) -> None:
    providers = built(tmp_path, STRAICO_API_KEY="k", GROQ_API_KEY="k", SANIC_PROXY_ECHO="on")
    kinds = {name: provider.provider_kind for name, (provider,) in providers.items()}
    assert kinds == {"straico": "emulated", "groq": "native", "echo": "embedded"}


def test_an_alias_is_the_same_object(tmp_path: Path) -> None:
    providers = built(tmp_path, GEMINI_API_KEY="k")
    assert providers["gemini"] is providers["google"]


def test_a_provider_is_made_once_for_each_of_its_keys(tmp_path: Path) -> None:
    providers = built(tmp_path, GROQ_API_KEY="k1, k2,,k3")
    assert [provider.name for provider in providers["groq"]] == ["groq"] * 3


def test_two_classes_cannot_speak_one_protocol() -> None:
    with pytest.raises(ValueError, match="openai"):
        protocol("openai")(provider_class("openai"))


def test_an_unknown_protocol_is_reported_with_the_known_ones() -> None:
    with pytest.raises(LookupError, match="echo, openai, replay, straico"):
        provider_class("smtp")


PACKAGE = Path(sanic_proxy.__file__).parent
# The catalog, the file of another gateway that names providers, the providers' own code, and what operators
# write: the names of settings.
HOME = ("config/catalog.py", "config/litellm/", "providers/")
SETTINGS = {"ECHO"}
# The provider has the name of what is done: a stream is replayed, and so is a file by the command `replay`.
WORDS = {"replay"}
CODED = {row.name for row in ROWS if row.protocol != "openai"} - WORDS
NAMES = {name for row in ROWS for name in (row.name, *row.aliases)} - WORDS
NAMED = re.compile(rf"(?:{'|'.join(NAMES)})(?:/.*)?")


def words_of(module: Path) -> Iterator[str]:
    """The identifiers and strings of a module, docstrings left out."""
    tree = ast.parse(module.read_text("utf-8"))
    texts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in texts:
            yield node.value
        for name in ("id", "attr", "arg", "name"):
            if isinstance(word := getattr(node, name, None), str):
                yield word


def names_a_provider(word: str) -> bool:
    parts = set(re.split(r"[^a-z0-9]+", word.lower()))
    return word not in {*SETTINGS, *DIALECTS} and (bool(parts & CODED) or NAMED.fullmatch(word) is not None)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("straico", True),
        ("STRAICO_API_KEY", True),
        ("the echo is on", True),
        ("groq", True),
        ("groq/llama", True),
        ("openai_compatible", False),
        ("ECHO", False),
    ],
)
def test_a_word_that_names_a_provider_is_found(word: str, *, expected: bool) -> None:
    assert names_a_provider(word) is expected


def test_no_code_outside_the_catalog_and_its_own_folder_names_a_provider() -> None:
    found = [
        f"{path}: {word}"
        for module in sorted(PACKAGE.rglob("*.py"))
        if not (path := str(module.relative_to(PACKAGE))).startswith(HOME)
        for word in words_of(module)
        if names_a_provider(word)
    ]
    assert found == []
