"""The tokens of an answer, independent of the API that counted them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sanic_proxy.json_types import Json, JsonMapping


class Usage(NamedTuple):
    """Tokens. `input` includes `cached` and `cache_write`; `output` includes `reasoning`."""

    input: int = 0
    output: int = 0
    cached: int = 0
    cache_write: int = 0
    reasoning: int = 0

    def as_chat(self) -> Json:
        """As the `usage` object of a chat completion, which is how records keep it."""
        return {
            "prompt_tokens": self.input,
            "completion_tokens": self.output,
            "total_tokens": self.input + self.output,
            "prompt_tokens_details": {"cached_tokens": self.cached, "cache_write_tokens": self.cache_write},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning},
        }

    @classmethod
    def of_chat(cls, usage: JsonMapping) -> Usage:
        """Of the `usage` object of a chat completion. Fields that are no numbers count as 0."""
        prompt, completion = (
            details if isinstance(details := usage.get(name), dict) else {}
            for name in ("prompt_tokens_details", "completion_tokens_details")
        )
        return cls(
            whole(usage.get("prompt_tokens")),
            whole(usage.get("completion_tokens")),
            whole(prompt.get("cached_tokens")),
            whole(prompt.get("cache_write_tokens")),
            whole(completion.get("reasoning_tokens")),
        )


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
    return isinstance(value, int | float) and not isinstance(value, bool)


def whole(value: object) -> int:
    """A count of tokens as a provider reports it; 0 for anything but a whole number."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
