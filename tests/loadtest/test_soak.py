"""The soak's judgement: what grows, and what an answer came to."""

from __future__ import annotations

import asyncio
import json
import random
import time

import pytest

from loadtest import faults
from loadtest.raw_client import Ended, ended
from loadtest.soak import traffic
from loadtest.soak.__main__ import doubts
from loadtest.soak.starvation import STARVED_MS, STEP_S, LoopLag
from loadtest.soak.traffic import KINDS, STARVED, outcome
from loadtest.soak.trends import BOUNDS, Sample, starved_share, trend, trends, warm

ERROR = faults.error_body()
STREAM = b"".join(faults.stream())


def samples(per_minute: float, noise: float, minutes: int = 5) -> list[Sample]:
    """Memory that grows by so much, with noise that is the same each time."""
    dice = random.Random(1)
    return [
        Sample(at, 100 + per_minute * at / 60 + dice.uniform(-noise, noise), 50, 10, 3, 9.0, 2.0, 1.0)
        for at in range(60 * minutes)
    ]


@pytest.mark.parametrize(
    ("per_minute", "noise", "is_flat"),
    [(0, 0, True), (0.4, 0.1, True), (2, 0.1, False), (2, 1, False), (-3, 0.1, True), (0, 20, True)],
)
def test_what_grows_past_its_bound_and_past_chance_is_not_flat(
    per_minute: float, noise: float, is_flat: bool
) -> None:
    line = trend(samples(per_minute, noise), BOUNDS[0])
    assert line.is_flat is is_flat
    assert abs(line.per_minute - per_minute) <= 3 * line.error + 1e-9
    assert ("flat" in str(line)) is is_flat


def test_the_warm_up_does_not_count() -> None:
    grown = [Sample(at, min(at, 90), 50, 10, 3, 9.0, 2.0, 1.0) for at in range(240)]
    assert warm(grown)[0].at_s == 90
    assert len(warm(grown[:60])) == 30
    assert all(line.is_flat for line in trends(grown))


def test_times_of_starved_samples_do_not_count_and_the_rest_does() -> None:
    grown = [
        Sample(at, 100 + at, 50, 10, 3, 9.0 + 50 * (at % 2) * at, 2.0, 1.0, lag_ms=300.0 * (at % 2))
        for at in range(240)
    ]
    assert {line.bound.field for line in trends(grown) if not line.is_flat} == {"rss_mib"}
    assert starved_share(grown) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("lag_ms", "outcomes", "words"),
    [
        (10.0, {"whole: whole": 9}, []),
        (300.0, {"whole: whole": 9}, ["100% of the samples"]),
        (10.0, {f"slow reader: {STARVED}": 2, "whole: whole": 9}, ["2 requests were unanswered"]),
    ],
)
def test_a_soak_that_was_starved_is_doubtful(
    lag_ms: float, outcomes: dict[str, int], words: list[str]
) -> None:
    taken = [Sample(at, 100, 50, 10, 3, 9.0, 2.0, 1.0, lag_ms=lag_ms) for at in range(240)]
    found = doubts(taken, outcomes)
    assert len(found) == len(words)
    assert all(doubt.startswith(start) for doubt, start in zip(found, words, strict=True))


def test_the_loops_lag_is_seen() -> None:
    async def run() -> tuple[float, float]:
        lag, stop = LoopLag(), asyncio.Event()
        watching = asyncio.ensure_future(lag.watch(stop))
        await asyncio.sleep(STEP_S / 2)
        time.sleep(0.4)  # noqa: ASYNC251 - a busy machine
        stop.set()
        await watching
        return lag.take_longest_ms(), lag.take_longest_ms()

    longest_ms, afterwards_ms = asyncio.run(run())
    assert longest_ms > STARVED_MS
    assert afterwards_ms == 0


@pytest.mark.parametrize(("is_busy", "result"), [(True, STARVED), (False, "unanswered")])
def test_a_request_is_unanswered_by_the_proxy_or_for_want_of_time_to_read_it(
    monkeypatch: pytest.MonkeyPatch, is_busy: bool, result: str
) -> None:
    monkeypatch.setattr(traffic, "LONGEST_S", 0.5)

    async def silent(port: int, request_id: str, dice: random.Random) -> str:
        while True:
            await asyncio.sleep(STEP_S)
            if is_busy:
                time.sleep(0.2)  # noqa: ASYNC251 - a busy machine

    kind = traffic.Kind("silent", 1, silent, frozenset({"whole"}))
    monkeypatch.setattr(traffic, "KINDS", (kind,))

    async def run() -> traffic.Traffic:
        visitors = traffic.Traffic(1, 1, clients=1)
        running = asyncio.ensure_future(visitors.run())
        while not visitors.outcomes:  # noqa: ASYNC110 - counted by the visitors
            await asyncio.sleep(0.01)
        visitors.stop.set()
        await running
        return visitors

    seen = asyncio.run(run())
    assert set(seen.outcomes) == {f"silent: {result}"}
    assert bool(seen.wrong) is (not is_busy)


def test_too_few_samples_give_no_result() -> None:
    assert all(line.is_flat for line in trends(samples(99, 0)[:2]))


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (Ended(200, json.dumps(faults.completion()).encode(), True), "whole"),
        (Ended(200, STREAM, True), "whole"),
        (Ended(200, STREAM[:-20], True), "quiet"),
        (Ended(200, STREAM.replace(faults.DONE, b""), True), "quiet"),
        (Ended(200, STREAM, False), "broken"),
        (Ended(200, faults.frame() + b"data: " + ERROR + b"\n\n", True), "error"),
        (Ended(200, STREAM + b"data: " + ERROR + b"\n\n", True), "quiet"),
        (Ended(502, ERROR, True), "error"),
        (Ended(502, b'{"error":"x"}', True), "quiet"),
        (Ended(502, b"<html>", True), "quiet"),
        (Ended(0, b"", False), "broken"),
    ],
)
def test_an_answer_is_whole_or_an_error_or_broken(got: Ended, expected: str) -> None:
    assert outcome(got) == expected


def test_http_framing_shows_where_an_answer_ends() -> None:
    head = b"HTTP/1.1 200 OK\r\n"
    assert ended(head + b"content-length: 2\r\n\r\nok") == Ended(200, b"ok", True)
    assert not ended(head + b"content-length: 3\r\n\r\nok").is_clean
    chunked = head + b"transfer-encoding: chunked\r\n\r\n2\r\nok\r\n"
    assert ended(chunked + b"0\r\n\r\n") == Ended(200, b"ok", True)
    for cut in (chunked, chunked[:-3], chunked + b"0\r\n", chunked + b"5\r\nab"):
        assert not ended(cut).is_clean
    assert ended(b"HTTP/1.1 20").status == 0


def test_all_kinds_have_a_share_and_an_end() -> None:
    assert all(kind.weight > 0 and kind.may for kind in KINDS)
    assert len({kind.name for kind in KINDS}) == len(KINDS)
