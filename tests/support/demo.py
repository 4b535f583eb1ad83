"""A proxy with clients and traffic, for pictures of the operator's page."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.support.admin import ADMIN_KEY, bearer
from tests.support.load import wait_until
from tests.support.proxy import Proxy, running_proxy
from tests.support.upstream import DONE, Exchange, Upstream, frame

DAYS = 30
REQUESTS = 90
PROVIDERS = ("openai", "groq", "deepseek", "mistral")
TOML = """
[models.fast]
strategy = "weighted"
targets = [
    { provider = "groq", model = "openai/gpt-oss-120b", weight = 3 },
    { provider = "openai", model = "gpt-5-mini", weight = 1 },
]
[models.smart]
targets = ["deepseek/deepseek-reasoner", "openai/gpt-5"]
"""
KEYS: tuple[dict[str, Any], ...] = (
    {
        "name": "alice",
        "models": ["fast", "smart", "openai/*", "mistral/*", "deepseek/*"],
        "rpm": 600,
        "budget": {"usd": 20, "per": "month"},
    },
    {"name": "build-bot", "concurrent": 20, "budget": {"usd": 5, "per": "day", "strict": False}},
    {"name": "support-agent", "tpm": 2_000_000, "budget": {"usd": 0.2, "per": "day"}, "ui": True},
)
MODELS = (
    *("fast", "fast", "smart", "openai/gpt-5-mini"),
    *("mistral/mistral-large-latest", "groq/openai/gpt-oss-120b", "deepseek/deepseek-chat"),
)
TEXT = (
    "A gateway sits between programs and the services that run models. It knows which of them "
    "answers, how fast, and what that costs; and when one fails, it asks the next. "
)
LIMITS = (
    *(("x-ratelimit-limit-requests", "5000"), ("x-ratelimit-remaining-requests", "612")),
    *(("x-ratelimit-reset-requests", "40s"), ("x-ratelimit-limit-tokens", "400000")),
    *(("x-ratelimit-remaining-tokens", "21000"), ("x-ratelimit-reset-tokens", "40s")),
)


@contextmanager
def running_demo(directory: Path) -> Iterator[tuple[Proxy, dict[str, str]]]:
    """The proxy after some traffic, and its clients' keys by name."""
    upstream = Upstream(is_recording=False)
    upstream.on("*", _answers)
    for model in ("deepseek-reasoner", "deepseek-chat"):
        upstream.on(model, _overloaded)
    upstream.on("mistral-large-latest", _limited)
    upstream.on("GET /v1/models", _lists_models)
    upstream.start()
    priced = "".join(f'[providers.{name}]\npriced_as = "{name}"\n' for name in PROVIDERS)
    (directory / "proxy.toml").write_text(TOML + priced)
    settings = {
        "SANIC_PROXY_ADMIN_KEY": ADMIN_KEY,
        "SANIC_PROXY_REQUIRE_KEYS": "on",
        "SANIC_PROXY_CONFIG": str(directory / "proxy.toml"),
        "SANIC_PROXY_STATE_DIR": str(directory / "state"),
    }
    for name in PROVIDERS:
        settings[f"{name.upper()}_API_KEY"] = f"{name}-canary-0123456789"
        settings[f"{name.upper()}_BASE_URL"] = f"{upstream.url}/v1"
    try:
        with running_proxy(settings, "--workers", "2") as proxy:
            keys = {fields["name"]: _made_key(proxy, fields) for fields in KEYS}
            wait_until(lambda: {send(proxy, key, "fast") for key in keys.values()} == {200})
            traffic(proxy, keys, REQUESTS)
            _add_history(proxy, directory / "state/state.sqlite")
            yield proxy, keys
    finally:
        upstream.stop()


def send(proxy: Proxy, key: str, model: str) -> int:
    """One streamed chat."""
    return proxy.chat(model, headers=bearer(key), stream=True, max_tokens=300).status


def traffic(proxy: Proxy, keys: dict[str, str], number: int) -> None:
    """So many chats, some at a time."""
    draw = random.Random(11)
    chosen = [(draw.choice(list(keys.values())), draw.choice(MODELS)) for _ in range(number)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda each: send(proxy, *each), chosen))


def _made_key(proxy: Proxy, fields: dict[str, Any]) -> str:
    reply = proxy.request("POST", "/admin/keys", fields, headers=bearer(ADMIN_KEY))
    assert reply.status == 201, reply.body
    return str(reply.json["secret"])


async def _answers(exchange: Exchange) -> None:
    body = exchange.seen.json
    draw = random.Random(len(str(body)))
    await asyncio.sleep(draw.uniform(0.05, 0.4))
    if body.get("tools") and body["messages"][-1]["role"] != "tool":
        call = {"name": body["tools"][0]["function"]["name"], "arguments": '{"city": "Oxford"}'}
        calls = [{"index": 0, "id": "call_1", "type": "function", "function": call}]
        frames, finish = [frame({"tool_calls": calls})], "tool_calls"
    else:
        frames, finish = [frame({"content": f"{word} "}) for word in (TEXT * 2).split()], "stop"
    prompt, output = random.randint(800, 40_000), random.randint(80, 1200)
    usage = {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": {"cached_tokens": prompt * 2 // 3},
        "completion_tokens_details": {"reasoning_tokens": output // 4},
    }
    last = frame(choices=[], usage=usage)
    await exchange.begin_stream(*LIMITS)
    for piece in (*frames, frame(finish=finish), last, DONE):
        await exchange.chunk(piece)
        await asyncio.sleep(0.008)
    await exchange.end_stream()


async def _lists_models(exchange: Exchange) -> None:
    names = sorted({model.partition("/")[2] for model in MODELS if "/" in model})
    await exchange.answer({"object": "list", "data": [{"id": name, "object": "model"} for name in names]})


async def _overloaded(exchange: Exchange) -> None:
    await exchange.answer({"error": {"message": "The engine is overloaded", "type": "server_error"}}, 503)


async def _limited(exchange: Exchange) -> None:
    error = {"message": "Rate limit reached for requests", "type": "rate_limit_error"}
    await exchange.answer({"error": error}, 429, ("retry-after", "20"))


def _add_history(proxy: Proxy, path: Path) -> None:
    """Sums for the days before, made of those of today."""
    wait_until(lambda: bool(_sums(path)), 60)
    draw = random.Random(7)
    rows = _sums(path)
    columns = ", ".join(rows[0])
    today = datetime.now(UTC).date()
    with closing(sqlite3.connect(path, timeout=30)) as connection, connection:
        for ago in range(1, DAYS):
            day = (today - timedelta(days=ago)).isoformat()
            for row in rows:
                factor = draw.randint(2, 40)
                values = [
                    day if name == "day" else value * factor if isinstance(value, int) else value
                    for name, value in row.items()
                ]
                places = ", ".join("?" * len(values))
                connection.execute(f"INSERT INTO ledger_day ({columns}) VALUES ({places})", values)


def _sums(path: Path) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(path, timeout=30)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute("SELECT * FROM ledger_day")]
