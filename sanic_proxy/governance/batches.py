"""What batches will cost and have cost: their input and output files, and what is said of their state. Pure.

A batch is a file of requests, a JSON object per line, that a provider answers within hours, for less, in
another such file: https://platform.openai.com/docs/guides/batch. Its cost is what its requests cost, by the
prices of the service tier `batch`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from operator import add
from typing import NamedTuple

from sanic_proxy import errors
from sanic_proxy.governance.cost import MAX_COST_NANO, cost
from sanic_proxy.governance.estimate import (
    Estimator,
    asked_of,
    estimated_cost,
    strict_cost,
    strict_tokens,
)
from sanic_proxy.governance.leases import ESTIMATED, UNPRICED, Settlement
from sanic_proxy.governance.prices import FREE, Prices
from sanic_proxy.governance.usage import Usage
from sanic_proxy.json_types import JsonMapping
from sanic_proxy.openai import codec
from sanic_proxy.openai.usage import recorded_passthrough

# A batch whose `completion_window` cannot be read may take a day, as OpenAI's do.
USUAL_WINDOW_S = 86_400.0
# For so long after its window the output of a batch is expected to be fetched: OpenAI deletes it then.
RETENTION_S = 30 * 86_400.0
MAX_LINE_BYTES = 32 * 2**20
MAX_ID_CHARS = 128
# Each may have limits of its own, and prices that are kept while the file is read.
MAX_MODELS = 64
SERVICE = "batch"
_UNITS_S = {"m": 60, "h": 3600, "d": 86_400}
# States of a batch that has ended, and of which nothing more is to come.
_OVER = frozenset({"completed", "failed", "expired", "cancelled"})

PricesOf = Callable[[str], Prices | None]


class Counted(NamedTuple):
    """Whether the requests for a model count in a budget of money, and in one that may not be exceeded."""

    has_money: bool
    is_strict: bool


class Seen(NamedTuple):
    """What a batch object says. `output` is the id of its output file; "": it has none.

    `is_over`: it has ended, and a batch without output has then used nothing; one whose output is missing is
    not over. `window_s` is how long it may
    take.
    """

    id: str
    status: str
    output: str
    is_over: bool
    window_s: float


def seen_in(answer: object) -> list[Seen]:
    """The batches that an answer describes: one, or a list of them."""
    if not isinstance(answer, dict):
        return []
    described = answer.get("data") if answer.get("object") == "list" else [answer]
    return [seen for each in described if (seen := _seen(each))] if isinstance(described, list) else []


def _seen(described: object) -> Seen | None:
    if not isinstance(described, dict) or described.get("object") != "batch":
        return None
    id_, status, output = (described.get(name) for name in ("id", "status", "output_file_id"))
    if not isinstance(id_, str) or not 0 < len(id_) <= MAX_ID_CHARS or not id_.isascii():
        return None
    status = status if isinstance(status, str) else ""
    output = output if isinstance(output, str) else ""
    is_over = status in _OVER and bool(output or _used_nothing(status, described.get("request_counts")))
    return Seen(id_, status[:32], output, is_over, _seconds(described.get("completion_window")))


def _used_nothing(status: str, counts: object) -> bool:
    """Whether a batch without output has answered no request; of a completed one, its counts have to say so.

    https://platform.openai.com/docs/api-reference/batch/object
    """
    completed, total = (
        (counts.get("completed"), counts.get("total")) if isinstance(counts, dict) else (None, None)
    )
    return completed == 0 or total == 0 or (completed is None and status != "completed")


def _seconds(window: object) -> float:
    """`24h` -> 86400.0"""
    if isinstance(window, str) and window[:-1].isdecimal() and window[-1:] in _UNITS_S and len(window) < 6:
        return float(int(window[:-1]) * _UNITS_S[window[-1]])
    return USUAL_WINDOW_S


def batch_prices(prices: Prices | None) -> Prices | None:
    """The prices of a model in batches, as its only ones; its usual ones where it has no others."""
    if prices is None or prices is FREE:
        return prices
    own = tuple(replace(band, service="") for band in prices.bands if band.service == SERVICE)
    return replace(prices, bands=own) if own else prices


class _Lines:
    """Pieces of a file -> its lines. Raises ValueError for one of more than MAX_LINE_BYTES."""

    __slots__ = ("_begun", "_size")

    def __init__(self) -> None:
        self._begun: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        *lines, rest = data.split(b"\n")
        for line in lines:
            yield b"".join((*self._begun, line))
            self._begun.clear()
            self._size = 0
        if rest:
            self._begun.append(rest)
            self._size += len(rest)
            if self._size > MAX_LINE_BYTES:
                raise ValueError

    def end(self) -> bytes:
        return b"".join(self._begun)


class BatchInput:
    """The requests of an input file, fed in pieces: `nano` is what they will cost, at most if strict.

    `prices_of` knows the prices of a model in batches, and `counted` its budgets. `models` are those of the
    requests. `feed` and `end` raise InvalidRequest for lines that are no requests, or have no limit where
    they need one, and Forbidden for a model with a budget and without a price. As the budget of a model
    counts the whole batch, they raise InvalidRequest for one of several models if only some are strict.
    """

    __slots__ = (
        "_client",
        "_counted",
        "_estimator",
        "_has_output",
        "_image_tokens",
        "_lines",
        "_models",
        "_prices",
        "_prices_of",
        "nano",
        "requests",
    )

    def __init__(
        self,
        client: str,
        estimator: Estimator,
        prices_of: PricesOf,
        counted: Callable[[str], Counted],
        *,
        max_image_tokens: int,
        has_output: bool = True,
    ) -> None:
        self._client = client
        self._estimator = estimator
        self._prices_of = prices_of
        self._prices: dict[str, Prices | None] = {}
        self._image_tokens = max_image_tokens
        self._counted = counted
        self._has_output = has_output
        self._lines = _Lines()
        self._models: dict[str, Counted] = {}
        self.nano = 0
        self.requests = 0

    def feed(self, data: bytes) -> None:
        """Read a piece of the file."""
        try:
            for line in self._lines.feed(data):
                self._count(line)
        except ValueError:
            raise errors.InvalidRequest(
                f"A line of the batch's input file has more than {MAX_LINE_BYTES} bytes",
                param="input_file_id",
            ) from None

    def end(self) -> None:
        """The file is complete."""
        self._count(self._lines.end())
        if len({counted.is_strict for counted in self._models.values()}) > 1:
            raise errors.InvalidRequest(
                "The batch names several models, and only some of them have a strict budget: create one "
                "for each model",
                param="input_file_id",
            )

    @property
    def models(self) -> tuple[str, ...]:
        """See the class."""
        return tuple(self._models)

    def _count(self, line: bytes) -> None:
        if not line or line.isspace():
            return
        self.requests += 1
        try:
            fields = codec.loads_strict(line)  # a client's: it may not take the worker long
        except errors.InvalidRequest as exc:
            raise errors.InvalidRequest(
                f"Request {self.requests} of the batch's input file cannot be read: {exc.message}",
                param="input_file_id",
            ) from None
        body = fields.get("body") if isinstance(fields, dict) else None
        model = body.get("model") if isinstance(body, dict) else None
        if not isinstance(body, dict) or not isinstance(model, str) or not (model and model.isprintable()):
            raise errors.InvalidRequest(
                f"Request {self.requests} of the batch's input file has no `body` with a `model`",
                param="input_file_id",
            )
        model = model[:256]
        if model not in self._models:
            if len(self._models) == MAX_MODELS:
                raise errors.InvalidRequest(
                    f"The batch names more than {MAX_MODELS} models", param="input_file_id"
                )
            self._models[model] = self._counted(model)
            self._prices[model] = self._priced(model)
        self.nano = min(self.nano + self._cost(line, body, model), MAX_COST_NANO)

    def _cost(self, line: bytes, body: JsonMapping, model: str) -> int:
        prices = self._prices[model]
        if prices is None or prices is FREE:
            return 0
        asked = replace(asked_of(line, body, has_output=self._has_output), service_tier="")
        if self._models[model].is_strict:
            limit = strict_tokens(asked, prices.max_output, self._image_tokens, prices.max_input)
            return strict_cost(limit, asked, prices) or 0
        tokens = self._estimator.memory(self._client, model).tokens(asked, prices.max_output)
        return estimated_cost(tokens, asked, prices) or 0

    def _priced(self, model: str) -> Prices | None:
        prices = batch_prices(self._prices_of(model))
        if prices is None or not prices.has_rates:
            if not self._models[model].has_money:
                return None
            raise errors.Forbidden(
                f"The price of {model} is not known, and this key has a budget: the operator can set "
                "`prices` for the model or target",
                code="price_unknown",
            )
        return prices


class BatchOutput:
    """The answers in an output file, fed in pieces: what they have cost.

    `model` is the one that all requests have named; "": each answer's own. `reserved` is what counts where
    the usage of an answer is not known.
    """

    __slots__ = (
        "_flags",
        "_is_whole",
        "_lines",
        "_model",
        "_nano",
        "_prices",
        "_prices_of",
        "_reserved",
        "_sums",
    )

    def __init__(self, model: str, reserved: int, prices_of: PricesOf) -> None:
        self._model = model
        self._reserved = reserved
        self._prices_of = prices_of
        self._prices: dict[str, Prices | None] = {}
        self._lines = _Lines()
        self._nano = self._flags = 0
        self._sums = (0, 0, 0, 0, 0)
        self._is_whole = True

    def feed(self, data: bytes) -> None:
        """Read a piece of the file. Raises nothing: the file is the client's, whatever it holds."""
        if self._is_whole:
            try:
                for line in self._lines.feed(data):
                    self._count(line)
            except ValueError:
                self._is_whole = False

    def settlement(self, now_ms: int) -> Settlement:
        """What the batch has cost, once the file is complete. It may hold no line that is not understood."""
        self._count(self._lines.end())
        nano, flags = self._nano, self._flags
        if not self._is_whole:
            nano, flags = max(nano, self._reserved), flags | ESTIMATED
        found = next(filter(None, self._prices.values()), None)
        source = "" if found is None else found.source[:64]
        return Settlement(nano, "batch_completed", now_ms, flags, *self._sums, source)

    def _count(self, line: bytes) -> None:
        if not line or line.isspace():
            return
        answer = codec.loads_tolerant(line)
        response = answer.get("response") if isinstance(answer, dict) else None
        if isinstance(answer, dict) and response is None:
            return  # an error: it is not billed
        status = response.get("status_code") if isinstance(response, dict) else None
        body = response.get("body") if isinstance(response, dict) else None
        if isinstance(status, int) and status >= 400:
            return
        recorded = recorded_passthrough(body) if isinstance(body, dict) else None
        if not isinstance(body, dict) or recorded is None:
            self._is_whole = False
            return
        used = Usage.of(recorded)._replace(service_tier="")
        nano, is_known = cost(used, self._prices_for(body.get("model")))
        self._nano = min(self._nano + nano, MAX_COST_NANO)
        self._flags |= 0 if is_known else UNPRICED
        counts = (
            used.input_tokens,
            used.cached_input,
            used.cache_write + used.cache_write_1h,
            used.output_tokens,
            used.reasoning,
        )
        given, cached, written, made, reasoning = map(add, self._sums, counts)
        self._sums = given, cached, written, made, reasoning

    def _prices_for(self, answered: object) -> Prices | None:
        model = self._model or (answered if isinstance(answered, str) else "")
        if model not in self._prices:
            self._prices[model] = batch_prices(self._prices_of(model))
        return self._prices[model]
