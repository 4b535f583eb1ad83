"""Settings -> provider objects."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sanic_proxy.config.loader import load
from sanic_proxy.providers.base import ChatProvider
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
