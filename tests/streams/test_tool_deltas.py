"""Tool calls that lack fields, judged by the library that needs them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from sanic_proxy.streams.filters import ChatStreamFilter
from sanic_proxy.streams.tool_deltas import ToolDeltas
from tests.support.upstream import DONE, frame


def fed(*pieces: bytes) -> tuple[bytes, ChatStreamFilter]:
    stream = ChatStreamFilter()
    return b"".join(stream.feed(piece) for piece in pieces), stream


def chunks_of(frames: bytes) -> list[Any]:
    parts = [part.removeprefix(b"data: ") for part in frames.split(b"\n\n") if part]
    return [json.loads(part) for part in parts if part != b"[DONE]"]


def call(name: str | None = None, arguments: str | None = None, **fields: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {**fields, "function": {key: value for key, value in function.items() if value is not None}}


def calls(*deltas: dict[str, Any]) -> bytes:
    return b"".join(frame({"tool_calls": [delta]}) for delta in deltas)


TOOLS: list[tuple[str, bytes, list[tuple[str, str]]]] = [
    ("no index", calls(call("f", "{}", id="a", type="function")), [("f", "{}")]),
    (
        "no index, in pieces",
        calls(
            call("f", "", id="a", type="function"),
            call(arguments='{"x"'),
            call(arguments=":1}", id="a"),
            call("g", "{}", id="b", type="function"),
        ),
        [("f", '{"x":1}'), ("g", "{}")],
    ),
    (
        "no index and no id",
        calls(call("f", "{"), call(arguments="}"), call("g", "{}")),
        [("f", "{}"), ("g", "{}")],
    ),
    (
        "several in one delta",
        frame({"tool_calls": [call("f", "{}", id="a"), call("g", "{}", id="b")]}),
        [("f", "{}"), ("g", "{}")],
    ),
    ("no id and no type", calls(call("f", "", index=0), call(arguments="{}", index=0)), [("f", "{}")]),
    (
        "an id that comes late",
        calls(call("f", "", index=0), call(arguments="{}", index=0, id="late")),
        [("f", "{}")],
    ),
    (
        "a name that comes late",
        calls(call(None, "", index=0, id="a", type="function"), call("f", "{}", index=0)),
        [("f", "{}")],
    ),
    (
        "a name that comes late, and no index",
        calls(call(None, "", id="a", type="function"), call("f", "{}")),
        [("f", "{}")],
    ),
    (
        "null for everything",
        calls(
            {"index": None, "id": None, "type": None, "function": {"name": None, "arguments": ""}},
            {"index": None, "id": None, "function": {"name": "f", "arguments": "{}"}},
        ),
        [("f", "{}")],
    ),
    (
        "no function",
        calls({"index": 0, "id": "a", "type": "function"}, call("f", "{}", index=0), {"index": 0}),
        [("f", "{}")],
    ),
]


@pytest.mark.row(37)
@pytest.mark.parametrize(("data", "expected"), [row[1:] for row in TOOLS], ids=[row[0] for row in TOOLS])
@pytest.mark.parametrize("is_joined", [True, False])
def test_openais_stream_helper_reads_incomplete_tool_calls(
    data: bytes, expected: list[tuple[str, str]], is_joined: bool
) -> None:
    frames = [part + b"\n\n" for part in data.split(b"\n\n") if part] + [frame(finish="tool_calls"), DONE]
    out, stream = fed(*([b"".join(frames)] if is_joined else frames))
    assert stream.is_done
    state: Any = ChatCompletionStreamState()
    for chunk in chunks_of(out):
        for _ in state.handle_chunk(ChatCompletionChunk.model_validate(chunk)):
            pass
    made = state.get_final_completion().choices[0].message.tool_calls
    assert [(call.function.name, call.function.arguments) for call in made] == expected
    ids = [call.id for call in made]
    assert all(ids)
    assert len(set(ids)) == len(ids)
    assert "late" not in str(ids)
    assert {call.type for call in made} == {"function"}


@pytest.mark.row(37)
def test_other_fields_of_a_completed_delta_stay_exact() -> None:
    delta = b'{"tool_calls":[{"id":"a","x":"\\ud83d","function":{"name":"f"}}]}'
    out = fed(b'data: {"choices":[{"index":0,"delta":' + delta + b'}],"n":99999999999999999999}\n\n')[0]
    assert b'"n":99999999999999999999' in out
    assert b'"x":"\\ud83d"' in out
    assert chunks_of(out)[0]["choices"][0]["delta"]["tool_calls"][0]["index"] == 0


@pytest.mark.row(37)
@pytest.mark.parametrize(
    ("first", "later"),
    [
        (call("f", "", index=0, id="a", type="function"), call(arguments="{", index=0)),
        (call("f", index=7, id="a", type="function"), call("g", index=7, id="a")),
        (
            {"index": 3, "id": "a", "type": "custom", "custom": {"name": "f", "input": ""}},
            {"index": 3, "type": "custom", "custom": {"input": "x"}},
        ),
    ],
)
def test_a_complete_tool_call_keeps_its_bytes(first: dict[str, Any], later: dict[str, Any]) -> None:
    data = calls(first, later, later)
    assert fed(data)[0] == data


@pytest.mark.parametrize("odd", [None, "x", {}, [None], ["x"], [{"index": True}], [{"index": "0", "id": 3}]])
def test_no_list_of_calls_breaks_it(odd: Any) -> None:
    is_filled = isinstance(odd, list) and isinstance(odd[0], dict)
    assert ToolDeltas().complete(0, odd) == is_filled


def test_calls_of_different_choices_are_kept_apart() -> None:
    tools = ToolDeltas()
    one, two = [call("f", "{}")], [call("g", "{}")]
    assert tools.complete(0, one)
    assert tools.complete(1, two)
    assert (one[0]["index"], two[0]["index"]) == (0, 0)
