"""What the files of batches cost, in whatever pieces they come, and what is said of a batch's state."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sanic_proxy import errors
from sanic_proxy.config.prices import Prices as Declared
from sanic_proxy.config.prices import ServicePrices
from sanic_proxy.governance import batches
from sanic_proxy.governance.batches import BatchInput, BatchOutput, Counted, Seen, batch_prices, seen_in
from sanic_proxy.governance.estimate import Estimator
from sanic_proxy.governance.leases import ESTIMATED, UNPRICED
from sanic_proxy.governance.prices import FREE, Prices, of_settings

PRICES = of_settings(
    Declared(input=2.0, output=10.0, services={"batch": ServicePrices(input=1.0, output=5.0)}), max_output=100
)


def prices_of(model: str) -> Prices | None:
    return {"m": PRICES, "free": FREE}.get(model)


def asked(model: str = "m", **body: Any) -> bytes:
    fields = {"model": model, "messages": [{"role": "user", "content": "Hi"}], **body}
    return json.dumps({"custom_id": "1", "body": fields}).encode() + b"\n"


def answered(given_tokens: int, made: int, **more: Any) -> bytes:
    usage = {"prompt_tokens": given_tokens, "completion_tokens": made}
    body = {"model": "m", "usage": usage, "service_tier": "default", **more}
    return json.dumps({"response": {"status_code": 200, "body": body}}).encode() + b"\n"


def reading(*, is_strict: bool = False, strict: str = "", **more: bool) -> BatchInput:
    """`strict` is the only model with a strict budget, unless all have one."""

    def counted(model: str) -> Counted:
        return Counted(model != "without", is_strict or model == strict)

    return BatchInput("c", Estimator(), prices_of, counted, max_image_tokens=1000, **more)


FILE = asked(max_tokens=10) + asked() + b"\n" + asked("free") + asked(n=2, max_tokens=7)[:-1]


@given(st.lists(st.integers(0, len(FILE)), max_size=8))
def test_an_input_file_costs_the_same_in_any_pieces(cuts: list[int]) -> None:
    meter = reading(is_strict=True)
    ends = sorted({0, *cuts, len(FILE)})
    for start, end in pairwise(ends):
        meter.feed(FILE[start:end])
    meter.end()
    tokens = sum(len(line) for line in FILE.split(b"\n") if b"free" not in line)
    assert meter.nano == tokens * 1000 + (10 + 100 + 2 * 7) * 5000
    assert (meter.requests, meter.models) == (4, ("m", "free"))


def test_an_estimate_is_less_than_the_most() -> None:
    usual, strict, embedding = (
        reading(is_strict=False),
        reading(is_strict=True),
        reading(is_strict=True, has_output=False),
    )
    for meter in (usual, strict, embedding):
        meter.feed(asked(max_tokens=50))
        meter.end()
        assert meter.models == ("m",)
    assert 0 < usual.nano < strict.nano
    assert embedding.nano == (len(asked(max_tokens=50)) - 1) * 1000


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"[]", errors.InvalidRequest),
        (b'{"body": []}', errors.InvalidRequest),
        (b'{"body": {"model": 1}}', errors.InvalidRequest),
        (b"{", errors.InvalidRequest),
        (asked("m\0"), errors.InvalidRequest),
        (b"\xff", errors.InvalidRequest),
        (b'{"body": {"model": "\\ud800"}}', errors.InvalidRequest),
        (asked("unknown"), errors.Forbidden),
    ],
)
def test_lines_that_cannot_be_priced_are_refused(line: bytes, error: type[Exception]) -> None:
    meter = reading(is_strict=False)
    with pytest.raises(error):
        meter.feed(line + b"\n")


def test_a_model_without_a_budget_needs_no_price() -> None:
    meter = reading()
    meter.feed(asked("without"))
    meter.end()
    assert (meter.nano, meter.models) == (0, ("without",))


def test_models_with_strict_budgets_are_alone() -> None:
    meter = reading(strict="m")
    meter.feed(asked() + asked("free"))
    with pytest.raises(errors.InvalidRequest, match="create one for each model"):
        meter.end()


def test_a_batch_has_a_limited_number_of_models() -> None:
    meter = BatchInput("c", Estimator(), lambda _: PRICES, lambda _: Counted(True, False), max_image_tokens=0)
    for number in range(batches.MAX_MODELS):
        meter.feed(asked(f"m{number}"))
    meter.feed(asked("m0"))
    with pytest.raises(errors.InvalidRequest, match="more than"):
        meter.feed(asked("another"))


def test_a_line_that_takes_long_to_parse_is_refused() -> None:
    line = b'{"body": {"model": "m", "x": [' + b'{"": 1}, ' * 300_000 + b"1]}}\n"
    with pytest.raises(errors.InvalidRequest, match=r"Request 1 .* too many parts"):
        reading(is_strict=False).feed(line)


def test_a_line_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MAX_LINE_BYTES", 100)
    meter = reading(is_strict=False)
    meter.feed(b"x" * 100)
    with pytest.raises(errors.InvalidRequest):
        meter.feed(b"x")
    output = BatchOutput("m", 1_000_000, prices_of)
    for _ in range(4):
        output.feed(b"x" * 50)
    assert output.settlement(1).nano == 1_000_000


BATCH = {"object": "batch", "id": "b"}
COMPLETED = {**BATCH, "status": "completed"}
OUTPUT = answered(10, 20) + b'{"response": null, "error": {"code": "x"}}\n' + answered(1, 2)


@given(st.lists(st.integers(0, len(OUTPUT)), max_size=8))
def test_an_output_file_costs_the_same_in_any_pieces(cuts: list[int]) -> None:
    output = BatchOutput("m", 5, prices_of)
    ends = sorted({0, *cuts, len(OUTPUT)})
    for start, end in pairwise(ends):
        output.feed(OUTPUT[start:end])
    found = output.settlement(7)
    assert (found.nano, found.flags, found.ended_ms) == (11 * 1000 + 22 * 5000, 0, 7)
    assert (found.input, found.output, found.price) == (11, 22, "settings")


def test_answers_of_several_models_cost_their_own_prices() -> None:
    output = BatchOutput("", 0, prices_of)
    output.feed(answered(10, 0) + answered(10, 0, model="free"))
    assert output.settlement(0)[:4] == (10_000, "batch_completed", 0, 0)
    output.feed(answered(10, 0, model="unknown"))
    assert output.settlement(0).flags == UNPRICED


@pytest.mark.parametrize(
    ("line", "nano", "flags"),
    [
        (b'{"response": {"status_code": 500, "body": {}}}', 10_000, 0),
        (b"{}", 10_000, 0),
        (b'{"response": {"status_code": 200, "body": {}}}', 20_000, ESTIMATED),
        (b'{"response": 1}', 20_000, ESTIMATED),
        (b"no JSON", 20_000, ESTIMATED),
    ],
)
def test_what_is_not_known_costs_what_was_reserved(line: bytes, nano: int, flags: int) -> None:
    output = BatchOutput("m", 20_000, prices_of)
    output.feed(answered(10, 0) + line)
    found = output.settlement(0)
    assert (found.nano, found.flags) == (nano, flags)


def test_a_model_without_prices_of_batches_costs_as_usual() -> None:
    plain = of_settings(Declared(input=2.0))
    assert batch_prices(plain) == plain
    assert batch_prices(None) is None
    assert batch_prices(FREE) is FREE
    found = batch_prices(PRICES)
    assert found is not None
    assert found.band(1).rates["input"] == 10**9


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        (
            {**BATCH, "status": "in_progress"},
            [Seen("b", "in_progress", "", False, 86400)],
        ),
        (
            {**BATCH, "status": "completed", "output_file_id": "f", "completion_window": "7d"},
            [Seen("b", "completed", "f", True, 604_800)],
        ),
        (COMPLETED, [Seen("b", "completed", "", False, 86400)]),
        ({**COMPLETED, "request_counts": {"completed": 1}}, [Seen("b", "completed", "", False, 86400)]),
        ({**COMPLETED, "request_counts": {"completed": 0}}, [Seen("b", "completed", "", True, 86400)]),
        ({**COMPLETED, "request_counts": {"total": 0}}, [Seen("b", "completed", "", True, 86400)]),
        ({**BATCH, "status": "failed"}, [Seen("b", "failed", "", True, 86400)]),
        (
            {**BATCH, "status": "expired", "request_counts": {"completed": 1, "total": 2}},
            [Seen("b", "expired", "", False, 86400)],
        ),
        ({"object": "list", "data": [{"object": "batch", "id": "b"}, 1]}, [Seen("b", "", "", False, 86400)]),
        ({"object": "list", "data": 1}, []),
        ({"object": "batch", "id": 1}, []),
        ({"object": "batch", "id": "b" * 129}, []),
        ({"object": "file", "id": "b"}, []),
        ([], []),
    ],
)
def test_states_of_batches(answer: object, seen: list[Seen]) -> None:
    assert seen_in(answer) == seen
