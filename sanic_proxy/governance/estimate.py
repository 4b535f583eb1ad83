"""What a request will use, before it is sent. Pure, but for what an `Estimator` remembers.

By default an estimate is near what the request will use: its bytes by the ratio of tokens that the last
answer to the same client and model had, and as much output as the client's recent answers of that model. A
client's `max_tokens` alone would not do: agents send 128,000, and a small budget would be refused at once.

`strict` estimates cannot be exceeded: a token has at least one byte of the body, an image at most what the
vendor documents, and the output ends at `max_tokens`, or at the model's maximum without it. Every token has
the dearest price that it can have. What servers add while they answer (results of searches) is in neither.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

from sanic_proxy.errors import InvalidRequest
from sanic_proxy.governance.cost import MAX_COST_NANO
from sanic_proxy.governance.prices import MILLION, Prices
from sanic_proxy.governance.units import Units
from sanic_proxy.json_types import JsonMapping
from sanic_proxy.openai.usage import whole

BYTES_PER_TOKEN = 4
# What an image of usual size is counted as: https://platform.claude.com/docs/en/build-with-claude/vision
IMAGE_TOKENS = 1600
# The output of a client whose answers of a model are not known yet.
FIRST_OUTPUT_TOKENS = 4096
# The prompt that vendors add for tools: https://platform.claude.com/docs/en/agents-and-tools/tool-use/overview
# has 804 as the most.
TOOLS_TOKENS = 1024
RECENT = 100
MAX_PAIRS = 4096
_LONG_CHARS = 512
# Without any of these in its body, a request has no files: its long texts are text.
_MEDIA_MARKS = (b"base64", b'"image', b'"input_image', b'"input_audio', b'"inline', b'"file', b'"document"')


class Tokens(NamedTuple):
    """Tokens of the input and of the output, of all choices together."""

    input: int
    output: int


@dataclass(slots=True)
class Asked:
    """What of a request decides its cost.

    `text_bytes` are those of the body without encoded files, which have `media_bytes`; `images` is the number
    of images in either form, as data or as an address. `max_tokens` is the client's limit for each of
    `choices` answers, None: it set none. `service_tier` is the tier it asks for. `has_tools`, `has_audio`: it
    has such parts; `writes_media`: it asks for an answer that is no text. `caches_for_hour`: it may write
    to a cache for an hour. `refers`: it names content that is stored elsewhere (an earlier response, a
    file), so its bytes do not bound its input. `has_output` is False for embeddings and the like. `units` are
    what it asks for of a piece that is billed; None: it is billed by its tokens alone.
    """

    text_bytes: int
    media_bytes: int = 0
    images: int = 0
    max_tokens: int | None = None
    choices: int = 1
    service_tier: str = ""
    has_tools: bool = False
    has_audio: bool = False
    writes_media: bool = False
    caches_for_hour: bool = False
    refers: bool = False
    has_output: bool = True
    units: Units | None = None


def asked_of(body: bytes, fields: JsonMapping, *, has_output: bool = True) -> Asked:
    """Read a request, whose parsed JSON is `fields`. Values of wrong types count as not set."""
    asked = Asked(len(body))
    asked.has_output = has_output
    if not _TOKEN_LIMITS.isdisjoint(fields):
        asked.max_tokens = (
            whole(fields.get("max_completion_tokens"))
            or whole(fields.get("max_tokens"))
            or whole(fields.get("max_output_tokens"))
            or None
        )
    if not _RARE.isdisjoint(fields):
        _read_rare(asked, fields)
    _read_content(asked, body, fields)
    return asked


_TOKEN_LIMITS = frozenset({"max_completion_tokens", "max_tokens", "max_output_tokens"})
_RARE = frozenset(
    {
        *("service_tier", "serviceTier", "tools", "best_of", "n", "modalities", "generationConfig"),
        *("prompt", "previous_response_id", "conversation", "cachedContent", "cached_content"),
    }
)


def _read_rare(asked: Asked, fields: JsonMapping) -> None:
    config = fields.get("generationConfig")
    gemini = config if isinstance(config, dict) else {}
    asked.max_tokens = asked.max_tokens or whole(gemini.get("maxOutputTokens")) or None
    asked.choices = (
        whole(fields.get("best_of")) or whole(fields.get("n")) or whole(gemini.get("candidateCount")) or 1
    )
    tier = fields.get("service_tier", fields.get("serviceTier"))
    asked.service_tier = tier.lower() if isinstance(tier, str) else ""
    tools = fields.get("tools")
    asked.has_tools = bool(tools)
    if isinstance(tools, list):
        asked.caches_for_hour = any(
            isinstance(tool, dict) and isinstance(cache := tool.get("cache_control"), dict) and "ttl" in cache
            for tool in tools
        )
    asked.writes_media = "modalities" in fields or "responseModalities" in gemini or _makes_images(tools)
    asked.refers = any(fields.get(name) for name in _REFERENCES) or isinstance(fields.get("prompt"), dict)


# Responses' histories and Gemini's caches. A `prompt` with an id is a template that OpenAI stores.
_REFERENCES = ("previous_response_id", "conversation", "cachedContent", "cached_content")


def _makes_images(tools: object) -> bool:
    """Whether the model may call the tool with which OpenAI's Responses make images."""
    return isinstance(tools, list) and any(
        isinstance(tool, dict) and tool.get("type") == "image_generation" for tool in tools
    )


def _read_content(asked: Asked, body: bytes, fields: JsonMapping) -> None:
    """Read the encoded files, the images and the like in a request of any API.

    A file is a long text without spaces, in base64 or as a `data:` URL; an image is an object that has the
    word in its type or media type. A walk through the values costs less than searches in the body, which
    may be long. The schemas of tools hold no content, and are many.
    """
    rest = [value for name, value in fields.items() if name != "tools"]
    encoded_bytes = 0
    while rest:
        value = rest.pop()
        kind = type(value)
        if kind is str:
            if len(value) >= _LONG_CHARS and _is_encoded(value):
                encoded_bytes += len(value)
        elif kind is dict:
            if not _PART_NAMES.isdisjoint(value):
                _read_part(asked, value)
            rest += value.values()
        elif kind is list:
            rest += value
    if encoded_bytes and any(mark in body for mark in _MEDIA_MARKS):
        asked.media_bytes = encoded_bytes
        asked.text_bytes = max(0, len(body) - encoded_bytes)


def _read_part(asked: Asked, part: JsonMapping) -> None:
    kind = part.get("type", part.get("mimeType", part.get("mime_type")))
    if isinstance(kind, str):
        asked.images += kind in _IMAGE_TYPES
        asked.has_audio |= kind == "input_audio" or kind.startswith("audio/")
    asked.refers |= not _FILE_REFERENCES.isdisjoint(part) or _is_linked_document(kind, part)
    asked.caches_for_hour |= "ttl" in part


# The parts of requests that are an image: of chats, Responses, Messages, and Gemini by their media types.
_IMAGE_TYPES = frozenset(
    {
        *("image_url", "input_image", "image"),
        *("image/png", "image/jpeg", "image/webp", "image/heic", "image/heif", "image/gif"),
    }
)


_FILE_REFERENCES = frozenset({"file_id", "file_url", "fileUri", "file_uri"})
_PART_NAMES = _FILE_REFERENCES | {"type", "mimeType", "mime_type", "ttl"}


def _is_linked_document(kind: object, part: JsonMapping) -> bool:
    """Whether a part is a document of Messages that is not in the request itself."""
    source = part.get("source")
    return kind == "document" and isinstance(source, dict) and source.get("type") == "url"


def _is_encoded(text: str) -> bool:
    """Whether a long text is a file in base64, by its first characters behind the head of a data URL."""
    if " " in text[:64]:
        return False
    start = text.find(";base64,", 0, 200) + len(";base64,") if text.startswith("data:") else 0
    sample = text[start : start + 256]
    return sample.isascii() and sample.translate(_NO_BASE64_MARKS).isalnum()


_NO_BASE64_MARKS = str.maketrans("", "", "+/=-_")


class Memory:
    """What one client's answers of one model were like. `usual_output` is the 99th percentile of the recent
    outputs (nearest rank), FIRST_OUTPUT_TOKENS before the first.
    """

    __slots__ = ("_estimator", "_key", "_outputs", "_ratio", "usual_output")

    def __init__(self, estimator: Estimator, key: tuple[str, str]) -> None:
        self._estimator = estimator
        self._key = key
        self._ratio = 1 / BYTES_PER_TOKEN
        self._outputs: deque[int] = deque(maxlen=RECENT)
        self.usual_output = FIRST_OUTPUT_TOKENS

    def tokens(self, asked: Asked, max_output: int | None = None) -> Tokens:
        """What a request will probably use. `max_output` is the model's maximum."""
        given = ceil(asked.text_bytes * self._ratio)
        if asked.images or asked.media_bytes:
            given += asked.images * IMAGE_TOKENS + _file_tokens(asked)
        if not asked.has_output:
            return Tokens(given, 0)
        made = self.usual_output
        for limit in (asked.max_tokens, max_output):
            if limit and (limit < made or not made):
                made = limit
        return Tokens(given, made * asked.choices)

    def observe(self, asked: Asked, given: int, made: int) -> None:
        """Remember that a request has used `given` tokens of input and `made` of output."""
        if not given or not asked.text_bytes:
            return
        outputs = self._outputs
        if not outputs:
            self._estimator.keep(self._key, self)
        if asked.images or asked.media_bytes:
            given -= asked.images * IMAGE_TOKENS + _file_tokens(asked)
        if given > 0:
            ratio = given / asked.text_bytes
            self._ratio = ratio if ratio < 1.0 else 1.0
        made //= asked.choices
        oldest = outputs[0] if len(outputs) == RECENT else None
        outputs.append(made)
        usual = self.usual_output
        # Most outputs are below the usual one and replace one that is: they do not change it.
        if oldest != made and (oldest is None or made >= usual or oldest >= usual):
            self.usual_output = sorted(outputs)[ceil(0.99 * len(outputs)) - 1]


class Estimator:
    """What the answers to each client and model were like, for the latest `MAX_PAIRS`."""

    def __init__(self) -> None:
        self._memories: OrderedDict[tuple[str, str], Memory] = OrderedDict()

    def memory(self, client: str, model: str) -> Memory:
        """The memory of a client and model; a new one is kept when it has observed something."""
        key = client, model
        memory = self._memories.get(key)
        if memory is None:
            return Memory(self, key)
        self._memories.move_to_end(key)
        return memory

    def keep(self, key: tuple[str, str], memory: Memory) -> None:
        """Find `memory` by `key` from now on."""
        self._memories[key] = memory
        self._memories.move_to_end(key)
        if len(self._memories) > MAX_PAIRS:
            self._memories.popitem(last=False)


def _file_tokens(asked: Asked) -> int:
    """Encoded files that are no images: documents and sound. A token per 25 bytes, as for documents."""
    return 0 if asked.images else asked.media_bytes // 25


def estimated_cost(tokens: Tokens, asked: Asked, prices: Prices | None) -> int | None:
    """What a request will probably cost, in nano-dollars; None if its tokens have no known price.

    At most MAX_COST_NANO: a client may ask for any number of answers, and the ledger counts in 64 bits.
    """
    if prices is None or (pieces := _pieces(asked, prices)) is None:
        return None
    rates = prices.band(tokens.input, _tiers(asked, prices)[-1]).rates
    nano = tokens.input * rates.get("input", 0) + tokens.output * rates.get("output", 0)
    return min(-(-(nano + pieces) // MILLION), MAX_COST_NANO)


def _pieces(asked: Asked, prices: Prices) -> int | None:
    """What a request costs beside its tokens, in nano-dollars for a million such; None: not known."""
    units = 0
    if asked.units is not None:
        found = asked.units.price(prices)
        if found is None:
            return None
        units = found
    elif not prices.has_rates:
        return None
    return units + prices.pieces.get("request", 0)


def strict_tokens(
    asked: Asked, max_output: int | None, max_image_tokens: int, max_input: int | None = None
) -> Tokens:
    """The most that a request can use. `max_output` and `max_input` are the model's maximum.

    Raises InvalidRequest if its input or its output has no limit: neither the request nor the settings state
    one.
    """
    if asked.refers and not max_input:
        raise InvalidRequest(
            "This key has a strict budget, and the request refers to content that is stored elsewhere, whose "
            "size is not known: send the content itself. The operator can set `context_window` of the model"
        )
    given = asked.text_bytes + asked.images * max_image_tokens + asked.has_tools * TOOLS_TOKENS
    if not asked.images:
        given += asked.media_bytes
    if asked.refers:
        given = max(given, max_input or 0)
    if not asked.has_output:
        return Tokens(given, 0)
    if not (limit := asked.max_tokens or max_output):
        raise InvalidRequest(
            "This key has a strict budget, so the cost of a request must have a limit: set `max_tokens`. "
            "The operator can set `max_output` of the model or target instead",
            param="max_tokens",
        )
    return Tokens(given, limit * asked.choices)


def strict_cost(tokens: Tokens, asked: Asked, prices: Prices | None) -> int | None:
    """The most that `tokens` can cost, in nano-dollars up to MAX_COST_NANO; None if prices are not known.

    The dearest of all prices that the request may have counts: of cached or uncached input, of any tier up
    to its length, of the service tiers that it can get.
    """
    if prices is None or (pieces := _pieces(asked, prices)) is None:
        return None
    most = 0
    lengths = {tokens.input, *(band.above for band in prices.bands if 0 < band.above < tokens.input)}
    for tier in _tiers(asked, prices):
        for length in lengths:
            rates = prices.band(length, tier).rates
            given = max(rates.get(name, 0) for name in _input_rates(asked))
            made = max(rates.get(name, 0) for name in _output_rates(asked))
            most = max(most, tokens.input * given + tokens.output * made)
    factor = max((1000, *prices.regions.values()))
    nano = -(-most * factor // (1000 * MILLION)) - (-pieces // MILLION)
    return min(nano, MAX_COST_NANO)


def _input_rates(asked: Asked) -> list[str]:
    names = ["input", "cache_write"]
    if asked.caches_for_hour:
        names.append("cache_write_1h")
    if asked.has_audio:
        names.append("audio_input")
    if asked.images:
        names.append("image_input")
    return names


def _output_rates(asked: Asked) -> list[str]:
    return ["output", "reasoning", *(("audio_output", "image_output") if asked.writes_media else ())]


def _tiers(asked: Asked, prices: Prices) -> list[str]:
    """The service tiers in which a request may be served, the one that it asks for last.

    Vendors may serve what asks for a tier in the standard one. "auto" is what the account is set to.
    """
    tier = "priority" if asked.service_tier == "auto" else asked.service_tier
    has_own = any(band.service == tier for band in prices.bands)
    return ["", tier] if tier and has_own else [""]
