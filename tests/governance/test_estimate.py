"""What requests will use: probably, and at most."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy.config.prices import ServicePrices
from sanic_proxy.errors import InvalidRequest
from sanic_proxy.governance.cost import MAX_COST_NANO, cost
from sanic_proxy.governance.estimate import (
    FIRST_OUTPUT_TOKENS,
    IMAGE_TOKENS,
    MAX_PAIRS,
    TOOLS_TOKENS,
    Asked,
    Estimator,
    Tokens,
    asked_of,
    estimated_cost,
    strict_cost,
    strict_tokens,
)
from sanic_proxy.governance.prices import FREE, Prices, of_settings
from sanic_proxy.governance.usage import Usage
from tests.support.prices import text_prices, usage_of

FILE = base64.b64encode(bytes(range(256)) * 40).decode()
PNG = f"data:image/png;base64,{FILE}"


def asked(fields: dict[str, Any], *, has_output: bool = True) -> Asked:
    return asked_of(json.dumps(fields).encode(), fields, has_output=has_output)


@pytest.mark.parametrize(
    ("fields", "limit", "choices"),
    [
        ({"max_tokens": 5, "n": 3}, 5, 3),
        ({"max_completion_tokens": 6, "max_tokens": 5}, 6, 1),
        ({"max_output_tokens": 7}, 7, 1),
        ({"generationConfig": {"maxOutputTokens": 8, "candidateCount": 2}}, 8, 2),
        ({"max_tokens": 5, "best_of": 4, "n": 2}, 5, 4),
        ({"max_tokens": "5", "n": 0}, None, 1),
        ({"max_tokens": -5, "n": True, "generationConfig": []}, None, 1),
    ],
)
def test_the_limits_of_the_output_in_each_api(
    fields: dict[str, Any], limit: int | None, choices: int
) -> None:
    found = asked(fields)
    assert (found.max_tokens, found.choices) == (limit, choices)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": PNG}},
        {"type": "input_image", "image_url": PNG},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": FILE}},
        {"inlineData": {"mimeType": "image/png", "data": FILE}},
        {"inline_data": {"mime_type": "image/png", "data": FILE}},
    ],
)
def test_images_are_counted_and_their_bytes_are_no_text(part: dict[str, Any]) -> None:
    found = asked({"messages": [{"role": "user", "content": [{"type": "text", "text": "look"}, part]}]})
    assert found.images == 1
    assert found.media_bytes >= len(FILE)
    assert found.text_bytes < 250


@pytest.mark.parametrize(
    ("fields", "has_audio", "writes_media"),
    [
        ({"messages": [{"content": [{"type": "input_audio", "input_audio": {"data": "aa"}}]}]}, True, False),
        ({"contents": [{"parts": [{"inlineData": {"mimeType": "audio/wav", "data": "aa"}}]}]}, True, False),
        ({"messages": [{"content": "audio"}]}, False, False),
        ({"modalities": ["text", "audio"]}, False, True),
        ({"generationConfig": {"responseModalities": ["IMAGE"]}}, False, True),
        ({"tools": [{"type": "image_generation"}]}, False, True),
        ({"tools": [{"type": "function"}, "odd"]}, False, False),
    ],
)
def test_what_has_other_prices_than_text(fields: dict[str, Any], has_audio: bool, writes_media: bool) -> None:
    found = asked(fields)
    assert (found.has_audio, found.writes_media) == (has_audio, writes_media)


def test_images_by_address_count_as_well() -> None:
    part = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    assert asked({"messages": [{"content": [part, part]}]}).images == 2


def test_long_texts_are_text() -> None:
    found = asked({"messages": [{"content": "an image of words " * 100}, {"content": "a" * 300}]})
    assert (found.media_bytes, found.images) == (0, 0)


def test_a_new_client_is_estimated_by_bytes() -> None:
    estimator = Estimator()
    found = asked({"messages": [{"content": "a" * 1000}], "max_tokens": 128_000})
    assert estimator.memory("c", "m").tokens(found) == Tokens(-(-found.text_bytes // 4), FIRST_OUTPUT_TOKENS)
    assert estimator.memory("c", "m").tokens(found, 100).output == 100
    assert estimator.memory("c", "m").tokens(asked({"max_tokens": 10, "n": 3})).output == 30
    assert estimator.memory("c", "m").tokens(asked({"input": "a"}, has_output=False)).output == 0


def test_later_ones_by_what_the_answers_were_like() -> None:
    estimator = Estimator()
    found = asked({"messages": [{"content": "a" * 1000}], "max_tokens": 128_000})
    for output in range(1, 201):
        estimator.memory("c", "m").observe(found, found.text_bytes // 2, output)
    tokens = estimator.memory("c", "m").tokens(found)
    assert tokens.input in {found.text_bytes // 2, found.text_bytes // 2 + 1}
    assert tokens.output == 199  # of the last 100, 99 % are not larger
    assert estimator.memory("other", "m").tokens(found).output == FIRST_OUTPUT_TOKENS
    assert estimator.memory("c", "other").tokens(found).output == FIRST_OUTPUT_TOKENS


def test_images_do_not_change_the_ratio_of_text() -> None:
    estimator = Estimator()
    part = {"type": "image_url", "image_url": {"url": PNG}}
    found = asked({"messages": [{"content": ["a" * 1000, part]}]})
    usage = Usage(input=found.text_bytes // 4 + IMAGE_TOKENS, output=9)
    estimator.memory("c", "m").observe(found, usage.input, usage.output)
    assert estimator.memory("c", "m").tokens(found).input in range(usage.input, usage.input + 3)
    estimator.memory("c", "m").observe(found, 5, 9)  # fewer than one image: says nothing
    assert estimator.memory("c", "m").tokens(found).input in range(usage.input, usage.input + 3)


def test_memory_is_bounded() -> None:
    estimator = Estimator()
    found = Asked(text_bytes=100)
    for number in range(MAX_PAIRS + 10):
        estimator.memory(f"client {number}", "m").observe(found, 25, 7)
    assert estimator.memory("client 0", "m").tokens(found).output == FIRST_OUTPUT_TOKENS
    assert estimator.memory(f"client {MAX_PAIRS}", "m").tokens(found).output == 7


PRICES = of_settings(
    text_prices(
        above=1000,
        audio_input=30,
        image_output=60,
        services={"priority": ServicePrices(input=6, output=30), "flex": ServicePrices(input=1, output=5)},
        request=0.001,
    )
)


def test_estimated_costs() -> None:
    tokens = Tokens(100, 10)
    assert estimated_cost(tokens, Asked(text_bytes=400), PRICES) == 300_000 + 150_000 + 1_000_000
    asked_flex = Asked(text_bytes=400, service_tier="flex")
    assert estimated_cost(tokens, asked_flex, PRICES) == 100_000 + 50_000 + 1_000_000
    assert estimated_cost(tokens, Asked(text_bytes=1), FREE) == 0
    assert estimated_cost(tokens, Asked(text_bytes=1), None) is None
    assert estimated_cost(tokens, Asked(text_bytes=1), Prices(unit=1)) is None
    assert strict_cost(tokens, Asked(text_bytes=1), None) is None
    assert strict_cost(tokens, Asked(text_bytes=1), Prices(unit=1)) is None


def test_no_request_is_estimated_at_more_than_the_ledger_can_add_up() -> None:
    asked_for = asked_of(b"{}", {"n": 10**15, "max_tokens": 10**6})
    tokens = Estimator().memory("c", "m").tokens(asked_for)
    assert estimated_cost(tokens, asked_for, PRICES) == MAX_COST_NANO
    assert strict_cost(strict_tokens(asked_for, None, 0), asked_for, PRICES) == MAX_COST_NANO


def test_strict_tokens() -> None:
    assert strict_tokens(Asked(text_bytes=100, max_tokens=10, choices=2), 5, 1600) == Tokens(100, 20)
    assert strict_tokens(Asked(text_bytes=100), 5, 1600) == Tokens(100, 5)
    with_images = Asked(text_bytes=100, media_bytes=9999, images=2, has_tools=True)
    assert strict_tokens(with_images, 5, 1600) == Tokens(100 + 3200 + TOOLS_TOKENS, 5)
    assert strict_tokens(Asked(text_bytes=100, media_bytes=50), 5, 1600) == Tokens(150, 5)
    assert strict_tokens(Asked(text_bytes=100, has_output=False), None, 1600) == Tokens(100, 0)


@pytest.mark.parametrize(
    ("fields", "refers"),
    [
        ({"previous_response_id": "resp_1"}, True),
        ({"previous_response_id": None, "prompt": "a text"}, False),
        ({"conversation": "conv_1"}, True),
        ({"prompt": {"id": "pmpt_1"}}, True),
        ({"cachedContent": "cachedContents/1"}, True),
        ({"input": [{"content": [{"type": "input_file", "file_id": "file-1"}]}]}, True),
        ({"input": [{"content": [{"type": "input_file", "file_url": "https://a/b.pdf"}]}]}, True),
        ({"contents": [{"parts": [{"fileData": {"fileUri": "https://a"}}]}]}, True),
        ({"messages": [{"content": [{"type": "document", "source": {"type": "url", "url": "x"}}]}]}, True),
        ({"messages": [{"content": "a file_id"}]}, False),
    ],
)
def test_references_to_stored_content(fields: dict[str, Any], refers: bool) -> None:
    assert asked(fields).refers is refers


def test_stored_content_is_at_most_what_the_model_takes() -> None:
    found = Asked(text_bytes=100, max_tokens=5, refers=True)
    assert strict_tokens(found, None, 1600, 200_000) == Tokens(200_000, 5)
    with pytest.raises(InvalidRequest, match="stored elsewhere"):
        strict_tokens(found, 5, 1600)


def test_a_strict_request_without_a_limit_is_refused_with_the_settings_to_set() -> None:
    with pytest.raises(InvalidRequest, match=r"set `max_tokens`.*`max_output`") as raised:
        strict_tokens(Asked(text_bytes=100), None, 1600)
    assert raised.value.param == "max_tokens"


@pytest.mark.parametrize(
    ("asked_for", "nano_for_input", "nano_for_output"),
    [
        (Asked(text_bytes=1), 3750, 15_000),
        (Asked(text_bytes=1, caches_for_hour=True), 6000, 15_000),
        (Asked(text_bytes=1, has_audio=True), 30_000, 15_000),
        (Asked(text_bytes=1, writes_media=True), 3750, 60_000),
        (Asked(text_bytes=1, service_tier="flex"), 3750, 15_000),
        (Asked(text_bytes=1, service_tier="priority"), 7500, 30_000),
        (Asked(text_bytes=1, service_tier="auto"), 7500, 30_000),
        (Asked(text_bytes=1, service_tier="unknown"), 3750, 15_000),
    ],
)
def test_strict_costs_are_the_dearest(asked_for: Asked, nano_for_input: int, nano_for_output: int) -> None:
    assert strict_cost(Tokens(100, 0), asked_for, PRICES) == 100 * nano_for_input + 1_000_000
    assert strict_cost(Tokens(0, 10), asked_for, PRICES) == 10 * nano_for_output + 1_000_000
    assert strict_cost(Tokens(2000, 0), asked_for, PRICES) == 2 * 2000 * nano_for_input + 1_000_000


COUNT = st.integers(0, 5000)


@given(
    st.lists(COUNT, min_size=10, max_size=10), st.sampled_from(["", "flex", "priority", "auto"]), st.data()
)
def test_no_use_within_the_tokens_costs_more_than_the_strict_cost(
    counts: list[int], tier: str, data: st.DataObject
) -> None:
    served = data.draw(st.sampled_from(["", "priority" if tier == "auto" else tier]))
    usage = usage_of(counts, served)
    asked_for = Asked(
        text_bytes=1,
        images=1,
        has_audio=True,
        writes_media=True,
        caches_for_hour=True,
        service_tier=tier,
    )
    most = strict_cost(Tokens(usage.input_tokens, usage.output_tokens), asked_for, PRICES)
    assert most is not None
    assert cost(usage, PRICES).nano <= most


ODD: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(["messages", "max_tokens", "n", "generationConfig", "service_tier", "tools", "type"])


@given(st.dictionaries(FIELDS, ODD))
def test_any_request_can_be_read(fields: dict[str, Any]) -> None:
    body = json.dumps(fields).encode() + b" base64"
    found = asked_of(body, fields)
    assert 0 <= found.text_bytes <= len(body)
    assert found.choices >= 1
