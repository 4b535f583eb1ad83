"""Whole answers, collected from the events of a stream."""

from __future__ import annotations

from collections.abc import Iterable

from sanic_proxy.openai.usage import Usage
from sanic_proxy.translation.collect import AnswerCollector
from sanic_proxy.translation.conversation import (
    Answer,
    Begin,
    CallBegin,
    CallDelta,
    Event,
    Finish,
    PartEnd,
    Reasoning,
    ReasoningDelta,
    ReasoningEnd,
    Refusal,
    RefusalDelta,
    Text,
    TextDelta,
    ToolCall,
    UsageReport,
)

BEGIN = Begin("id", "model", 7)


def collected(events: Iterable[Event]) -> Answer:
    collector = AnswerCollector()
    for event in events:
        collector.add(event)
    return collector.answer()


def test_deltas_are_joined_in_order() -> None:
    answer = collected(
        [
            BEGIN,
            ReasoningDelta("think", is_summary=True),
            ReasoningEnd("sig", "origin"),
            TextDelta("a"),
            TextDelta("b"),
            RefusalDelta("no"),
            Finish("stop_sequence", "END"),
            UsageReport(Usage(1, 2)),
        ]
    )
    assert (answer.id, answer.model, answer.created) == ("id", "model", 7)
    assert answer.parts == [
        Reasoning("think", "sig", "origin", is_summary=True),
        Text("ab"),
        Refusal("no"),
    ]
    assert (answer.finish, answer.stop_sequence, answer.usage) == ("stop_sequence", "END", Usage(1, 2))


def test_interleaved_calls_are_told_apart_and_make_the_finish_reason() -> None:
    answer = collected(
        [
            BEGIN,
            CallBegin(0, "c0", "f"),
            CallDelta(0, '{"a"'),
            CallBegin(1, "c1", "g", "custom", "ns"),
            CallDelta(1, "x"),
            CallDelta(0, ":1}"),
            CallDelta(9, "of no call"),
            Finish("stop"),
        ]
    )
    assert answer.parts == [ToolCall("c0", "f", '{"a":1}'), ToolCall("c1", "g", "x", "custom", "ns")]
    assert answer.finish == "tool_calls"


def test_the_end_of_a_part_separates_two_texts() -> None:
    answer = collected([BEGIN, TextDelta("a"), PartEnd(), TextDelta("b"), Finish("length")])
    assert answer.parts == [Text("a"), Text("b")]
    assert answer.finish == "length"


def test_redacted_reasoning_stands_alone() -> None:
    answer = collected(
        [BEGIN, ReasoningDelta("t"), ReasoningEnd("data", "o", is_redacted=True), TextDelta("a")]
    )
    assert answer.parts == [Reasoning("t"), Reasoning("", "data", "o", is_redacted=True), Text("a")]


def test_the_usage_of_the_beginning_counts_until_there_is_another_one() -> None:
    first = Begin("id", "m", 0, Usage(5))
    assert collected([first, TextDelta("a")]).usage == Usage(5)
    assert collected([first, UsageReport(Usage(5, 6))]).usage == Usage(5, 6)
