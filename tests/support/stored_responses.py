"""Proxies with several workers for tests of stored responses, and clients of every worker."""

from __future__ import annotations

from typing import Any

from openai import OpenAI

from tests.support.proxy import Proxy
from tests.support.settings import provider_settings
from tests.support.upstream import Exchange, Upstream, completion, text_stream

OPENAI_KEYS = "sk-canary-0123456789,sk-canary-9876543210"


def settings_for(upstream: Upstream, **settings: str) -> dict[str, str]:
    """Chats, Messages and native Responses (with two keys) at `upstream`."""
    return {
        **provider_settings(upstream),
        "OPENAI_API_KEY": OPENAI_KEYS,
        "OPENAI_BASE_URL": f"{upstream.url}/oai/v1",
        "ANTHROPIC_API_KEY": "sk-ant-canary-0123456789",
        "ANTHROPIC_BASE_URL": f"{upstream.url}/v1",
        **settings,
    }


def client_of(proxy: Proxy, key: str = "none") -> OpenAI:
    """openai-python, without retries."""
    return OpenAI(api_key=key, base_url=f"{proxy.url}/v1", max_retries=0, timeout=60)


async def echo(exchange: Exchange) -> None:
    """A chat whose answer repeats the texts that it was asked, joined by `|`."""
    asked = exchange.seen.json
    text = "|".join(_text(message["content"]) for message in asked["messages"])
    if asked.get("stream"):
        await exchange.stream(text_stream(*text))
    else:
        await exchange.answer(completion(text))


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content or ())
