"""What a request has used, in parts of which each has one price. Pure.

APIs count in overlapping sums, and not in the same ones:

| sum | includes |
|---|---|
| `prompt_tokens` (OpenAI), `promptTokenCount` (Gemini) | cached tokens, audio, images |
| `input_tokens` (Anthropic) | neither cached tokens nor cache writes |
| `completion_tokens` (OpenAI) | reasoning, audio, images; at some vendors no reasoning |
| `candidatesTokenCount` (Gemini) | no thoughts |

The readers of each API (`openai.usage`, `openai.responses`, `streams.messages_usage`, `streams.gemini_usage`)
make them one form, that of a chat, in `RequestRecord.usage`; `Usage.of` splits it into disjoint parts. Every
token that is reported is in exactly one of them, whatever the provider has reported.
"""

from __future__ import annotations

from decimal import Decimal
from math import ceil
from typing import NamedTuple

from sanic_proxy.json_types import JsonMapping
from sanic_proxy.openai import responses
from sanic_proxy.openai import usage as counted
from sanic_proxy.openai.usage import whole

NANO = 10**9
# Larger counts are no counts. Keeps sums within 64 bits.
MAX_TOKENS = 10**10
_MAX_CALLS = 10**6
_PLAIN = frozenset(
    {
        *("prompt_tokens", "completion_tokens", "total_tokens"),
        *("prompt_tokens_details", "completion_tokens_details"),
    }
)
_MAX_COST = 10**9  # of the provider's units
_XAI_TICKS_PER_DOLLAR = 10**10


class Usage(NamedTuple):
    """Disjoint counts of tokens, and of what else is billed.

    `input` and `output` are text that has no other price: `input` is not cached, `output` is no reasoning.
    `cache_write` is kept for five minutes, `cache_write_1h` for an hour. `web_searches`, `file_searches` and
    `code_sessions` are calls of tools that the provider runs itself, `images` whole images that were made,
    `seconds` the length of sound that was read, `characters` the text that was spoken, `search_units`
    searches in up to 100 documents. `service_tier` is the tier that the answer was served with;
    "": the standard one, or not reported. `region` is reported where it has a price. `reported_cost_nano` is
    what the provider says that the request cost, in billionths of its own unit; None: it did not say.
    `image_quality` and `image_size` are what was asked for.
    """

    input: int = 0
    cached_input: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    audio_input: int = 0
    image_input: int = 0
    output: int = 0
    reasoning: int = 0
    audio_output: int = 0
    image_output: int = 0
    web_searches: int = 0
    file_searches: int = 0
    code_sessions: int = 0
    images: int = 0
    seconds: int = 0
    service_tier: str = ""
    region: str = ""
    reported_cost_nano: int | None = None
    characters: int = 0
    search_units: int = 0
    image_quality: str = ""
    image_size: str = ""

    @property
    def input_tokens(self) -> int:
        """All tokens of the input, cached ones included."""
        return (
            self.input
            + self.cached_input
            + self.cache_write
            + self.cache_write_1h
            + self.audio_input
            + self.image_input
        )

    @property
    def output_tokens(self) -> int:
        """All tokens of the output, reasoning included."""
        return self.output + self.reasoning + self.audio_output + self.image_output

    @property
    def tokens(self) -> int:
        """All tokens, as limits of tokens per minute count them."""
        return self.input_tokens + self.output_tokens

    @property
    def is_empty(self) -> bool:
        """Whether nothing that is billed has been counted; no answer with tokens has a prompt of none."""
        return not (
            self.tokens
            or any((self.web_searches, self.file_searches, self.code_sessions, self.search_units))
            or any((self.images, self.seconds, self.characters, self.reported_cost_nano))
        )

    @classmethod
    def of(cls, recorded: JsonMapping) -> Usage:
        """Of a record's `usage`. Values of other types than expected count as nothing; never raises."""
        if (plain := _plain(recorded)) is not None:
            return plain
        tokens = _tokens(recorded)
        # A part that is larger than its sum cannot be in it: the server counts it apart.
        cached, written = _bounded(tokens.cached), _bounded(tokens.cache_write)
        total = _bounded(tokens.input)
        given = _Parts(total if cached + written <= total else total + cached + written)
        hour = given.take(min(_bounded(tokens.cache_write_1h), written))
        five_minutes = given.take(written - hour)
        audio, images = given.take(_bounded(tokens.audio_input)), given.take(_bounded(tokens.image_input))
        reasoning, total = _bounded(tokens.reasoning), _bounded(tokens.output)
        made = _Parts(total if reasoning <= total else total + reasoning)
        tools = recorded.get("server_tool_use")
        calls = tools if isinstance(tools, dict) else {}
        # Keywords in another order than the fields: what is taken first of a sum is the dearest.
        return cls(
            cache_write_1h=hour,
            cache_write=five_minutes,
            audio_input=audio,
            image_input=images,
            cached_input=given.take(cached),
            input=given.rest,
            reasoning=made.take(reasoning),
            audio_output=made.take(_bounded(tokens.audio_output)),
            image_output=made.take(_bounded(tokens.image_output)),
            output=made.rest,
            web_searches=_bounded(calls.get("web_search_requests"), _MAX_CALLS),
            file_searches=_bounded(calls.get("file_search_requests"), _MAX_CALLS),
            code_sessions=_bounded(calls.get("code_interpreter_sessions"), _MAX_CALLS),
            images=_bounded(recorded.get("images"), _MAX_CALLS),
            seconds=_seconds(recorded.get("seconds")),
            service_tier=_tier(recorded.get("service_tier")),
            region=_tier(recorded.get("region")),
            reported_cost_nano=_cost(recorded),
            characters=_bounded(recorded.get("characters")),
            search_units=_bounded(recorded.get("search_units"), _MAX_CALLS),
            image_quality=_tier(recorded.get("image_quality")),
            image_size=_tier(recorded.get("image_size")),
        )


NOTHING = Usage()
# A tuple's own constructor: that of a NamedTuple is a function in Python, which costs as much again.
_new = tuple.__new__


_OUTPUT = Usage._fields.index("output")
_BEFORE_OUTPUT, _BEHIND_OUTPUT = NOTHING[1:_OUTPUT], NOTHING[_OUTPUT + 1 :]


class PlainUsage(Usage):
    """A usage with nothing but uncached text as input and text as output, as most answers have it."""

    __slots__ = ()


def _plain(recorded: JsonMapping) -> PlainUsage | None:
    """The usage of a chat that reports nothing else than its sums, or nothing but zeros beside them."""
    given, made = recorded.get("prompt_tokens"), recorded.get("completion_tokens")
    if not (
        type(given) is type(made) is int
        and 0 <= given <= MAX_TOKENS
        and 0 <= made <= MAX_TOKENS
        and _PLAIN.issuperset(recorded)
    ):
        return None
    prompt, completion = recorded.get("prompt_tokens_details"), recorded.get("completion_tokens_details")
    if prompt and (type(prompt) is not dict or any(prompt.values())):
        return None
    if completion and (type(completion) is not dict or any(completion.values())):
        return None
    return _new(PlainUsage, (given, *_BEFORE_OUTPUT, made, *_BEHIND_OUTPUT))


class _Parts:
    """A sum that is split. `take` removes as much of it as is left."""

    __slots__ = ("rest",)

    def __init__(self, total: int) -> None:
        self.rest = total

    def take(self, tokens: int) -> int:
        taken = min(tokens, self.rest)
        self.rest -= taken
        return taken


def _tokens(recorded: JsonMapping) -> counted.Usage:
    """Tokens in the form of a chat, or in that of images, transcriptions and responses."""
    if "prompt_tokens" in recorded or "completion_tokens" in recorded:
        return counted.Usage.of_chat(recorded)
    if "input_tokens" in recorded or "output_tokens" in recorded:
        details = recorded.get("input_tokens_details", recorded.get("input_token_details"))
        return responses.read_usage({**recorded, "input_tokens_details": details})
    return counted.Usage(input=whole(recorded.get("total_tokens")))


def _bounded(value: object, most: int = MAX_TOKENS) -> int:
    return min(whole(value), most)


def _seconds(value: object) -> int:
    """Begun seconds count as whole ones."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        return 0
    return ceil(min(value, MAX_TOKENS))


# Words for the tier that has no price of its own.
_STANDARD = frozenset({"default", "standard", "auto", "on_demand"})


def _tier(value: object) -> str:
    name = value.lower() if isinstance(value, str) and len(value) <= 32 else ""
    return "" if name in _STANDARD else name


def _cost(recorded: JsonMapping) -> int | None:
    """What the provider reports of its price, in billionths; see `openai.usage.COST_FIELDS`."""
    if (ticks := recorded.get("cost_in_usd_ticks")) is not None:
        return whole(ticks) * NANO // _XAI_TICKS_PER_DOLLAR if isinstance(ticks, int) else None
    cost = recorded.get("cost")
    if isinstance(cost, dict):
        cost = cost.get("total_cost")
    if (nano := _nano(cost)) is None:
        return None
    details = recorded.get("cost_details")
    if recorded.get("is_byok") is True and isinstance(details, dict):
        nano += _nano(details.get("upstream_inference_cost")) or 0
    return nano


def _nano(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_COST:
        return None
    # `str` gives the digits that were sent; a product with a float's error could add a billionth.
    return ceil(Decimal(str(value)) * NANO)
