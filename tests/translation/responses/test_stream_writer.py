"""Events of an answer -> a Responses stream, judged by the types and the stream helper of its clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sanic_proxy import errors
from sanic_proxy.streams import sse
from sanic_proxy.translation.conversation import (
    Begin,
    CallBegin,
    CallDelta,
    Conversation,
    Event,
    Finish,
    PartEnd,
    ReasoningDelta,
    ReasoningEnd,
    RefusalDelta,
    TextDelta,
    Turn,
    Usage,
    UsageReport,
)
from sanic_proxy.translation.format import TargetTraits
from sanic_proxy.translation.responses import ResponsesFormat
from tests.support.responses import accumulated, events_of, judge_event, judge_stream

Json = dict[str, Any]

FORMAT = ResponsesFormat(now=lambda: 1_700_000_000)
ASKED = Conversation("m", [Turn("user", [])])
BEGIN = Begin("chatcmpl-abc", "gpt", 1_600_000_000)
STOP = Finish("stop")


def written(*events: Event, asked: Conversation = ASKED, has_done_marker: bool = False) -> bytes:
    format_ = ResponsesFormat(now=lambda: 1_700_000_000, has_done_marker=has_done_marker)
    writer = format_.writer(asked)
    return b"".join(map(writer.write, events)) + writer.end()


def streamed(*events: Event) -> list[Json]:
    return events_of(written(BEGIN, *events))


def types_of(events: Sequence[Json]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def output_of(*events: Event) -> list[Json]:
    output: list[Json] = judge_stream(streamed(*events))["output"]
    return output


# The order of events


def test_a_text_has_all_its_events() -> None:
    events = streamed(TextDelta("Hel"), TextDelta("lo"), STOP, UsageReport(Usage(5, 2, 1, 0, 1)))
    assert types_of(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    final = judge_stream(events)
    assert final["id"] == "resp_abc"
    assert final["model"] == "gpt"
    assert final["created_at"] == 1_600_000_000
    assert final["completed_at"] == 1_700_000_000
    assert final["usage"] == {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 7,
    }
    added, done = events[2]["item"], events[8]["item"]
    assert added == {
        "id": "msg_abc_0",
        "type": "message",
        "role": "assistant",
        "status": "in_progress",
        "content": [],
    }
    part = {"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}
    assert done == {**added, "status": "completed", "content": [part]}


def test_deltas_are_written_when_they_come() -> None:
    writer = FORMAT.writer(ASKED)
    assert types_of(events_of(writer.write(BEGIN))) == ["created", "in_progress"]
    first = types_of(events_of(writer.write(TextDelta("a"))))
    assert first == ["output_item.added", "content_part.added", "output_text.delta"]
    assert types_of(events_of(writer.write(TextDelta("b")))) == ["output_text.delta"]
    assert writer.write(TextDelta("")) == b""


def test_a_function_call() -> None:
    events = streamed(
        CallBegin(0, "c1", "f"), CallDelta(0, '{"a":'), CallDelta(0, "1}"), Finish("tool_calls")
    )
    assert types_of(events)[2:] == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    (item,) = judge_stream(events)["output"]
    assert item == {
        "id": "fc_abc_0",
        "type": "function_call",
        "call_id": "c1",
        "name": "f",
        "arguments": '{"a":1}',
        "status": "completed",
    }


def test_calls_of_other_kinds() -> None:
    output = output_of(
        CallBegin(0, "c0", "apply_patch", "custom"),
        CallDelta(0, "*** Begin Patch"),
        PartEnd(0),
        CallBegin(1, "c1", "run", namespace="shell"),
        CallDelta(1, "{}"),
        PartEnd(1),
        CallBegin(2, "c2", "tool_search", "tool_search"),
        CallDelta(2, '{"query":'),
        CallDelta(2, '"x"}'),
        PartEnd(2),
        Finish("tool_calls"),
    )
    assert [item["type"] for item in output] == ["custom_tool_call", "function_call", "tool_search_call"]
    assert output[0]["input"] == "*** Begin Patch"
    assert output[0]["id"] == "ctc_abc_0"
    assert output[1]["namespace"] == "shell"
    assert output[2]["execution"] == "client"
    assert output[2]["arguments"] == {"query": "x"}


def test_reasoning_is_a_summary_or_raw() -> None:
    events = streamed(
        ReasoningDelta("sum", is_summary=True),
        PartEnd(),
        ReasoningDelta("more", is_summary=True),
        ReasoningEnd("signed", "anthropic"),
        ReasoningDelta("raw"),
        TextDelta("answer"),
        STOP,
    )
    summary, raw, message = judge_stream(events)["output"]
    assert [part["text"] for part in summary["summary"]] == ["sum", "more"]
    assert "content" not in summary
    assert summary["encrypted_content"].startswith("sp1.anthropic.")
    assert raw["content"] == [{"type": "reasoning_text", "text": "raw"}]
    assert raw["summary"] == []
    assert raw["encrypted_content"] is None
    assert message["content"][0]["text"] == "answer"
    assert [item["id"] for item in (summary, raw, message)] == ["rs_abc_0", "rs_abc_1", "msg_abc_2"]
    assert {"reasoning_summary_part.added", "reasoning_summary_text.done", "reasoning_text.done"} <= set(
        types_of(events)
    )


def test_redacted_reasoning_has_an_item_without_text() -> None:
    (item,) = output_of(ReasoningEnd("data", "anthropic", is_redacted=True), STOP)
    assert item["summary"] == []
    assert item["encrypted_content"].startswith("sp1.anthropic.")


def test_a_refusal_is_a_part_of_the_message() -> None:
    (item,) = output_of(TextDelta("Well"), RefusalDelta("I can"), RefusalDelta("not"), STOP)
    assert item["content"][1] == {"type": "refusal", "refusal": "I cannot"}


def test_reasoning_after_text_begins_another_item() -> None:
    output = output_of(TextDelta("a"), ReasoningDelta("b"), TextDelta("c"), STOP)
    assert [item["type"] for item in output] == ["message", "reasoning", "message"]


# What chats do


def test_interleaved_calls_become_items_one_after_the_other() -> None:
    output = output_of(
        CallBegin(0, "c0", "f"),
        CallBegin(1, "c1", "g"),
        CallDelta(1, "[1"),
        CallDelta(0, "{"),
        CallDelta(1, "]"),
        CallDelta(0, "}"),
        Finish("tool_calls"),
    )
    assert [(item["call_id"], item["arguments"]) for item in output] == [("c0", "{}"), ("c1", "[1]")]


def test_text_between_the_pieces_of_a_call_follows_it() -> None:
    output = output_of(
        CallBegin(0, "c0", "f"), CallDelta(0, "{"), TextDelta("text"), CallDelta(0, "}"), Finish("tool_calls")
    )
    assert [item["type"] for item in output] == ["function_call", "message"]
    assert output[0]["arguments"] == "{}"


def test_empty_content_beside_calls_begins_no_message() -> None:
    output = output_of(TextDelta(""), CallBegin(0, "c0", "f"), CallDelta(0, ""), Finish("tool_calls"))
    assert [item["type"] for item in output] == ["function_call"]
    assert output[0]["arguments"] == ""  # not `{}`: the model's own words


def test_usage_may_follow_the_finish_and_a_second_beginning_is_ignored() -> None:
    final = judge_stream(streamed(BEGIN, TextDelta("a"), STOP, UsageReport(Usage(1, 2))))
    assert final["usage"]["total_tokens"] == 3


def test_a_call_without_an_id_gets_one() -> None:
    (item,) = output_of(CallBegin(0, "", "f"), Finish("tool_calls"))
    assert item["call_id"]


def test_events_without_a_beginning_begin_the_response() -> None:
    final = judge_stream(events_of(written(TextDelta("a"), STOP)))
    assert final["model"] == "m"
    assert final["id"].startswith("resp_")


# How it ends


@pytest.mark.parametrize(
    ("reason", "status", "details"),
    [
        ("stop", "completed", None),
        ("stop_sequence", "completed", None),
        ("tool_calls", "completed", None),
        ("length", "incomplete", "max_output_tokens"),
        ("context_window", "incomplete", "max_output_tokens"),
        ("pause", "incomplete", "max_output_tokens"),
        ("content_filter", "incomplete", "content_filter"),
        ("refusal", "incomplete", "content_filter"),
    ],
)
def test_the_reason_to_finish_decides_the_status(reason: Any, status: str, details: str | None) -> None:
    events = streamed(TextDelta("a"), Finish(reason))
    final = judge_stream(events)
    assert events[-1]["type"] == f"response.{status}"
    assert final["status"] == status
    assert final["incomplete_details"] == (details and {"reason": details})
    assert final["output"][0]["status"] == status


def test_a_refusal_in_words_is_complete() -> None:
    assert judge_stream(streamed(RefusalDelta("no"), Finish("refusal")))["status"] == "completed"


def test_only_the_last_item_is_incomplete() -> None:
    output = output_of(
        TextDelta("a"), CallBegin(0, "c", "f"), CallDelta(0, '{"'), PartEnd(0), Finish("length")
    )
    assert [item["status"] for item in output] == ["completed", "incomplete"]


def test_an_answer_without_content_has_no_items() -> None:
    assert output_of(STOP) == []


def test_the_done_marker_is_a_choice() -> None:
    assert written(BEGIN, STOP, has_done_marker=True) == written(BEGIN, STOP) + sse.DONE


# Failures


def failed(error: errors.ProxyError, *events: Event) -> list[Json]:
    writer = FORMAT.writer(ASKED)
    frames = b"".join(map(writer.write, events)) + writer.failed(error)
    made = events_of(frames)
    assert [event["sequence_number"] for event in made] == list(range(len(made)))
    assert made[-1]["type"] == "response.failed"
    assert made[-1]["response"]["status"] == "failed"
    assert len({event["response"]["id"] for event in made if "response" in event}) == 1
    return made


def test_a_failure_ends_a_begun_stream() -> None:
    events = failed(
        errors.UpstreamStalled("The provider's stream made no progress for 120 s"),
        BEGIN,
        TextDelta("a"),
        CallBegin(0, "c", "f"),
        CallDelta(0, "{"),
    )
    judge_event(events[-1])
    response = events[-1]["response"]
    assert response["error"]["code"] == "server_error"
    assert response["error"]["message"] == "The provider's stream made no progress for 120 s"
    # A call that was cut would be executed.
    assert [item["type"] for item in response["output"]] == ["message"]


def test_a_failure_before_anything_was_sent_begins_the_response() -> None:
    events = failed(errors.UpstreamUnavailable("down"))
    assert types_of(events) == ["created", "failed"]
    assert events[0]["response"]["status"] == "in_progress"
    for event in events:
        judge_event(event)


# Any events


texts = st.text(max_size=8)
some = st.text('ab{}"\\é\U0001f600\n', min_size=1, max_size=6)
finishes: st.SearchStrategy[Any] = st.sampled_from(
    ["stop", "stop_sequence", "length", "tool_calls", "content_filter", "refusal", "pause", "context_window"]
)


@st.composite
def answers(draw: st.DrawFn) -> list[Event]:
    """Events as any reader may give them: calls interleaved, parts ended or not, usage anywhere."""
    events: list[Event] = [BEGIN]
    keys: list[int] = []
    for _ in range(draw(st.integers(0, 12))):
        match draw(st.integers(0, 7)):
            case 0 | 1:
                events.append(TextDelta(draw(texts)))
            case 2:
                events.append(RefusalDelta(draw(texts)))
            case 3:
                events.append(ReasoningDelta(draw(texts), draw(st.booleans())))
            case 4:
                signature = draw(st.sampled_from(["", "sig", "é"]))
                # Without an origin it would be the provider's whose stream is read.
                origin = "anthropic" if signature else draw(st.sampled_from(["", "anthropic"]))
                events.append(
                    ReasoningEnd(signature, origin, bool(signature and origin) and draw(st.booleans()))
                )
            case 5:
                key = len(keys)
                keys.append(key)
                kind: Any = draw(st.sampled_from(["function", "custom", "tool_search"]))
                namespace = draw(st.sampled_from([None, "ns"])) if kind == "function" else None
                events.append(CallBegin(key, f"c{key}", draw(st.sampled_from(["f", "g"])), kind, namespace))
            case 6 if keys:
                events.append(CallDelta(draw(st.sampled_from(keys)), draw(some)))
            case _:
                events.append(PartEnd(draw(st.sampled_from([None, *keys]))))
    tail: list[Event] = [Finish(draw(finishes))]
    if draw(st.booleans()):
        tail.append(UsageReport(Usage(*(draw(st.integers(0, 9)) for _ in range(5)))))
    return events + draw(st.permutations(tail))


@given(answers())
@settings(deadline=None)
def test_any_answer_is_a_legal_stream(events: list[Event]) -> None:
    judge_stream(events_of(written(*events)))


@given(answers())
@settings(deadline=None, max_examples=25)
def test_the_stream_helper_accumulates_the_same(events: list[Event]) -> None:
    events = [event if not isinstance(event, Finish) else STOP for event in events]
    frames = written(*events)
    final = events_of(frames)[-1]["response"]
    made = accumulated(frames)
    assert made["id"] == final["id"]
    assert [item["id"] for item in made["output"]] == [item["id"] for item in final["output"]]
    assert [item.get("arguments") for item in made["output"]] == [
        item.get("arguments") for item in final["output"]
    ]


@given(answers(), st.integers(1, 40))
@settings(deadline=None)
def test_a_stream_can_be_read_back_in_any_pieces(events: list[Event], size: int) -> None:
    frames = written(*events)
    reader, splitter = FORMAT.reader(TargetTraits("openai", "m")), sse.FrameSplitter()
    whole = [event for frame in sse.FrameSplitter().feed(frames) for event in reader.read(frame)]
    again = FORMAT.reader(TargetTraits("openai", "m"))
    pieces = [frames[at : at + size] for at in range(0, len(frames), size)]
    read = [event for piece in pieces for frame in splitter.feed(piece) for event in again.read(frame)]
    assert read == whole
    # Written again, the stream is the same: nothing was lost.
    assert events_of(written(*whole))[-1]["response"]["output"] == events_of(frames)[-1]["response"]["output"]
