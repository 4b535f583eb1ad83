"""Counting instructions with callgrind, on small loads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest.bench import instructions
from loadtest.bench.counts import DIALECT_TITLES, TITLES
from loadtest.bench.fixture import Fixture, opened
from loadtest.bench.instructions import Amounts, ContentCounter
from loadtest.bench.load import LoadError
from loadtest.bench.options import ROOT
from tests.support.callgrind import installed, needs_callgrind

SMALL = Amounts(8, 40)


@pytest.fixture
def fixture(tmp_path: Path) -> Iterator[Fixture]:
    with opened(ROOT, ROOT, tmp_path) as started:
        yield started


def test_the_total_is_the_sum_over_the_threads() -> None:
    output = "PID 7: python\n\n  Totals:      Ir \n   Th 1  1,419,023 \n   Th 12      977 \n"
    assert instructions.parsed_total(output) == 1_420_000


def test_output_without_totals_is_an_error() -> None:
    with pytest.raises(LoadError, match="no totals: Error: Callgrind task with PID 7 not found"):
        instructions.parsed_total("Error: Callgrind task with PID 7 not found\n")


def test_the_fixed_part_of_a_load_cancels_out() -> None:
    fixed, per_request = 5_000, 300
    few, many = (fixed + per_request * amount for amount in (SMALL.few, SMALL.many))
    assert SMALL.per_unit(few, many) == per_request


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_content_is_counted_wherever_the_stream_is_cut(size: int) -> None:
    stream = b'data: {"text":"w000000 "}\n\ndata: {"delta":"w000001 "}\n\n: ping\n\ndata: "w000002 "\n\n'
    counter = ContentCounter()
    for at in range(0, len(stream), size):
        counter.feed(stream[at : at + size])
    assert counter.count == 3


def test_a_text_that_repeats_all_content_is_not_counted() -> None:
    counter = ContentCounter()
    counter.feed(b'{"delta":"w000000 "}{"delta":"w000001 "}{"text":"w000000 w000001 "}')
    assert counter.count == 2


def test_each_kind_has_a_title() -> None:
    assert set(instructions.BURSTS) == set(TITLES)
    assert set(instructions.ASKED) == set(DIALECT_TITLES)


def test_other_dialects_are_counted_where_they_are_wanted() -> None:
    assert instructions.kinds(dialects=False) == list(TITLES)
    counted = instructions.kinds(dialects=True)
    assert counted[: len(TITLES)] == list(TITLES)
    assert "messages-from-chat/paced" in counted
    assert len(counted) == len(TITLES) * (1 + len(DIALECT_TITLES))


@pytest.mark.slow
@needs_callgrind
def test_the_stock_app_is_counted_for_every_kind(fixture: Fixture) -> None:
    counted = instructions.count_gateway(fixture, "constant", SMALL)
    assert set(counted) == set(TITLES)
    assert counted["whole"] > counted["paced"] > counted["back_to_back"] > 0


@pytest.mark.slow
@needs_callgrind
def test_the_proxy_relays_every_frame_in_lock_step(fixture: Fixture) -> None:
    counted = instructions.count_gateway(fixture, "proxy", SMALL)
    assert counted["whole"] > counted["paced"] > counted["back_to_back"] > 0


@pytest.mark.slow
@needs_callgrind
def test_the_proxy_is_counted_in_every_dialect(fixture: Fixture) -> None:
    counted = instructions.count_gateway(fixture, "proxy", Amounts(2, 12), dialects=True)
    assert list(counted) == instructions.kinds(dialects=True)
    assert all(count > 0 for count in counted.values())


@needs_callgrind
@pytest.mark.skipif(not installed("nginx"), reason="needs nginx")
def test_nginx_is_counted_for_every_kind(fixture: Fixture) -> None:
    counted = instructions.count_gateway(fixture, "nginx", SMALL)
    assert counted["whole"] > counted["paced"] > counted["back_to_back"] > 0


@pytest.mark.slow
@needs_callgrind
def test_a_count_is_repeatable(fixture: Fixture) -> None:
    amounts = Amounts(100, 400)
    counted = [instructions.count_gateway(fixture, "constant", amounts) for _ in range(2)]
    for kind in TITLES:
        assert counted[0][kind] == pytest.approx(counted[1][kind], rel=0.02)
