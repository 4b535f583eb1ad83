"""What providers report -> disjoint counts, of which each has one price."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.governance.usage import NOTHING, PlainUsage, Usage
from sanic_proxy.openai import usage as counted
from sanic_proxy.openai.responses import recorded_usage as of_response
from sanic_proxy.openai.usage import recorded_chat, recorded_passthrough
from sanic_proxy.streams.gemini_usage import recorded_usage as of_gemini
from sanic_proxy.streams.messages_usage import recorded_usage as of_messages


def test_openais_chats_count_cached_tokens_and_reasoning_inside() -> None:
    completion = {
        "service_tier": "flex",
        "usage": {
            "prompt_tokens": 100,
            "completion_tokens": 50,
            "total_tokens": 150,
            "prompt_tokens_details": {"cached_tokens": 60, "audio_tokens": 10},
            "completion_tokens_details": {
                "reasoning_tokens": 20,
                "audio_tokens": 5,
                "accepted_prediction_tokens": 0,
            },
        },
    }
    recorded = recorded_chat(completion)
    assert recorded is not None
    assert Usage.of(recorded) == Usage(
        input=30,
        cached_input=60,
        audio_input=10,
        output=25,
        reasoning=20,
        audio_output=5,
        service_tier="flex",
    )


def test_anthropic_counts_cached_tokens_apart() -> None:
    usage = {
        "input_tokens": 10,
        "cache_read_input_tokens": 60,
        "cache_creation_input_tokens": 30,
        "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
        "output_tokens": 50,
        "output_tokens_details": {"thinking_tokens": 20},
        "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 1},
        "service_tier": "standard",
        "inference_geo": "us",
    }
    assert Usage.of(of_messages(usage)) == Usage(
        input=10,
        cached_input=60,
        cache_write=10,
        cache_write_1h=20,
        output=30,
        reasoning=20,
        web_searches=2,
        region="us",
    )
    assert Usage.of(of_messages({**usage, "speed": "fast"})).service_tier == "fast"


def test_gemini_counts_thoughts_apart() -> None:
    response = {
        "candidates": [{"groundingMetadata": {"webSearchQueries": ["a", "b"]}}],
        "usageMetadata": {
            "promptTokenCount": 100,
            "cachedContentTokenCount": 60,
            "toolUsePromptTokenCount": 7,
            "candidatesTokenCount": 30,
            "thoughtsTokenCount": 20,
            "totalTokenCount": 157,
            "promptTokensDetails": [
                {"modality": "TEXT", "tokenCount": 90},
                {"modality": "AUDIO", "tokenCount": 10},
            ],
            "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 25}],
            "trafficType": "ON_DEMAND_PRIORITY",
        },
    }
    assert Usage.of(of_gemini(response)) == Usage(
        input=37,
        cached_input=60,
        audio_input=10,
        output=5,
        reasoning=20,
        image_output=25,
        web_searches=2,
        service_tier="priority",
    )


def test_responses_report_their_tools_in_the_output() -> None:
    response = {
        "service_tier": "default",
        "output": [
            {"type": "web_search_call", "action": {"type": "search"}},
            {"type": "web_search_call", "action": {"type": "open_page"}},
            {"type": "web_search_call"},
            {"type": "file_search_call"},
            {"type": "code_interpreter_call", "container_id": "a"},
            {"type": "code_interpreter_call", "container_id": "a"},
            {"type": "message"},
            "odd",
        ],
        "usage": {
            "input_tokens": 100,
            "input_tokens_details": {"cached_tokens": 60},
            "output_tokens": 50,
            "output_tokens_details": {"reasoning_tokens": 20},
            "total_tokens": 150,
        },
    }
    recorded = of_response(response)
    assert recorded is not None
    assert Usage.of(recorded) == Usage(
        input=40,
        cached_input=60,
        output=30,
        reasoning=20,
        web_searches=2,
        file_searches=1,
        code_sessions=1,
    )


@pytest.mark.parametrize(
    ("answer", "usage"),
    [
        ({"usage": {"prompt_tokens": 8, "total_tokens": 8}}, Usage(input=8)),  # embeddings
        ({"usage": {"total_tokens": 8}}, Usage(input=8)),  # rerank
        (
            {  # images
                "data": [{"b64_json": "aa"}],
                "usage": {
                    "input_tokens": 50,
                    "output_tokens": 1000,
                    "total_tokens": 1050,
                    "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
                },
            },
            Usage(input=10, image_input=40, output=1000, images=1),
        ),
        ({"data": [{"url": "https://a"}, {"url": "https://b"}]}, Usage(images=2)),
        (
            {  # transcriptions
                "text": "a",
                "usage": {
                    "type": "tokens",
                    "input_tokens": 14,
                    "input_token_details": {"text_tokens": 0, "audio_tokens": 14},
                    "output_tokens": 45,
                    "total_tokens": 59,
                },
            },
            Usage(audio_input=14, output=45),
        ),
        ({"text": "a", "usage": {"type": "duration", "seconds": 3}}, Usage(seconds=3)),
        ({"text": "a", "duration": 2.1}, Usage(seconds=3)),
        ({"data": [{"embedding": [0.1]}]}, None),
        ({"text": "a"}, None),
    ],
)
def test_endpoints_that_pass_through(answer: dict[str, Any], usage: Usage | None) -> None:
    recorded = recorded_passthrough(answer)
    assert (None if recorded is None else Usage.of(recorded)) == usage


@pytest.mark.parametrize(
    ("usage", "nano"),
    [
        ({"cost": 0.00014}, 140_000),
        ({"cost": 0}, 0),
        ({"cost": 1e-10}, 1),  # never less than it was
        ({"cost": 0.1}, 100_000_000),
        ({"cost": 0.1, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.25}}, 350_000_000),
        ({"cost": 0.1, "is_byok": True, "cost_details": None}, 100_000_000),
        ({"cost": 0.1, "is_byok": False, "cost_details": {"upstream_inference_cost": 1}}, 100_000_000),
        ({"cost": {"total_cost": 0.006, "request_cost": 0.005}}, 6_000_000),
        ({"cost_in_usd_ticks": 37_756_000}, 3_775_600),
        ({"cost": -1}, None),
        ({"cost": float("nan")}, None),
        ({"cost": "0.1"}, None),
        ({"cost": True}, None),
        ({}, None),
    ],
)
def test_costs_that_the_provider_reports(usage: dict[str, Any], nano: int | None) -> None:
    assert Usage.of(usage).reported_cost_nano == nano


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        # DeepSeek, Moonshot
        ({"prompt_tokens": 9, "prompt_cache_hit_tokens": 4}, Usage(input=5, cached_input=4)),
        ({"prompt_tokens": 9, "cached_tokens": 4}, Usage(input=5, cached_input=4)),
        # xAI: the total shows that reasoning is counted apart
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 5,
                "total_tokens": 16,
                "completion_tokens_details": {"reasoning_tokens": 2},
            },
            Usage(input=9, output=5, reasoning=2),
        ),
        # A part cannot be larger than its sum: it is counted apart.
        (
            {"completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 7}},
            Usage(output=5, reasoning=7),
        ),
        (
            {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 100}},
            Usage(input=5, cached_input=100),
        ),
        ({"prompt_tokens": 12.0, "completion_tokens": 1.5}, Usage(input=12)),
        ({"prompt_tokens": 10**30}, Usage(input=10**10)),
        ({"prompt_tokens": -5, "completion_tokens": True}, NOTHING),
        ({"service_tier": "DEFAULT"}, NOTHING),
        ({"service_tier": "x" * 100}, NOTHING),
    ],
)
def test_odd_servers(usage: dict[str, Any], expected: Usage) -> None:
    assert Usage.of(usage) == expected


COUNTS = st.integers(0, 10**6)


@given(COUNTS, COUNTS, st.lists(COUNTS, min_size=8, max_size=8))
def test_each_token_is_in_exactly_one_part(given_tokens: int, made: int, parts: list[int]) -> None:
    cached, written, reasoning, *_ = parts
    tokens = counted.Usage(given_tokens, made, *parts)
    usage = Usage.of(tokens.as_chat())
    apart = 0 if cached + written <= given_tokens else cached + written
    assert usage.input_tokens == given_tokens + apart
    # With an equal total, reasoning is inside; a larger count than its sum's is apart.
    assert usage.output_tokens == (made if reasoning <= made else made + reasoning)
    assert usage.cache_write + usage.cache_write_1h == written
    assert usage.reasoning == reasoning
    assert usage.tokens == usage.input_tokens + usage.output_tokens


@given(COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)
def test_anthropics_parts_are_all_counted_once(
    fresh: int, read: int, five: int, hour: int, made: int
) -> None:
    usage = Usage.of(
        of_messages(
            {
                "input_tokens": fresh,
                "cache_read_input_tokens": read,
                "cache_creation_input_tokens": five + hour,
                "cache_creation": {"ephemeral_5m_input_tokens": five, "ephemeral_1h_input_tokens": hour},
                "output_tokens": made,
            }
        )
    )
    assert usage == Usage(input=fresh, cached_input=read, cache_write=five, cache_write_1h=hour, output=made)


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_geminis_parts_are_all_counted_once(prompt: int, cached: int, made: int, thoughts: int) -> None:
    cached = min(cached, prompt)
    metadata = {
        "promptTokenCount": prompt,
        "cachedContentTokenCount": cached,
        "candidatesTokenCount": made,
        "thoughtsTokenCount": thoughts,
    }
    usage = Usage.of(of_gemini({"usageMetadata": metadata}))
    assert usage == Usage(input=prompt - cached, cached_input=cached, output=made, reasoning=thoughts)


ODD: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
NAMES = st.sampled_from(
    [
        *("prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "input_tokens"),
        *("completion_tokens_details", "output_tokens", "input_tokens_details", "output_tokens_details"),
        *("server_tool_use", "images", "seconds", "service_tier", "region", "cost", "cost_details"),
        *("cost_in_usd_ticks", "is_byok", "input_token_details", "cached_tokens", "inference_geo"),
        *("cache_creation", "cache_read_input_tokens", "promptTokenCount", "promptTokensDetails"),
        *("candidatesTokensDetails", "thoughtsTokenCount", "trafficType", "serviceTier", "speed"),
    ]
)
DETAILS = st.dictionaries(st.sampled_from(["cached_tokens", "reasoning_tokens", "total_cost"]), ODD)
ANY = st.dictionaries(NAMES, ODD | DETAILS)


@given(ANY, ODD)
def test_values_of_any_type_raise_nothing(usage: dict[str, Any], more: Any) -> None:
    found = [
        Usage.of(usage),
        Usage.of(of_messages(usage)),
        Usage.of(of_gemini({"usageMetadata": usage, "candidates": more})),
        Usage.of(of_response({"usage": usage, "output": more, "service_tier": more}) or {}),
        Usage.of(recorded_passthrough({"usage": usage, "data": more, "text": "", "duration": more}) or {}),
        Usage.of(recorded_chat({"usage": usage, "service_tier": more}) or {}),
    ]
    assert all(0 <= one.tokens <= 10**11 and one.images >= 0 and one.seconds >= 0 for one in found)


@given(st.integers(-5, 2 * 10**10), st.one_of(st.integers(-5, 100), st.booleans(), st.none(), st.text()))
def test_plain_counts_are_read_like_all_others(given_tokens: int, made: object) -> None:
    plain = {"prompt_tokens": given_tokens, "completion_tokens": made, "total_tokens": 7}
    assert Usage.of(plain) == Usage.of({**plain, "prompt_tokens_details": None})


def test_units_of_other_kinds_are_read() -> None:
    recorded = {"characters": 5, "search_units": 2, "images": 1, "image_quality": "HD", "image_size": "9x9"}
    found = Usage.of(recorded)
    assert (found.characters, found.search_units, found.images) == (5, 2, 1)
    assert (found.image_quality, found.image_size) == ("hd", "9x9")
    plain = Usage.of({"prompt_tokens": 1, "completion_tokens": 1})
    assert (plain.characters, plain.search_units, plain.image_quality, plain.image_size) == (0, 0, "", "")


DETAIL = st.dictionaries(
    st.sampled_from(["cached_tokens", "audio_tokens", "reasoning_tokens"]),
    st.sampled_from([0, None, 5]),
    max_size=2,
)


@given(
    st.fixed_dictionaries(
        {"prompt_tokens": st.integers(-1, 10**11), "completion_tokens": st.integers(-1, 10**11)},
        optional={
            "total_tokens": st.integers(0, 10**6),
            "prompt_tokens_details": st.none() | DETAIL,
            "completion_tokens_details": st.none() | DETAIL,
        },
    )
)
def test_plain_usages_are_read_like_all_others(recorded: dict[str, Any]) -> None:
    found = Usage.of(recorded)
    assert found == Usage.of({**recorded, "of another vendor": 0})  # which is not plain
    if type(found) is PlainUsage:
        assert (found.input_tokens, found.output_tokens) == (found.input, found.output)
