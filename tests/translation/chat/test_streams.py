"""Chat streams <-> events."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from sanic_proxy.dialects.registry import DIALECTS
from sanic_proxy.streams import sse
from sanic_proxy.streams.filters import ChatStreamFilter
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
    Tool,
    Usage,
    UsageReport,
)
from sanic_proxy.translation.signatures import wrapped
from tests.support.chat_translation import ASKED, CHAT, TARGET, chunks_of, events_of, stream_of

# Reading.


def chunk(delta: Any = None, finish: Any = None, *, index: int = 0, **fields: Any) -> bytes:
    choice = {"index": index, "delta": {} if delta is None else delta, "finish_reason": finish}
    head = {"id": "x", "model": "m", "created": 1, "choices": [choice]}
    return sse.encode(json.dumps({**head, **fields}).encode())


def call(index: int, name: str | None = None, arguments: str | None = None, **fields: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    function = {key: value for key, value in function.items() if value is not None}
    return {"tool_calls": [{"index": index, **fields, "function": function}]}


def read(*frames: bytes) -> list[Event]:
    """The events behind the first one, of frames that have passed the guard."""
    guard = ChatStreamFilter()
    passed = guard.feed(b"".join(frames)) + guard.end()
    assert guard.failure is None
    begin, *events = events_of([passed])
    assert begin == Begin("x", "m", 1)
    return events


STOP = chunk(finish="stop")
TEXT: list[Event] = [TextDelta("hi"), PartEnd(), Finish("stop")]
USAGE = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}

STREAMS: list[tuple[str, list[bytes], list[Event]]] = [
    (
        "as OpenAI's",
        [
            chunk({"role": "assistant", "content": "", "refusal": None}, usage=None),
            chunk({"content": "hi"}, usage=None),
            STOP,
            chunk(choices=[], usage=USAGE),
            sse.DONE,
        ],
        [*TEXT, UsageReport(Usage(9, 5))],
    ),
    ("no end marker", [chunk({"content": "hi"}), STOP], TEXT),
    ("no finish reason", [chunk({"content": "hi"}), sse.DONE], TEXT),
    ("finish with the content", [chunk({"content": "hi"}, "stop"), sse.DONE], TEXT),
    ("finish twice", [chunk({"content": "hi"}), STOP, STOP, sse.DONE], TEXT),
    (
        "a better reason behind `stop`",
        [chunk({"content": "hi"}, "stop"), chunk(finish="length"), STOP],
        [*TEXT[:2], Finish("length")],
    ),
    (
        "usage in every chunk",
        [
            chunk({"content": "hi"}, usage={**USAGE, "completion_tokens": 1}),
            chunk(finish="stop", usage=USAGE),
        ],
        [*TEXT, UsageReport(Usage(9, 5))],
    ),
    (
        "usage before the finish",
        [chunk({"content": "hi"}), chunk(choices=[], usage=USAGE), STOP],
        [*TEXT, UsageReport(Usage(9, 5))],
    ),
    (
        "usage in the choice",
        [
            chunk({"content": "hi"}),
            chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop", "usage": USAGE}]),
        ],
        [*TEXT, UsageReport(Usage(9, 5))],
    ),
    (
        "other choices",
        [chunk({"content": "no"}, "stop", index=1), chunk({"content": "hi"}), STOP],
        TEXT,
    ),
    (
        "a whole message",
        [chunk(choices=[{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}])],
        TEXT,
    ),
    (
        "content in parts",
        [
            chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}),
            chunk({"content": [{"type": "text", "text": "hi"}]}),
            STOP,
        ],
        [ReasoningDelta("hm"), ReasoningEnd(), *TEXT],
    ),
    ("tags of reasoning", [chunk({"content": "<think>"}), STOP], [TextDelta("<think>"), *TEXT[1:]]),
    (
        "a refusal",
        [chunk({"refusal": "n"}), chunk({"refusal": "o"}), STOP],
        [RefusalDelta("n"), RefusalDelta("o"), PartEnd(), Finish("refusal")],
    ),
    (
        "reasoning",
        [
            chunk({"reasoning_content": "h", "content": None}),
            chunk({"reasoning_content": "m"}),
            chunk({"content": "hi"}),
            STOP,
        ],
        [ReasoningDelta("h"), ReasoningDelta("m"), ReasoningEnd("reasoning_content", "acme"), *TEXT],
    ),
    (
        "reasoning under another name",
        [chunk({"reasoning": "hm"}), chunk({"content": "hi"}), STOP],
        [ReasoningDelta("hm"), ReasoningEnd("reasoning", "acme"), *TEXT],
    ),
    (
        "reasoning behind the text",
        [chunk({"content": "hi"}), chunk({"reasoning_text": "hm"}), STOP],
        [
            *TEXT[:2],
            ReasoningDelta("hm"),
            ReasoningEnd("reasoning_text", "acme"),
            Finish("stop"),
        ],
    ),
    (
        "calls",
        [
            chunk(call(0, "f", "", id="a", type="function")),
            chunk(call(0, None, '{"x"')),
            chunk(call(0, None, ": 1}")),
            chunk(finish="tool_calls"),
        ],
        [
            CallBegin(0, "a", "f"),
            CallDelta(0, '{"x"'),
            CallDelta(0, ": 1}"),
            PartEnd(0),
            Finish("tool_calls"),
        ],
    ),
    (
        "interleaved calls behind a text",
        [
            chunk({"content": "hi", **call(0, "f", "", id="a", type="function")}),
            chunk(call(1, "g", "", id="b", type="function")),
            chunk(call(0, None, "{")),
            chunk(call(1, None, "[")),
            chunk(call(0, None, "}")),
            STOP,
        ],
        [
            *TEXT[:2],
            CallBegin(0, "a", "f"),
            CallDelta(0, "{"),
            CallBegin(1, "b", "g"),
            CallDelta(1, "["),
            CallDelta(0, "}"),
            PartEnd(0),
            PartEnd(1),
            Finish("tool_calls"),
        ],
    ),
    (
        "a call without arguments",
        [chunk({"content": "", **call(0, "f", id="a")}), chunk(call(1, "g", "{}", id="b")), STOP],
        [
            CallBegin(0, "a", "f"),
            CallBegin(1, "b", "g"),
            CallDelta(1, "{}"),
            PartEnd(0),
            PartEnd(1),
            Finish("tool_calls"),
        ],
    ),
    (
        "a name in pieces",
        [chunk(call(0, "get_", "", id="a")), chunk(call(0, "time", "")), chunk(call(0, None, "{}")), STOP],
        [CallBegin(0, "a", "get_time"), CallDelta(0, "{}"), PartEnd(0), Finish("tool_calls")],
    ),
    (
        "a name in every chunk",
        [chunk(call(0, "f", "", id="a")), chunk(call(0, "f", "{")), chunk(call(0, "f", "}")), STOP],
        [CallBegin(0, "a", "f"), CallDelta(0, "{"), CallDelta(0, "}"), PartEnd(0), Finish("tool_calls")],
    ),
    (
        "a custom call",
        [
            chunk(
                {
                    "tool_calls": [
                        {"index": 0, "id": "a", "type": "custom", "custom": {"name": "c", "input": ""}}
                    ]
                }
            ),
            chunk({"tool_calls": [{"index": 0, "custom": {"input": "raw"}}]}),
            STOP,
        ],
        [CallBegin(0, "a", "c", "custom"), CallDelta(0, "raw"), PartEnd(0), Finish("tool_calls")],
    ),
    (
        "a whole message with calls",
        [
            chunk(
                choices=[
                    {
                        "index": 0,
                        "message": {
                            "content": None,
                            "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"}}],
                        },
                        "finish_reason": "stop",
                    }
                ]
            )
        ],
        [CallBegin(0, "a", "f"), CallDelta(0, "{}"), PartEnd(0), Finish("tool_calls")],
    ),
    ("a finish of calls without a call", [chunk({"content": "hi"}), chunk(finish="tool_calls")], TEXT),
    (
        "the stop sequence of vLLM",
        [
            chunk({"content": "hi"}),
            chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": "END"}]),
        ],
        [*TEXT[:2], Finish("stop_sequence", "END")],
    ),
]


@pytest.mark.parametrize(("frames", "events"), [row[1:] for row in STREAMS], ids=[row[0] for row in STREAMS])
def test_reading(frames: list[bytes], events: list[Event]) -> None:
    assert read(*frames) == events


def test_details_of_reasoning() -> None:
    def detail(**fields: Any) -> dict[str, Any]:
        return {"type": "reasoning.text", "index": 0, "format": "anthropic-claude-v1", **fields}

    events = read(
        chunk({"reasoning": "h", "reasoning_details": [detail(text="h")]}),
        chunk({"reasoning": "m", "reasoning_details": [detail(text="m")]}),
        chunk({"reasoning_details": [detail(signature="s", text="")]}),
        chunk({"reasoning_details": [{"type": "reasoning.encrypted", "index": 1, "data": "d"}]}),
        chunk({"reasoning_details": [{"type": "reasoning.summary", "index": 2, "summary": "short"}]}),
        chunk({"content": "hi"}),
        STOP,
    )
    signature = '{"type":"reasoning.text","index":0,"format":"anthropic-claude-v1","signature":"s"}'
    assert events == [
        ReasoningDelta("h"),
        ReasoningDelta("m"),
        ReasoningEnd(signature, "acme"),
        ReasoningEnd('{"type":"reasoning.encrypted","index":1,"data":"d"}', "acme", is_redacted=True),
        ReasoningDelta("short", is_summary=True),
        ReasoningEnd('{"type":"reasoning.summary","index":2}', "acme"),
        *TEXT,
    ]


def test_a_call_without_an_id_gets_one() -> None:
    begin = read(chunk(call(0, "f", "{}")), STOP)[0]
    assert isinstance(begin, CallBegin)
    assert begin.id.startswith("call_")


def test_the_legacy_function_call() -> None:
    begin, *events = read(
        chunk({"function_call": {"name": "f", "arguments": ""}}),
        chunk({"function_call": {"arguments": "{}"}}),
        chunk(finish="function_call"),
    )
    assert isinstance(begin, CallBegin)
    assert begin.name == "f"
    assert begin.id
    assert events == [CallDelta(0, "{}"), PartEnd(0), Finish("tool_calls")]


# Writing.

BEGIN = Begin("msg_1", "claude", 7)


def written(*events: Event, **asked: Any) -> list[dict[str, Any]]:
    return chunks_of(stream_of([BEGIN, *events], Conversation("m", ASKED.turns, **asked)))


def deltas(*events: Event) -> list[dict[str, Any]]:
    """The deltas between the first chunk and the finish."""
    return [made["choices"][0]["delta"] for made in written(*events, include_usage=False)[1:-1]]


def test_a_stream_as_openai_writes_it() -> None:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 7, "model": "claude"}

    def expected(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**head, "choices": [choice]}

    events: list[Event] = [
        TextDelta("a"),
        TextDelta("b"),
        PartEnd(),
        Finish("stop"),
        UsageReport(Usage(9, 5)),
    ]
    first = expected({"role": "assistant", "content": "", "refusal": None})
    plain = [first, expected({"content": "a"}), expected({"content": "b"}), expected({}, "stop")]
    assert written(*events, include_usage=False) == plain
    usage = Usage(9, 5).as_chat()
    assert written(*events, include_usage=True) == [
        *({**made, "usage": None} for made in plain),
        {**head, "choices": [], "usage": usage},
    ]


def test_each_event_is_written_at_once() -> None:
    writer = CHAT.writer(ASKED)
    assert b'"role":"assistant"' in writer.write(BEGIN)
    assert b'"content":"a"' in writer.write(TextDelta("a"))
    assert not writer.write(PartEnd())


def test_a_stream_without_events_has_a_role_and_an_end() -> None:
    first, last = chunks_of(CHAT.writer(Conversation("m", [], include_usage=False)).end())
    assert first["choices"][0]["delta"]["role"] == "assistant"
    assert last["choices"][0]["finish_reason"] == "stop"
    assert first["model"] == "m"


def test_the_first_content_is_null_where_calls_may_follow() -> None:
    first = written(Finish("stop"), tools=[Tool("f")])[0]
    assert first["choices"][0]["delta"]["content"] is None


def test_the_usage_of_the_beginning_is_a_fallback() -> None:
    events: list[Event] = [Begin("a", "m", 1, Usage(9)), TextDelta("a"), Finish("stop")]
    assert chunks_of(stream_of(events))[-1]["usage"]["prompt_tokens"] == 9


def test_calls_are_numbered_in_order() -> None:
    assert deltas(
        CallBegin(7, "a", "f"),
        CallDelta(7, "{"),
        CallBegin(9, "b", "g", "function", "ns"),
        CallDelta(9, "{}"),
        CallDelta(7, "}"),
        PartEnd(7),
        PartEnd(9),
        Finish("stop"),
    ) == [
        {
            "tool_calls": [
                {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]},
        {
            "tool_calls": [
                {"index": 1, "id": "b", "type": "function", "function": {"name": "ns__g", "arguments": ""}}
            ]
        },
        {"tool_calls": [{"index": 1, "function": {"arguments": "{}"}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]},
    ]


@pytest.mark.parametrize("ends", [[PartEnd(0)], []])
def test_empty_arguments_are_an_empty_object(ends: list[Event]) -> None:
    assert deltas(CallBegin(0, "a", "f"), *ends)[1:] == [
        {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}
    ]


def test_custom_calls() -> None:
    assert deltas(CallBegin(0, "a", "c", "custom"), CallDelta(0, "raw"), PartEnd(0)) == [
        {"tool_calls": [{"index": 0, "id": "a", "type": "custom", "custom": {"name": "c", "input": ""}}]},
        {"tool_calls": [{"index": 0, "custom": {"input": "raw"}}]},
    ]


def test_reasoning_with_signatures() -> None:
    events: list[Event] = [
        ReasoningDelta("h"),
        ReasoningDelta("m"),
        ReasoningEnd("s", "claude"),
        ReasoningEnd("d", "claude", is_redacted=True),
        TextDelta("a"),
        PartEnd(),
        ReasoningDelta("again"),
        ReasoningEnd(),
        TextDelta("b"),
    ]
    text = {"type": "reasoning.text", "index": 0, "text": "hm", "signature": wrapped("claude", "s")}
    hidden = {"type": "reasoning.encrypted", "index": 1, "data": wrapped("claude", "d")}
    assert deltas(*events) == [
        {"reasoning_content": "h"},
        {"reasoning_content": "m"},
        {"reasoning_details": [text]},
        {"reasoning_details": [hidden]},
        {"content": "a"},
        {"reasoning_content": "\n\nagain"},
        {"content": "\n\nb"},
    ]
    # OpenAI's own library collects the same details, so a client returns them.
    state: Any = ChatCompletionStreamState()
    for made in written(*events):
        for _ in state.handle_chunk(ChatCompletionChunk.model_validate(made)):
            pass
    message = state.get_final_completion().choices[0].message.model_dump()
    assert message["reasoning_details"] == [text, hidden]


@pytest.mark.parametrize(
    ("finish", "fields"),
    [
        (Finish("length"), {"finish_reason": "length"}),
        (Finish("refusal"), {"finish_reason": "content_filter"}),
        (Finish("pause"), {"finish_reason": "length"}),
        (Finish("context_window"), {"finish_reason": "length"}),
        (Finish("stop_sequence", "END"), {"finish_reason": "stop", "stop_reason": "END"}),
        (Finish("tool_calls"), {"finish_reason": "stop"}),
    ],
)
def test_the_end(finish: Finish, fields: dict[str, Any]) -> None:
    last = written(TextDelta("a"), finish, include_usage=False)[-1]["choices"][0]
    assert last.items() >= fields.items()
    assert last["delta"] == {}


@pytest.mark.parametrize("client", ["chat", "messages", "responses"])
def test_pieces_of_text_are_the_same_whatever_stands_between_them(client: str) -> None:
    """Further pieces of a text take fewer steps than those behind another part."""
    events: list[Event] = [
        Begin("x", "m", 1),
        *(TextDelta(text) for text in ("a", '\u2028"', "", "c")),
        PartEnd(),
        CallBegin(0, "call_1", "f"),
        CallDelta(0, "{}"),
        PartEnd(0),
        *(TextDelta(text) for text in ("d", "e", "\udc80")),
        RefusalDelta("no"),
        TextDelta("f"),
        TextDelta("g"),
        Finish("stop"),
        UsageReport(Usage(1, 2)),
    ]
    form = DIALECTS[client].format
    writer = form.writer(Conversation("m", [], tools=[Tool("f")]))
    frames = b"".join(map(writer.write, events)) + writer.end()
    reader = form.reader(TARGET)
    read = [event for frame in sse.FrameSplitter().feed(frames) for event in reader.read(frame)]
    texts = [event.text for event in [*read, *reader.end()] if isinstance(event, TextDelta)]
    assert "".join(texts).replace("\n", "").replace("no", "") == 'a\u2028"cde\udc80fg'


@pytest.mark.parametrize(
    "last",
    [
        chunk({"content": "c"}, "stop"),
        chunk({"content": "c"}, "stop", usage=USAGE),
        chunk({"content": "c", "refusal": None}, "stop"),
        chunk({"content": [{"type": "text", "text": "c"}]}, "stop"),
    ],
)
def test_a_piece_of_text_may_come_with_more(last: bytes) -> None:
    other = chunk({"content": "x"}, "stop", index=1)
    events = read(chunk({"content": "a"}), chunk({"content": "b"}), chunk({"content": ""}), other, last)
    usage = [UsageReport(Usage(9, 5))] if b"total" in last else []
    assert events == [*map(TextDelta, "abc"), PartEnd(), Finish("stop"), *usage]
