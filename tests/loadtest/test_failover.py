"""The failover check: its provider, its verdicts, and the scenarios that must pass."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import pytest

from loadtest.failover import client
from loadtest.failover.__main__ import table
from loadtest.failover.client import Outcome
from loadtest.failover.runner import Cell, Result, measure
from loadtest.failover.scenarios import SCENARIOS, Run, Verdict, verdict
from loadtest.failover.wall import ANSWER, FAST, FAULTS, Entry, Wall

T = TypeVar("T")
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
SHORT = replace(FAST, first_token=0.4, stall=0.4, no_response=0.4, outage=0.4, word=0.0)
KINDS = pytest.mark.parametrize("is_streaming", [True, False], ids=["streamed", "whole"])


def with_wall(work: Callable[[Wall], Awaitable[T]]) -> T:
    async def run() -> T:
        async with Wall(SHORT) as wall:
            return await work(wall)

    return asyncio.run(run())


def outcomes_of(*models: str, is_streaming: bool) -> tuple[list[Outcome], list[Entry]]:
    """The outcomes of requests to the wall itself, and its log."""

    async def work(wall: Wall) -> tuple[list[Outcome], list[Entry]]:
        outcomes = [
            await client.send_chat(wall.port, model, is_streaming=is_streaming, limit_s=10)
            for model in models
        ]
        return outcomes, wall.log

    return with_wall(work)


@KINDS
@pytest.mark.parametrize("model", ["fb-ok", "FB-OK", "any/fb-ok", "fb-ok-noprefill", "fb-s07", "fb-s11-x"])
def test_the_wall_answers_with_its_words(model: str, is_streaming: bool) -> None:
    (outcome,), (entry,) = outcomes_of(model, is_streaming=is_streaming)
    assert (outcome.error, outcome.text, outcome.model) == (None, ANSWER, model)
    assert outcome.usage is not None
    assert outcome.usage["completion_tokens"] == 60
    assert entry.outcome == "answer"


@KINDS
@pytest.mark.parametrize("name", ["s01", "s03", "s05"])
def test_a_fault_of_the_first_attempt_is_over_with_the_second(name: str, is_streaming: bool) -> None:
    (first, second), log = outcomes_of(f"fb-{name}", f"fb-{name}", is_streaming=is_streaming)
    assert first.error is not None
    assert (second.error, second.text) == (None, ANSWER)
    assert [entry.attempt for entry in log] == [1, 2]


@KINDS
@pytest.mark.parametrize("name", sorted(FAULTS.keys() - {"s01", "s03", "s05", "s07", "s11"}))
def test_every_other_fault_is_an_error_for_a_client_without_a_gateway(name: str, is_streaming: bool) -> None:
    (outcome,), _ = outcomes_of(f"fb-{name}", is_streaming=is_streaming)
    if name == "s10" and is_streaming:
        assert outcome.text == ANSWER  # clients skip a malformed event
    else:
        assert outcome.error is not None
        assert outcome.text in ("", *(ANSWER[: ANSWER.index(f" word{cut}")] for cut in (20, 40)))
    assert not outcome.has_hung


def test_an_unknown_model_is_a_404() -> None:
    (outcome,), _ = outcomes_of("gpt-5", is_streaming=False)
    assert outcome.error == "404 model_not_found"


def test_an_outage_ends_with_its_time() -> None:
    async def work(wall: Wall) -> list[str | None]:
        during = await client.send_chat(wall.port, "fb-s15", is_streaming=False, limit_s=10)
        await asyncio.sleep(SHORT.outage - wall.now() + 0.01)
        after = await client.send_chat(wall.port, "fb-s15", is_streaming=False, limit_s=10)
        return [during.error, after.error]

    assert with_wall(work) == ["503 overloaded", None]


def test_a_call_without_an_end_has_hung() -> None:
    async def work(wall: Wall) -> Outcome:
        return await client.send_chat(wall.port, "fb-s06", is_streaming=True, limit_s=-0.9)

    assert with_wall(work).has_hung


# Verdicts

GOOD = Outcome(text=ANSWER, status=200, model="fb-ok", usage={"total_tokens": 1}, seconds=1.0)
CUT = replace(GOOD, text=ANSWER[:100])
ERROR = Outcome(error="502 upstream_disconnected", status=502, seconds=1.0)
HUNG = Outcome(error="hung", has_hung=True)


def attempts(*at: float, outcome: str = "503", words: Sequence[int] = ()) -> list[Entry]:
    sizes = words or [20] * len(at)
    return [
        Entry(when, "primary", number, True, "user", size, outcome)
        for number, (when, size) in enumerate(zip(at, sizes, strict=True), 1)
    ]


@pytest.mark.parametrize(
    ("name", "outcome", "log", "expected"),
    [
        ("S04", GOOD, attempts(0, 1), "pass"),
        ("S04", ERROR, attempts(0, 1), "safe"),
        ("S04", CUT, attempts(0, 1), "fail"),
        ("S04", HUNG, attempts(0), "fail"),
        ("S04", GOOD, attempts(*range(7)), "fail"),
        ("S01", GOOD, attempts(0, 2.0), "pass"),
        ("S01", GOOD, attempts(0, 0.3), "partial"),
        ("S01", GOOD, attempts(0), "partial"),
        ("S01", GOOD, attempts(0, 0.3, 0.6), "fail"),
        ("S06", replace(GOOD, seconds=101), attempts(0), "fail"),
        ("S06", GOOD, attempts(0, 30), "partial"),
        ("S07", replace(GOOD, seconds=21), attempts(0), "partial"),
        ("S12", GOOD, attempts(0, 1), "fail"),
        ("S12", GOOD, attempts(0, 1, words=[20, 10]), "pass"),
        ("S13", ERROR, attempts(0), "pass"),
        ("S13", GOOD, attempts(0), "partial"),
        ("S13", ERROR, attempts(0, 1), "safe"),
        ("S14", ERROR, [Entry(0, "fb-ok-noprefill", 1, True, "assistant", 9, "400")], "fail"),
        ("S15", GOOD, attempts(0.1), "fail"),
        ("S15", GOOD, attempts(7, outcome="answer"), "pass"),
        ("S16", replace(GOOD, model="fb-s16"), attempts(0), "fail"),
        ("S16", replace(GOOD, usage=None), attempts(0), "partial"),
    ],
)
def test_a_run_gets_its_verdict(name: str, outcome: Outcome, log: list[Entry], expected: Verdict) -> None:
    assert verdict(BY_NAME[name], Run([outcome], log, "primary", FAST, is_alive=True)) == expected


def test_a_proxy_that_is_dead_afterwards_fails() -> None:
    run = Run([GOOD], attempts(0), "primary", FAST, is_alive=False)
    assert verdict(BY_NAME["S04"], run) == "fail"


def test_the_cost_of_the_settings_stands_beside_the_score() -> None:
    results = [
        Result("S08", "streamed cold", "pass", [], [], [], [], added_s=0.0012),
        Result("S09", "streamed cold", "safe", [], [], [], [], added_s=0.0014),
        Result("S08", "whole cold", "pass", [], [], [], []),
        Result("S09", "whole cold", "pass", [], [], [], []),
    ]
    shown = table(results)
    assert "| S08 cut | pass | pass |" in shown
    assert (
        "streamed cold: 1 pass, 0 partial, 1 safe, 0 fail; first content of a healthy stream: +1.3 ms\n"
        in shown
    )
    assert "whole cold: 2 pass, 0 partial, 0 safe, 0 fail\n" in shown


# The product


@KINDS
@pytest.mark.parametrize(
    ("name", "is_warm"),
    [
        ("S05", False),
        ("S05", True),
        ("S06", False),
        ("S08", False),
        ("S09", False),
        ("S10", False),
        ("S12", False),
        ("S14", False),
    ],
    ids=["S05 cold", "S05 warm", "S06", "S08", "S09", "S10", "S12", "S14"],
)
def test_the_product_passes(name: str, is_warm: bool, is_streaming: bool) -> None:
    """With clocks shortened alike: the provider is silent for longer than the proxy waits for it."""
    times = replace(FAST, no_response=8, first_token=1)
    cell = Cell(BY_NAME[name], is_streaming, is_warm, workers=0, times=times, timeout_s=2)
    result = asyncio.run(measure(cell))
    assert result.verdict == "pass", result
