"""Any conversation and any answer: judged by OpenAI's SDK, and by the way back."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.completion_create_params import (
    CompletionCreateParamsBase,
    CompletionCreateParamsNonStreaming,
    CompletionCreateParamsStreaming,
)
from pydantic import TypeAdapter

from sanic_proxy.errors import InvalidRequest, UpstreamBadResponse
from sanic_proxy.openai import codec
from sanic_proxy.streams.filters import ChatStreamFilter
from sanic_proxy.translation.conversation import (
    Answer,
    CallBegin,
    CallDelta,
    Conversation,
    Document,
    Event,
    Finish,
    Image,
    Part,
    PartEnd,
    Reasoning,
    Refusal,
    Text,
    TextDelta,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Turn,
    UsageReport,
)
from sanic_proxy.translation.format import TargetTraits
from tests.support import odd
from tests.support.chat_translation import (
    ARGUMENTS,
    ASKED,
    CHAT,
    NAMES,
    REASONS,
    TARGET,
    TEXTS,
    USAGES,
    chunks_of,
    event_sequences,
    events_of,
    parts_of,
    stream_of,
)

STREAMING: TypeAdapter[Any] = TypeAdapter(CompletionCreateParamsStreaming)
WHOLE: TypeAdapter[Any] = TypeAdapter(CompletionCreateParamsNonStreaming)
FIELDS = CompletionCreateParamsBase.__annotations__.keys()
OPENAI = TargetTraits("openai", "gpt", limit_field="max_completion_tokens", omitted_fields=frozenset())

# Requests.

IMAGES = st.builds(
    Image,
    st.sampled_from(["https://a/b.png", "data:image/png;base64,YQ=="]),
    detail=st.sampled_from(["low", None]),
)
DOCUMENTS = st.builds(Document, st.just("data:application/pdf;base64,YQ=="), name=st.just("a.pdf"))
USER_PARTS: st.SearchStrategy[Part] = st.builds(Text, TEXTS) | IMAGES | DOCUMENTS
REASONINGS = st.builds(Reasoning, TEXTS, st.sampled_from(["reasoning_content", "reasoning"]), st.just("acme"))


@st.composite
def turns_of_a_call(draw: st.DrawFn, number: int) -> list[Turn]:
    """The model's turn, and the results of its calls."""
    calls = [
        ToolCall(f"call_{number}_{index}", draw(NAMES), draw(ARGUMENTS))
        for index in range(draw(st.integers(0, 3)))
    ]
    texts: list[Part] = [Text(text) for text in draw(st.lists(TEXTS, min_size=not calls, max_size=2))]
    thoughts: list[Part] = list(draw(st.lists(REASONINGS, max_size=1)))
    content: st.SearchStrategy[list[Part]] = st.lists(USER_PARTS, max_size=2)
    results: list[Part] = [ToolResult(call.id, draw(content), draw(st.booleans())) for call in calls]
    turn = Turn("assistant", [*thoughts, *texts, *calls])
    return [turn, Turn("tool", results)] if calls else [turn]


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    turns: list[Turn] = []
    for number in range(draw(st.integers(1, 4))):
        match draw(st.sampled_from(["system", "developer", "user", "assistant"])):
            case "assistant":
                turns += draw(turns_of_a_call(number))
            case "user":
                turns.append(Turn("user", draw(st.lists(USER_PARTS, min_size=1, max_size=3))))
            case "system" | "developer" as role:
                turns.append(Turn(role, [Text(draw(TEXTS))]))
    tools = draw(
        st.lists(
            st.builds(
                Tool,
                NAMES,
                st.none() | TEXTS,
                st.none() | st.just({"type": "object", "properties": {"a": {"type": "string"}}}),
                kind=st.sampled_from(["function", "custom", "tool_search"]),
                namespace=st.none() | NAMES,
            ),
            max_size=3,
            unique_by=lambda tool: (tool.namespace, tool.name),
        )
    )
    choices = [None, ToolChoice("auto"), ToolChoice("required"), ToolChoice("none")]
    if tools:
        choices += [ToolChoice("tool", (tools[0].name,)), ToolChoice("required", (tools[0].name,))]
    return Conversation(
        "asked",
        turns,
        is_streaming=draw(st.booleans()),
        tools=tools,
        tool_choice=draw(st.sampled_from(choices)),
        parallel_tool_calls=draw(st.sampled_from([None, True, False])),
        max_tokens=draw(st.none() | st.integers(1, 10**6)),
        temperature=draw(st.none() | st.floats(0, 2)),
        stop=draw(st.lists(TEXTS, max_size=5)),
        user=draw(st.none() | TEXTS),
        verbosity=draw(st.sampled_from([None, "low"])),
        prompt_cache_key=draw(st.none() | TEXTS),
    )


@given(conversations(), st.booleans())
def test_a_written_request_is_one_of_openais(wanted: Conversation, hoists: bool) -> None:
    target = TargetTraits(
        "openai", "gpt", hoists_system=hoists, limit_field="max_completion_tokens", omitted_fields=frozenset()
    )
    try:
        written = CHAT.write_request(wanted, target)
    except InvalidRequest:
        return
    adapter = STREAMING if wanted.is_streaming else WHOLE
    assert written.fields.keys() <= CompletionCreateParamsStreaming.__annotations__.keys() | FIELDS
    consume(adapter.validate_python(json.loads(codec.dumps(written.fields))))
    assert list(written.dropped) == sorted(set(written.dropped))
    check_order_of_calls(written.fields["messages"])


def consume(value: Any) -> None:
    """Read what the SDK's types call iterables, which is checked only while it is read."""
    if isinstance(value, dict):
        for item in value.values():
            consume(item)
    elif not isinstance(value, str | int | float | None):
        for item in value:
            consume(item)


def check_order_of_calls(messages: list[Any]) -> None:
    """Directly behind a message with calls stands one result of each, in their order, and nowhere else."""
    expected: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            assert message["tool_call_id"] == expected.pop(0)
            continue
        assert not expected
        expected = [call["id"] for call in message.get("tool_calls", ())]
    assert not expected


@given(conversations())
def test_reading_and_writing_a_written_request_gives_the_same(wanted: Conversation) -> None:
    try:
        once = CHAT.write_request(wanted, OPENAI)
    except InvalidRequest:
        return
    twice = CHAT.write_request(CHAT.read_request(once.fields), OPENAI)
    assert {**twice.fields, "model": 0, "stream_options": 0} == {
        **once.fields,
        "model": 0,
        "stream_options": 0,
    }
    assert not twice.dropped
    assert not twice.originals


@given(st.lists(st.builds(Text, TEXTS), min_size=1, max_size=1), st.lists(IMAGES, max_size=2))
def test_a_turn_survives_the_way_there_and_back(texts: list[Part], images: list[Part]) -> None:
    turns = [Turn("system", texts), Turn("user", [*texts, *images]), Turn("assistant", texts)]
    written = CHAT.write_request(Conversation("asked", turns), TARGET)
    assert CHAT.read_request(written.fields).turns == turns


@given(
    odd.OBJECTS
    | st.fixed_dictionaries(
        {"model": st.just("m"), "messages": odd.CONVERSATIONS | odd.VALUES},
        optional={
            "tools": odd.VALUES,
            "functions": odd.VALUES,
            "tool_choice": odd.VALUES,
            "function_call": odd.VALUES,
            "response_format": odd.VALUES,
            "stop": odd.VALUES,
            "max_tokens": odd.VALUES,
            "reasoning": odd.VALUES,
            "thinking": odd.VALUES,
            "stream_options": odd.VALUES,
            "n": odd.VALUES,
            "metadata": odd.VALUES,
        },
    )
    | st.fixed_dictionaries(
        {
            "model": st.just("m"),
            "messages": st.lists(
                st.fixed_dictionaries(
                    {"role": st.sampled_from(["user", "assistant", "tool", "system", "function"])},
                    optional={
                        "content": odd.VALUES | st.lists(odd.OBJECTS, max_size=3),
                        "tool_calls": st.lists(odd.OBJECTS, max_size=2),
                        "tool_call_id": odd.WORDS,
                        "function_call": odd.VALUES,
                        "reasoning_details": st.lists(odd.OBJECTS, max_size=2) | odd.VALUES,
                        "reasoning_content": odd.VALUES,
                        "annotations": odd.VALUES,
                        "name": odd.VALUES,
                        "audio": odd.VALUES,
                        "refusal": odd.VALUES,
                    },
                ),
                min_size=1,
                max_size=4,
            ),
        }
    )
)
def test_any_request_is_read_or_is_invalid(fields: dict[str, Any]) -> None:
    try:
        written = CHAT.write_request(CHAT.read_request(fields), TARGET)
    except InvalidRequest as error:
        assert error.message  # noqa: PT017
        return
    check_order_of_calls(written.fields["messages"])
    codec.dumps(written.fields)


# Answers.

ANSWER_PARTS: st.SearchStrategy[Part] = (
    st.builds(Text, TEXTS)
    | st.builds(Refusal, TEXTS)
    | st.builds(Reasoning, TEXTS, st.just("sig"), st.just("acme"))
    | st.builds(ToolCall, NAMES, NAMES, ARGUMENTS, st.sampled_from(["function", "custom"]))
)
ANSWERS = st.builds(
    Answer,
    st.sampled_from(["msg_1", "resp_1", "", "chatcmpl-1"]),
    st.just("acme-1"),
    st.just(1_700_000_000),
    st.lists(ANSWER_PARTS, max_size=5),
    REASONS,
    usage=st.none() | USAGES,
)


@given(ANSWERS)
def test_a_written_answer_is_one_of_openais(answer: Answer) -> None:
    made = CHAT.write_answer(answer, ASKED)
    ChatCompletion.model_validate_json(codec.dumps(made), strict=True)


@given(ANSWERS)
def test_reading_and_writing_a_written_answer_gives_the_same(answer: Answer) -> None:
    once = CHAT.write_answer(answer, ASKED)
    read = CHAT.read_answer(once)
    twice = CHAT.write_answer(read, ASKED)
    for made in (once, twice):
        made["choices"][0]["message"].pop("reasoning_details", None)
        made["id"] = made["id"] if answer.id else ""
        # A refusal with another good end than `stop` is read as a refusal, and calls as a call of tools.
        made["choices"][0].pop("finish_reason")
    assert twice == once
    if answer.usage is not None:
        assert read.usage is not None
        assert read.usage.input == answer.usage.input


@given(
    odd.OBJECTS
    | st.fixed_dictionaries(
        {"choices": st.lists(odd.OBJECTS, max_size=2)},
        optional={"id": odd.VALUES, "model": odd.VALUES, "created": odd.VALUES, "usage": odd.VALUES},
    )
)
def test_any_answer_is_read_or_is_bad(fields: dict[str, Any]) -> None:
    try:
        answer = CHAT.read_answer(fields)
    except UpstreamBadResponse:
        return
    CHAT.write_answer(answer, ASKED)


# Streams.


def accumulated(chunks: list[dict[str, Any]]) -> Any:
    """The completion that openai-python's own helper makes of a stream."""
    state: Any = ChatCompletionStreamState()
    for chunk in chunks:
        for _ in state.handle_chunk(ChatCompletionChunk.model_validate(chunk)):
            pass
    return state.current_completion_snapshot


@given(event_sequences(), st.booleans())
def test_each_chunk_is_one_of_openais(events: list[Event], include_usage: bool) -> None:
    asked = Conversation("asked", ASKED.turns, include_usage=include_usage)
    chunks = chunks_of(stream_of(events, asked))
    for chunk in chunks:
        ChatCompletionChunk.model_validate_json(json.dumps(chunk), strict=True)
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [chunk["choices"] == [] for chunk in chunks].count(True) == include_usage
    reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]]
    assert [reason for reason in reasons if reason] == [reasons[-1]]
    assert all(("usage" in chunk) is include_usage for chunk in chunks)


@given(event_sequences())
def test_openais_helper_makes_the_same_answer_of_a_stream(events: list[Event]) -> None:
    asked = Conversation("asked", ASKED.turns, tools=[Tool("f")])
    finish = next(event for event in events if isinstance(event, Finish))
    usage = next(event.usage for event in events if isinstance(event, UsageReport))
    answer = Answer("msg_1", "acme-1", 1_700_000_000, parts_of(events), finish.reason, usage=usage)
    whole = CHAT.write_answer(answer, asked)
    message = accumulated(chunks_of(stream_of(events, asked))).choices[0].message.model_dump()
    expected = whole["choices"][0]["message"]
    assert (message["content"] or "") == (expected["content"] or "")
    assert (message["refusal"] or "") == (expected["refusal"] or "")
    assert message.get("reasoning_content") == expected.get("reasoning_content")
    assert message.get("reasoning_details") == expected.get("reasoning_details")
    calls = [(call["id"], call["function"]) for call in message.get("tool_calls") or ()]
    made = [(call["id"], call["function"]) for call in expected.get("tool_calls") or ()]
    assert [(identity, fields["name"], fields["arguments"]) for identity, fields in calls] == [
        (identity, fields["name"], fields["arguments"]) for identity, fields in made
    ]


@given(event_sequences(kinds=("function", "custom")), st.lists(st.integers(1, 40)))
def test_any_cut_of_the_bytes_gives_the_same_events(events: list[Event], sizes: list[int]) -> None:
    stream = stream_of(events)
    pieces, rest = [], stream
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    assert events_of([*pieces, rest]) == events_of([stream])


@given(event_sequences(kinds=("function", "custom")))
def test_a_written_stream_passes_the_guard_and_is_read_again(events: list[Event]) -> None:
    stream = stream_of(events)
    guard = ChatStreamFilter()
    passed = guard.feed(stream)
    assert guard.failure is None
    assert guard.is_done
    again = events_of([passed])
    answer = CHAT.read_answer(CHAT.write_answer(Answer("a", "m", 1, parts_of(events)), ASKED))
    assert texts_of(parts_of(again)) == texts_of(answer.parts)
    ends = [event for event in again if isinstance(event, Finish | UsageReport)]
    assert [type(event) for event in ends] == [Finish, UsageReport]
    assert ends[1] == next(event for event in events if isinstance(event, UsageReport))


def texts_of(parts: list[Part]) -> dict[str, Any]:
    return {
        "content": "".join(part.text for part in parts if isinstance(part, Text)),
        "refusal": "".join(part.text for part in parts if isinstance(part, Refusal)),
        "calls": [
            (part.id, part.name, part.kind, part.arguments) for part in parts if isinstance(part, ToolCall)
        ],
    }


@given(
    st.lists(
        odd.OBJECTS
        | st.fixed_dictionaries(
            {
                "choices": st.lists(
                    st.fixed_dictionaries({"index": st.just(0), "delta": odd.OBJECTS | odd.VALUES})
                )
            }
        ),
        max_size=4,
    )
)
def test_any_chunk_gives_events_in_order(chunks: list[dict[str, Any]]) -> None:
    stream = b"".join(b"data: " + codec.dumps(chunk) + b"\n\n" for chunk in chunks)
    begun: set[int] = set()
    for event in events_of([stream]):
        match event:
            case CallBegin(key):
                assert key not in begun
                begun.add(key)
            case CallDelta(key) | PartEnd(int() as key):
                assert key in begun
            case TextDelta(text):
                assert text
            case _:
                pass
