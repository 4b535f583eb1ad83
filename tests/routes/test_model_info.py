"""LiteLLM's description of models, with prices and limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sanic_proxy.config.prices import Prices as Declared
from sanic_proxy.config.prices import ServicePrices, Tier
from sanic_proxy.governance.litellm_models import model_entry
from sanic_proxy.governance.prices import FREE, of_settings
from tests.support.admin import ADMIN_KEY, CLIENT_KEY, bearer
from tests.support.proxy import Proxy, free_port, running_proxy
from tests.support.settings import provider_settings
from tests.support.upstream import Exchange, Upstream

TOML = """
[models.smart]
targets = [
    "anthropic/claude-sonnet-4-5",
    { provider = "groq", model = "own", context_window = 9000, prices = { input = 2, output = 4 } },
]
[models."any-*"]
targets = ["groq/*"]
[clients.narrow]
key_env = "NARROW_KEY"
models = ["smart"]
endpoints = ["/chat/completions"]
"""
NARROW_KEY = "narrow-canary-0123456789"


@pytest.fixture(scope="module")
def priced(tmp_path_factory: pytest.TempPathFactory, shared_upstream: Upstream) -> Iterator[Proxy]:
    directory = tmp_path_factory.mktemp("model-info")
    (directory / "proxy.toml").write_text(TOML)
    settings = {
        **provider_settings(shared_upstream),
        "ANTHROPIC_API_KEY": "sk-ant-canary-0123456789",
        "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{free_port()}",
        "SANIC_PROXY_CONFIG": str(directory / "proxy.toml"),
        "SANIC_PROXY_STATE_DIR": str(directory),
        "SANIC_PROXY_ADMIN_KEY": ADMIN_KEY,
        "SANIC_PROXY_API_KEYS": CLIENT_KEY,
        "NARROW_KEY": NARROW_KEY,
    }
    with running_proxy(settings) as proxy:
        yield proxy


def entries(proxy: Proxy, key: str, path: str = "/model/info") -> list[dict[str, Any]]:
    reply = proxy.request("GET", path, headers=bearer(key))
    assert reply.status == 200, reply.body
    found: list[dict[str, Any]] = reply.json["data"]
    return found


def test_models_are_described_by_their_targets(priced: Proxy, upstream: Upstream) -> None:
    async def listing(exchange: Exchange) -> None:
        await exchange.answer({"object": "list", "data": [{"id": "openai/gpt-oss-120b"}]})

    upstream.on("GET /openai/v1/models", listing)
    found = entries(priced, ADMIN_KEY)
    by_target = {(each["model_name"], each["litellm_params"]["model"]): each["model_info"] for each in found}
    smart = by_target["smart", "anthropic/claude-sonnet-4-5"]
    assert (smart["input_cost_per_token"], smart["output_cost_per_token"]) == (3e-06, 1.5e-05)
    assert smart["cache_read_input_token_cost"] == 3e-07
    limits = [smart[f"max_{kind}"] for kind in ("input_tokens", "output_tokens", "tokens")]
    assert limits == [200_000, 64_000, 64_000]
    assert (smart["mode"], smart["litellm_provider"], smart["db_model"]) == ("chat", "anthropic", False)
    assert (smart["supports_vision"], smart["supports_audio_output"]) == (True, False)
    own = by_target["smart", "groq/own"]
    assert (own["input_cost_per_token"], own["max_input_tokens"]) == (2e-06, 9000)
    assert (own["mode"], own["supports_vision"], own["max_tokens"]) == (None, None, None)
    direct = by_target["groq/openai/gpt-oss-120b", "groq/openai/gpt-oss-120b"]
    assert direct["input_cost_per_token"] > 0
    matched = by_target["any-openai/gpt-oss-120b", "groq/openai/gpt-oss-120b"]
    assert matched | {"id": None} == direct | {"id": None}
    assert len({each["model_info"]["id"] for each in found}) == len(found)
    one = entries(priced, ADMIN_KEY, f"/v1/model/info?litellm_model_id={own['id']}")
    assert [each["litellm_params"] for each in one] == [{"model": "groq/own"}]
    reply = priced.request("GET", "/model/info?litellm_model_id=x", headers=bearer(ADMIN_KEY))
    assert (reply.status, reply.error["param"]) == (400, "litellm_model_id")


@pytest.mark.parametrize("path", ["/model/info", "/v1/model/info"])
def test_clients_see_what_they_may_use(priced: Proxy, path: str) -> None:
    assert {each["model_name"] for each in entries(priced, NARROW_KEY, path)} == {"smart"}
    assert {"smart", "echo/echo"} <= {each["model_name"] for each in entries(priced, CLIENT_KEY, path)}
    for headers in ({}, bearer("sk-of-nobody-0123456789")):
        assert priced.request("GET", path, headers=headers).status == 401


def test_the_age_of_the_price_table_is_shown_to_those_who_have_a_key(priced: Proxy) -> None:
    assert priced.request("GET", "/health").json == {"status": "ok"}
    nobody = bearer("sk-of-nobody-0123456789")
    assert priced.request("GET", "/health", headers=nobody).json == {"status": "ok"}
    prices = priced.request("GET", "/admin/info", headers=bearer(ADMIN_KEY)).json["prices"]
    assert prices["date"] >= "2026-11-28"
    assert prices["age_days"] >= 0
    for key in (CLIENT_KEY, ADMIN_KEY):
        shown = priced.request("GET", "/health", headers=bearer(key)).json
        assert shown == {"status": "ok", "prices": prices}


def test_all_prices_have_litellms_names() -> None:
    prices = of_settings(
        Declared(
            input=1,
            output=2,
            cached_input=0.1,
            cache_write=1.25,
            audio_input=10,
            reasoning=3,
            tiers=(Tier(above=128_000, input=2, output=4),),
            services={"flex": ServicePrices(input=0.5, output=1), "fast": ServicePrices(input=6, output=12)},
            image=0.04,
            second=0.0001,
            character=0.00002,
            search_unit=0.002,
            request=0.001,
        )
    )
    info = model_entry("m", "p/x", prices)["model_info"]
    costs = {name: value for name, value in info.items() if "cost" in name}
    assert costs == {
        "input_cost_per_token": 1e-06,
        "output_cost_per_token": 2e-06,
        "cache_read_input_token_cost": 1e-07,
        "cache_creation_input_token_cost": 1.25e-06,
        "cache_creation_input_token_cost_above_1hr": 2e-06,
        "input_cost_per_audio_token": 1e-05,
        "output_cost_per_reasoning_token": 3e-06,
        "input_cost_per_token_above_128k_tokens": 2e-06,
        "output_cost_per_token_above_128k_tokens": 4e-06,
        "input_cost_per_token_flex": 5e-07,
        "output_cost_per_token_flex": 1e-06,
        "input_cost_per_token_above_128k_tokens_flex": 1e-06,
        "output_cost_per_token_above_128k_tokens_flex": 2e-06,
        "output_cost_per_image": 0.04,
        "input_cost_per_second": 0.0001,
        "input_cost_per_character": 0.00002,
        "input_cost_per_query": 0.002,
        "input_cost_per_request": 0.001,
    }
    assert model_entry("m", "p/x", FREE)["model_info"]["input_cost_per_token"] == 0
    assert model_entry("m", "p/x", None)["model_info"]["input_cost_per_token"] is None
