"""What a worker knows of its targets by their requests: latency, requests in flight, and the prompt cache.

A target is a provider's model with one key at one endpoint, as for circuits. Statistics are kept for targets
that a strategy compares, and for all of them where an operator can ask for them. Nothing here reads a clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import islice
from typing import TypeAlias

from sanic_proxy.json_types import Json
from sanic_proxy.observability.record import RequestRecord
from sanic_proxy.openai.usage import prompt_of_chat, whole
from sanic_proxy.routing.breaker import recent
from sanic_proxy.routing.latency import FAILED, PeakEwma, expected_s
from sanic_proxy.routing.prefixes import PrefixCache

# The tokens of a whole answer whose provider does not count them.
_USUAL_OUTPUT_TOKENS = 200
# The size of the request that shown times are for: about 1,000 tokens.
_SHOWN_INPUT_BYTES = 4000


# Provider, number of the key, model and endpoint.
TargetName: TypeAlias = tuple[str, int, str, str]


class TargetStatistics:
    """The statistics of one target in one worker.

    `in_flight` counts requests, and `pending` those of them that have no first content yet. `answered` and
    `failed` count attempts. `prompt_tokens` and `cached_tokens` are sums over the answers with usage: the
    second are those of the first that the provider found in its cache. `prefixes` are those of the prompts
    that it got.
    """

    __slots__ = (
        "answered",
        "cached_tokens",
        "endpoint",
        "failed",
        "in_flight",
        "label",
        "pending",
        "prefixes",
        "prompt_tokens",
        "slowness",
    )

    def __init__(self, label: str = "", endpoint: str = "") -> None:
        self.label = label
        self.endpoint = endpoint
        self.in_flight = 0
        self.pending = 0
        self.answered = 0
        self.failed = 0
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.slowness = PeakEwma()
        self.prefixes = PrefixCache()

    def begin(self) -> None:
        """A request is sent to the target."""
        self.in_flight += 1
        self.pending += 1

    def end(self) -> None:
        """A request has ended without an answer."""
        self.in_flight -= 1
        self.pending -= 1

    def record_answer(self, elapsed_s: float, record: RequestRecord, now: float) -> None:
        """A stream has begun, or a whole answer is there, `elapsed_s` after its request was sent."""
        self.answered += 1
        self.pending -= 1
        output_tokens = 0
        if not record.is_streaming:
            output_tokens = whole((record.usage or {}).get("completion_tokens")) or _USUAL_OUTPUT_TOKENS
        self.slowness.observe(elapsed_s / expected_s(record.input_bytes, output_tokens), now)

    def record_failure(self, elapsed_s: float, record: RequestRecord, now: float) -> None:
        """A request has failed by the target's fault. It counts as slow, however fast that was."""
        self.failed += 1
        self.slowness.punish(max(FAILED, elapsed_s / expected_s(record.input_bytes)), now)

    def record_given_up(self, elapsed_s: float, record: RequestRecord, now: float) -> None:
        """A request has ended without an answer: its client left, or another target was faster."""
        output_tokens = 0 if record.is_streaming else _USUAL_OUTPUT_TOKENS
        self.slowness.punish(elapsed_s / expected_s(record.input_bytes, output_tokens), now)

    def observe(self, record: RequestRecord) -> None:
        """An answer has ended (an observer of its record)."""
        self.in_flight -= 1
        if record.usage is not None:
            prompt, cached = prompt_of_chat(record.usage)
            self.prompt_tokens += prompt
            self.cached_tokens += cached

    def expected_ms(self, now: float) -> int | None:
        """The time to first content that a request of 1,000 tokens has to expect; None: not known."""
        if not (self.answered or self.failed):
            return None
        return round(1000 * self.slowness.value(now) * expected_s(_SHOWN_INPUT_BYTES))

    def as_json(self, now: float) -> Json:
        """As `/admin/targets` shows them."""
        return {
            "target": self.label,
            "endpoint": self.endpoint,
            "in_flight": self.in_flight,
            "answered": self.answered,
            "failed": self.failed,
            "first_content_ms": self.expected_ms(now),
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "cached_share": round(self.cached_tokens / self.prompt_tokens, 4) if self.prompt_tokens else None,
        }


class StatisticsRegistry:
    """The statistics of all targets. As clients name models, the least recently used are forgotten.

    `is_complete`: they are kept for all targets, also where no strategy needs them.
    """

    def __init__(self, *, is_complete: bool = False) -> None:
        self._is_complete = is_complete
        self._known: OrderedDict[TargetName, TargetStatistics] = OrderedDict()

    def target(
        self, provider: str, key_number: int, model: str, endpoint: str, label: str, *, is_needed: bool
    ) -> TargetStatistics | None:
        """The statistics of one target at one endpoint; None where nobody wants them."""
        if not (is_needed or self._is_complete):
            return None
        name = (provider, key_number, model, endpoint)
        return recent(self._known, name, lambda: TargetStatistics(label, endpoint))

    def as_json(
        self, now: float, more: Callable[[TargetName], Json] = lambda _: {}, limit: int | None = None
    ) -> list[Json]:
        """Those of the `limit` targets that were used last, and `more` that is known of each."""
        latest = islice(reversed(self._known.items()), limit)
        return [{**statistics.as_json(now), **more(name)} for name, statistics in latest]
