"""LiteLLM's files, unchanged: running proxies, the official client and the scripted upstream.

The ten files in `tests/litellm` have what public files have, roughly as often: references to variables
(nearly all), `master_key`, `api_base`, `drop_params`, retries and fallbacks in either section, a database,
and keys that LiteLLM does not know.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.support import messages
from tests.support.proxy import Proxy, running_proxy
from tests.support.upstream import Exchange, Upstream, completion, text_stream

FILES = Path(__file__).parent / "litellm"
MASTER = "sk-master-canary-0123456789"
LITERAL_MASTER = "sk-canary-0123456789"
HELLO: Any = [{"role": "user", "content": "Hello"}]


@dataclass(frozen=True)
class Case:
    """One file, and what its proxy does: `served` has path, model and key upstream for each name.

    `{UP}` in `environ` is the upstream's address. `said` are parts of the lines at the start.
    """

    name: str
    served: Mapping[str, tuple[str, str, str | None]]
    environ: Mapping[str, str] = field(default_factory=dict)
    key: str | None = None
    unlisted: tuple[str, ...] = ()
    said: tuple[str, ...] = ()


OPENAI = {"OPENAI_API_KEY": "sk-openai-canary", "OPENAI_BASE_URL": "{UP}/openai"}
GROQ = {"GROQ_API_KEY": "gsk-groq-canary", "GROQ_BASE_URL": "{UP}/groq"}
OPENROUTER = {"OPENROUTER_API_KEY": "sk-router-canary", "OPENROUTER_BASE_URL": "{UP}/openrouter"}
AT_OPENAI, AT_GROQ = "/openai/chat/completions", "/groq/chat/completions"
CASES = [
    Case(
        "single_provider",
        {
            "gpt-4o": (AT_OPENAI, "gpt-4o", "sk-openai-canary"),
            "gpt-4o-mini": (AT_OPENAI, "gpt-4o-mini", "sk-openai-canary"),
        },
        {**OPENAI, "LITELLM_MASTER_KEY": MASTER},
        key=MASTER,
        said=("line 14: litellm_settings.request_timeout: approximate",),
    ),
    Case(
        "several_vendors",
        {
            "gpt-4o": (AT_OPENAI, "gpt-4o", "sk-openai-canary"),
            "claude-sonnet": ("/anthropic/v1/messages", "claude-sonnet-4-5", "sk-ant-canary"),
            "gemini-flash": ("/google/chat/completions", "gemini-2.5-flash", "AIza-canary-key"),
            "llama": (AT_GROQ, "llama-3.3-70b-versatile", "gsk-groq-canary"),
            "deepseek": ("/openrouter/chat/completions", "deepseek/deepseek-chat", "sk-router-canary"),
        },
        {
            **OPENAI,
            **GROQ,
            **OPENROUTER,
            "ANTHROPIC_API_KEY": "sk-ant-canary",
            "ANTHROPIC_API_BASE": "{UP}/anthropic/v1",
            "GEMINI_API_KEY": "AIza-canary-key",
            "GOOGLE_BASE_URL": "{UP}/google",
        },
        key=LITERAL_MASTER,
        said=(
            "general_settings.database_url: ignored: no database is needed",
            "environment_variables: approximate",
        ),
    ),
    Case("ollama", {"llama3": ("/v1/chat/completions", "llama3.1:8b", None)}, unlisted=("embed",)),
    Case(
        "balanced",
        {
            "weighed": ("/a/v1/chat/completions", "always-first", "sk-canary-a-0123456789"),
            "ordered": ("/a/v1/chat/completions", "first", "none"),
        },
        key=LITERAL_MASTER,
        unlisted=("chat",),
        said=("router_settings.redis_host: ignored", "router_settings.cooldown_time: approximate"),
    ),
    Case(
        "router_fallbacks",
        {
            "small": ("/lab/v1/chat/completions", "small", "sk-lab-canary"),
            "gpt-4": ("/lab/v1/chat/completions", "small", "sk-lab-canary"),
            "large": ("/lab/v1/chat/completions", "large", "sk-lab-canary"),
            "spare": (AT_GROQ, "spare", "gsk-groq-canary"),
            "careful": (AT_GROQ, "careful", "gsk-groq-canary"),
        },
        {**GROQ, "LAB_BASE": "{UP}/lab/v1", "LAB_KEY": "sk-lab-canary", "LITELLM_MASTER_KEY": MASTER},
        key=MASTER,
    ),
    Case(
        "settings_fallbacks",
        {
            "first": (AT_GROQ, "first", "gsk-groq-canary"),
            "second": (AT_OPENAI, "second", "sk-openai-canary"),
        },
        {**GROQ, **OPENAI},
        said=("the variable MISTRAL_API_KEY is not set: without mistral, of first, second, third",),
    ),
    Case(
        "wildcards",
        {
            "claude-best": ("/openrouter/chat/completions", "anthropic/claude-opus-4.5", "sk-router-canary"),
            "openai/gpt-5": (AT_OPENAI, "gpt-5", "sk-openai-canary"),
            "claude-haiku-4.5": (
                "/openrouter/chat/completions",
                "anthropic/claude-haiku-4.5",
                "sk-router-canary",
            ),
        },
        {**OPENAI, **OPENROUTER, "LITELLM_MASTER_KEY": MASTER},
        key=MASTER,
    ),
    Case(
        "self_hosted",
        {
            "qwen": ("/vllm/v1/chat/completions", "Qwen/Qwen3-32B", None),
            "relay": ("/relay/v1/chat/completions", "gpt-oss-120b", "none"),
            "proxied": ("/inner/chat/completions", "inner", "sk-inner-canary"),
        },
        {"VLLM_BASE": "{UP}/vllm/v1", "RELAY_TOKEN": "relay-token-canary", "INNER_KEY": "sk-inner-canary"},
        key="sk-1234",
        said=("this key is known to everybody", "too short for an admin key"),
    ),
    Case(
        "partly_supported",
        {"gpt-on-azure": ("/openai/v1/chat/completions", "my-deployment", "azure-canary-1")},
        {"AZURE_API_KEY": "azure-canary-1"},
        said=(
            "the provider 'bedrock' is not supported",
            "the provider 'vertex_ai' is not supported",
            "'opanai' is not the name of a provider; did you mean 'openai'?",
            "api_kye: unknown: it is not a key of LiteLLM's; did you mean 'api_key'?",
            "did you mean 'drop_params'?",
            "did you mean 'success_callback'?",
            "did you mean 'fallbacks'?",
            "general_setings: unknown: it is not a key of LiteLLM's; did you mean 'general_settings'?",
            "the variable AZURE_API_KEY_2 is not set",
        ),
    ),
    Case("only_comments", {"echo/echo": ("", "", None)}, unlisted=("echo/slow",), said=("no keys",)),
]


@contextmanager
def proxy_for(case: Case, upstream: Upstream, directory: Path, **further: str) -> Iterator[Proxy]:
    """A proxy with the file as its only configuration. `UPSTREAM` in it is the upstream's address."""
    config = directory / "litellm_config.yaml"
    text = (FILES / f"{case.name}.yaml").read_text("utf-8")
    config.write_text(text.replace("UPSTREAM", upstream.url))
    environ = {name: value.replace("{UP}", upstream.url) for name, value in case.environ.items()}
    with running_proxy({**environ, **further, "SANIC_PROXY_CONFIG": str(config)}) as proxy:
        yield proxy


async def describe(exchange: Exchange) -> None:
    """Answer with what arrived."""
    seen = exchange.seen
    model = seen.json["model"] if seen.is_json else ""
    key = (
        (seen.header("authorization") or "").removeprefix("Bearer ")
        or seen.header("x-api-key")
        or seen.header("api-key")
    )
    words = [seen.path, model, key or "-"]
    if seen.path.endswith("/messages"):
        await answer_message(exchange, " ".join(words))
    elif seen.is_json and seen.json.get("stream"):
        await exchange.stream(text_stream(" ".join(words)))
    elif seen.method == "GET":
        await exchange.answer({"object": "list", "data": []})
    else:
        await exchange.answer(completion(" ".join(words)))


async def answer_message(exchange: Exchange, text: str) -> None:
    if exchange.seen.json.get("stream"):
        await exchange.stream([messages.start(), *messages.text_block(0, text), *messages.stop()])
        return
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 1},
    }
    await exchange.answer(message)


def test_there_are_ten_files() -> None:
    assert sorted(case.name for case in CASES) == sorted(path.stem for path in FILES.glob("*.yaml"))
    assert len(CASES) == 10


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_file_is_served_unchanged(case: Case, upstream: Upstream, tmp_path: Path) -> None:
    upstream.on("*", describe)
    with proxy_for(case, upstream, tmp_path) as proxy:
        for text in case.said:
            assert text in proxy.log
        base_url = f"{proxy.url}/v1"
        client = openai.OpenAI(base_url=base_url, api_key=case.key or "unused", max_retries=0)
        with client:
            listed = {entry.id for entry in client.models.list()}
            exact = {name for name in case.served if name in listed or "wildcards" not in case.name}
            assert exact | set(case.unlisted) <= listed
            for name, (path, model, key) in case.served.items():
                whole = client.chat.completions.create(model=name, messages=HELLO)
                stream = client.chat.completions.create(model=name, messages=HELLO, stream=True)
                streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
                expected = f"{path} {model} {key or '-'}" if path else "Hello"
                assert whole.choices[0].message.content == streamed.strip() == expected
            if case.key is not None:
                with pytest.raises(openai.AuthenticationError):
                    openai.OpenAI(base_url=base_url, api_key="wrong", max_retries=0).models.list()
            with pytest.raises(openai.NotFoundError):
                client.chat.completions.create(model="no-such-model", messages=HELLO)


def case_of(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


async def answer_ok(exchange: Exchange) -> None:
    await exchange.answer(completion())


def failing(status: int, code: str) -> Any:
    async def script(exchange: Exchange) -> None:
        error = {"message": "no", "type": "invalid_request_error", "param": None, "code": code}
        await exchange.answer({"error": error}, status)

    return script


def models_asked(proxy: Proxy, model: str, key: str | None) -> list[str]:
    """The targets that a request is sent to, by its route."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    route = proxy.chat(model, headers=headers).headers["x-sanic-proxy-route"]
    return [attempt.split(" ")[0] for attempt in route.split(", ")]


def test_fallbacks_of_either_section_and_by_cause(upstream: Upstream, tmp_path: Path) -> None:
    upstream.on("*", answer_ok)
    upstream.on("first", failing(500, "server_error"))
    case = case_of("settings_fallbacks")
    with proxy_for(case, upstream, tmp_path) as proxy:
        assert models_asked(proxy, "first", None) == ["groq/first", "openai/second"]
    case = case_of("router_fallbacks")
    with proxy_for(case, upstream, tmp_path, SANIC_PROXY_BREAKER="off") as proxy:
        for status, code, then in (
            (500, "server_error", "groq/spare"),
            (400, "context_length_exceeded", "openai-compatible/large"),
            (400, "content_filter", "groq/careful"),
        ):
            upstream.on("small", failing(status, code))
            assert models_asked(proxy, "small", MASTER) == ["openai-compatible/small", then]
            assert models_asked(proxy, "gpt-4", MASTER) == ["openai-compatible/small", then]
        listed = proxy.request("GET", "/v1/models", headers={"authorization": f"Bearer {MASTER}"}).json
        assert "secret" not in [entry["id"] for entry in listed["data"]]
        assert models_asked(proxy, "secret", MASTER) == ["openai-compatible/large"]


def test_requests_are_spread_by_rpm_and_the_master_key_is_the_admin_key(
    upstream: Upstream, tmp_path: Path
) -> None:
    upstream.on("*", answer_ok)
    with proxy_for(case_of("balanced"), upstream, tmp_path) as proxy:
        asked = [models_asked(proxy, "chat", LITERAL_MASTER)[0] for _ in range(60)]
        names = {name: asked.count(name) for name in set(asked)}
        assert names["openai-compatible/deployment-a"] > names.get("openai-compatible-2/deployment-b", 0)
        headers = {"authorization": f"Bearer {LITERAL_MASTER}"}
        assert proxy.request("GET", "/admin/info", headers=headers).status == 200


def test_headers_and_what_is_known_of_a_model_arrive(upstream: Upstream, tmp_path: Path) -> None:
    upstream.on("*", answer_ok)
    with proxy_for(case_of("self_hosted"), upstream, tmp_path) as proxy:
        key = {"authorization": "Bearer sk-1234"}
        proxy.chat("relay", headers=key)
        (seen,) = upstream.seen("gpt-oss-120b")
        assert (seen.header("x-team"), seen.header("x-token")) == ("blue", "relay-token-canary")
        assert seen.header("openai-organization") == "org-canary"
        assert proxy.request("GET", "/v1/models/qwen", headers=key).json["context_window"] == 32768
        assert proxy.request("GET", "/admin/info", headers=key).status == 404


def test_parameters_are_dropped_and_filled_in(upstream: Upstream, tmp_path: Path) -> None:
    upstream.on("*", answer_ok)
    headers = {"authorization": f"Bearer {LITERAL_MASTER}"}
    with proxy_for(case_of("several_vendors"), upstream, tmp_path) as proxy:
        proxy.chat("llama", headers=headers, logprobs=True, temperature=0.5)
        (seen,) = upstream.seen("llama-3.3-70b-versatile")
        assert "logprobs" not in seen.json
        assert seen.json["temperature"] == 0.5
    with proxy_for(case_of("self_hosted"), upstream, tmp_path) as proxy:
        proxy.chat("qwen", headers={"authorization": "Bearer sk-1234"}, temperature=0)
        (seen,) = upstream.seen("Qwen/Qwen3-32B")
        assert (seen.json["temperature"], seen.json["max_tokens"]) == (0, 8192)


def test_other_endpoints_know_the_names_of_the_file(upstream: Upstream, tmp_path: Path) -> None:
    async def embed(exchange: Exchange) -> None:
        await exchange.answer({"object": "list", "data": [], "model": "x", "usage": {"prompt_tokens": 1}})

    upstream.on("nomic-embed-text", embed)
    with proxy_for(case_of("ollama"), upstream, tmp_path) as proxy:
        assert proxy.request("POST", "/v1/embeddings", {"model": "embed", "input": "x"}).status == 200
        (seen,) = upstream.seen("nomic-embed-text")
        assert seen.path == "/v1/embeddings"
