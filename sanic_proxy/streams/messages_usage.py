"""The `usage` objects of Anthropic's Messages API -> tokens. Pure.

Messages count a prompt in three disjoint parts: `input_tokens` excludes `cache_read_input_tokens` and
`cache_creation_input_tokens`. A stream reports in `message_start` and, cumulatively, in `message_delta`,
which may leave out or null what it does not repeat.
https://platform.claude.com/docs/en/build-with-claude/prompt-caching#tracking-cache-performance
"""

from __future__ import annotations

from collections.abc import Mapping

from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.openai.usage import Usage, recorded, whole


def merged(first: object, then: object) -> Json:
    """The fields of `first`, replaced by those that `then`, a later report of the same stream, states."""
    earlier = first if isinstance(first, Mapping) else {}
    later = then if isinstance(then, Mapping) else {}
    return {**earlier, **{name: value for name, value in later.items() if value is not None}}


def usage_of(fields: JsonMapping) -> Usage:
    """The tokens in a `usage` object. Fields that are no numbers count as 0."""
    read, written = whole(fields.get("cache_read_input_tokens")), _cache_write(fields)
    details = fields.get("output_tokens_details")
    return Usage(
        whole(fields.get("input_tokens")) + read + written,
        whole(fields.get("output_tokens")),
        read,
        written,
        whole(details.get("thinking_tokens")) if isinstance(details, dict) else 0,
        _cache_write_1h(fields) if "cache_creation" in fields else 0,
    )


def recorded_usage(fields: JsonMapping) -> Json:
    """A `usage` object as records keep it, with the tier, the region and the calls of tools it reports.

    Fast mode is a price of its own, like a tier.
    https://platform.claude.com/docs/en/about-claude/pricing
    """
    tools = fields.get("server_tool_use")
    searches = whole(tools.get("web_search_requests")) if isinstance(tools, dict) else 0
    return recorded(
        usage_of(fields),
        fields,
        service_tier="fast" if fields.get("speed") == "fast" else fields.get("service_tier"),
        server_tools={"web_search_requests": searches} if searches else None,
        region=fields.get("inference_geo"),
    )


def _cache_write(fields: JsonMapping) -> int:
    """The total; where a provider reports the parts by time to live alone, their sum."""
    if total := whole(fields.get("cache_creation_input_tokens")):
        return total
    parts = fields.get("cache_creation")
    return sum(map(whole, parts.values())) if isinstance(parts, dict) else 0


def _cache_write_1h(fields: JsonMapping) -> int:
    parts = fields.get("cache_creation")
    return whole(parts.get("ephemeral_1h_input_tokens")) if isinstance(parts, dict) else 0


def usage_fields(usage: Usage) -> Json:
    """A `usage` object with all five counts."""
    return {
        "input_tokens": max(0, usage.input - usage.cached - usage.cache_write),
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": usage.output,
        "output_tokens_details": {"thinking_tokens": usage.reasoning},
    }
