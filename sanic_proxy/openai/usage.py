"""The tokens of an answer, and what else its bill depends on, independent of the API. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sanic_proxy.json_types import Json, JsonMapping

# Where providers state what a request cost: OpenRouter (for keys of one's own, what their vendor bills is in
# `cost_details`), Perplexity (`cost` is an object), xAI (in units of 1e-10 dollars).
COST_FIELDS = frozenset({"cost", "cost_details", "is_byok", "cost_in_usd_ticks"})
# Larger floating-point numbers are not exact, and no count is larger: JSON has integers of any size.
_MAX_EXACT = 2**53


class Usage(NamedTuple):
    """Tokens. `input` includes `cached`, `cache_write` and those of audio and images; `output` likewise.

    `output` includes `reasoning` as well. `cache_write_1h` is the part of `cache_write` that is kept for an
    hour instead of five minutes.
    """

    input: int = 0
    output: int = 0
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0
    cache_write_1h: int = 0
    audio_input: int = 0
    image_input: int = 0
    audio_output: int = 0
    image_output: int = 0

    def as_chat(self) -> Json:
        """As the `usage` object of a chat completion, which is how records keep it.

        The parts that OpenAI's chats do not have at all (an hour's cache writes), and those of audio and
        images, are there where they are not 0.
        """
        prompt = {"cached_tokens": self.cached, "cache_write_tokens": self.cache_write}
        completion = {"reasoning_tokens": self.reasoning}
        if self[5:] != _NO_OTHER_PARTS:
            for details, name, tokens in (
                (prompt, "cache_write_1h_tokens", self.cache_write_1h),
                (prompt, "audio_tokens", self.audio_input),
                (prompt, "image_tokens", self.image_input),
                (completion, "audio_tokens", self.audio_output),
                (completion, "image_tokens", self.image_output),
            ):
                if tokens:
                    details[name] = tokens
        return {
            "prompt_tokens": self.input,
            "completion_tokens": self.output,
            "total_tokens": self.input + self.output,
            "prompt_tokens_details": prompt,
            "completion_tokens_details": completion,
        }

    @classmethod
    def of_chat(cls, usage: JsonMapping) -> Usage:
        """Of the `usage` object of a chat completion. Fields that are no numbers count as 0.

        DeepSeek and Moonshot have names of their own for cached tokens. xAI does not count the reasoning in
        `completion_tokens`, as the total shows.
        """
        prompt, completion = (
            details if isinstance(details := usage.get(name), dict) else {}
            for name in ("prompt_tokens_details", "completion_tokens_details")
        )
        made = cls(
            whole(usage.get("prompt_tokens")),
            whole(usage.get("completion_tokens")),
            whole(prompt.get("cached_tokens"))
            or whole(usage.get("prompt_cache_hit_tokens"))
            or whole(usage.get("cached_tokens")),
            whole(prompt.get("cache_write_tokens")),
            whole(completion.get("reasoning_tokens")),
            whole(prompt.get("cache_write_1h_tokens")),
            whole(prompt.get("audio_tokens")),
            whole(prompt.get("image_tokens")),
            whole(completion.get("audio_tokens")),
            whole(completion.get("image_tokens")),
        )
        if made.reasoning and whole(usage.get("total_tokens")) == made.input + made.output + made.reasoning:
            return made._replace(output=made.output + made.reasoning)
        return made


# The parts of `Usage` from `cache_write_1h` on, of most answers.
_NO_OTHER_PARTS = (0,) * len(Usage._fields[5:])


def prompt_of_chat(usage: JsonMapping) -> tuple[int, int]:
    """Of the `usage` object of a chat completion: the prompt's tokens, and those of them in the cache."""
    prompt = whole(usage.get("prompt_tokens"))
    details = usage.get("prompt_tokens_details")
    cached = whole(details.get("cached_tokens")) if isinstance(details, dict) else 0
    cached = cached or whole(usage.get("prompt_cache_hit_tokens") or usage.get("cached_tokens"))
    return prompt, min(cached, prompt)


def recorded(
    usage: Usage,
    reported: JsonMapping,
    *,
    service_tier: object = None,
    server_tools: Mapping[str, int] | None = None,
    region: object = None,
) -> Json:
    """`usage` as records keep it: as a chat's, with what else its price depends on.

    `reported` is the provider's own object, of which a cost that it states is kept. `service_tier` is the
    tier that the answer was served with, `server_tools` the calls of tools that the provider ran:
    `web_search_requests`, `file_search_requests`, `code_interpreter_sessions` (Anthropic's names where it
    has one). `region` is where the answer was made, if that has a price.
    """
    kept = usage.as_chat()
    if not COST_FIELDS.isdisjoint(reported):
        kept.update((name, reported[name]) for name in COST_FIELDS if name in reported)
    if isinstance(service_tier, str) and service_tier:
        kept["service_tier"] = service_tier
    if isinstance(region, str) and region:
        kept["region"] = region
    if server_tools and (calls := {name: count for name, count in server_tools.items() if count}):
        kept["server_tool_use"] = calls
    return kept


def recorded_chat(completion: JsonMapping) -> Json | None:
    """The `usage` of a completion, or of a chunk, as the provider reports it, with its service tier."""
    if not isinstance(usage := completion.get("usage"), dict):
        return None
    tier = completion.get("service_tier")
    if tier in (None, "default") or not isinstance(tier, str) or "service_tier" in usage:
        return usage
    return {**usage, "service_tier": tier}


def recorded_passthrough(answer: JsonMapping) -> Json | None:
    """What an answer of an endpoint that passes through reports: its `usage`, and what is billed by piece.

    `images` is the number of images, `seconds` the length of the sound that was read, where there is no
    `usage` with tokens, and `search_units` what Cohere bills for reranking. None where nothing is known.
    https://platform.openai.com/docs/api-reference/images/object,
    https://platform.openai.com/docs/api-reference/audio/verbose-json-object,
    https://docs.cohere.com/reference/rerank
    """
    found = recorded_chat(answer) or {}
    pieces = answer.get("data")
    images = sum(map(_is_image, pieces)) if isinstance(pieces, list) else 0
    if images:
        found = {**found, "images": images}
    if not found and "text" in answer and _is_number(duration := answer.get("duration")):
        found = {"seconds": duration}
    billed = meta.get("billed_units") if isinstance(meta := answer.get("meta"), Mapping) else None
    if isinstance(billed, Mapping) and (units := whole(billed.get("search_units"))):
        found = {**found, "search_units": units}
    return found or None


def _is_image(piece: object) -> bool:
    return isinstance(piece, Mapping) and bool(piece.get("b64_json") or piece.get("url"))


def added(first: JsonMapping, second: JsonMapping) -> Json:
    """The sum of two `usage` objects: numbers are added, also in details; of other values the second wins."""
    total = {**first, **second}
    for name in first.keys() & second.keys():
        one, two = first[name], second[name]
        if isinstance(one, Mapping) and isinstance(two, Mapping):
            total[name] = added(one, two)
        elif _is_number(one) and _is_number(two):
            total[name] = one + two
    return total


def _is_number(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return -_MAX_EXACT <= value <= _MAX_EXACT


def whole(value: object) -> int:
    """A count of tokens as a provider reports it; 0 for anything but a whole number, which may be `12.0`.

    At most 2**53: sums and products of it may be floating-point numbers.
    """
    if type(value) is int:
        if value > _MAX_EXACT:  # noqa: PLR1730 - each call of min or max costs 1,200 instructions
            value = _MAX_EXACT
        return value if value > 0 else 0
    if isinstance(value, float) and value.is_integer() and value < _MAX_EXACT:
        return max(0, int(value))
    return 0
