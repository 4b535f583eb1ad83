"""Stored responses as streams, judged like any other stream."""

from __future__ import annotations

from typing import Any

import pytest

from sanic_proxy.openai.responses import event_frame, response_object
from sanic_proxy.translation.responses.replay import events
from tests.support.responses import accumulated, judge_stream

TEXT = "Grüße aus 東京 und von der Müllerstraße, in mehreren Stücken"
CITATION = {
    "type": "url_citation",
    "url": "https://x.example",
    "title": "x",
    "start_index": 0,
    "end_index": 1,
}
OUTPUT: list[dict[str, Any]] = [
    {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": TEXT}],
        "content": [{"type": "reasoning_text", "text": TEXT}],
        "encrypted_content": "abc",
        "status": "completed",
    },
    {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [
            {"type": "output_text", "text": TEXT, "annotations": [CITATION], "logprobs": []},
            {"type": "refusal", "refusal": TEXT},
        ],
    },
    {
        "type": "function_call",
        "id": "fc_1",
        "call_id": "c1",
        "name": "f",
        "arguments": '{"a":1}',
        "status": "completed",
    },
    {"type": "custom_tool_call", "id": "ctc_1", "call_id": "c2", "name": "g", "input": TEXT},
]


def stored(status: str = "completed", **fields: Any) -> dict[str, Any]:
    return {**response_object("resp_1", "m", 1, {}), "status": status, **fields}


@pytest.mark.parametrize("output", [[item] for item in OUTPUT[:3]] + [OUTPUT[:3], []])
def test_a_response_is_a_valid_stream(output: list[dict[str, Any]]) -> None:
    response = stored(output=output)
    made = events(response)
    assert judge_stream(made) == response
    assert made == events(response)
    frames = b"".join(map(event_frame, made))
    assert [item["type"] for item in accumulated(frames)["output"]] == [item["type"] for item in output]


def test_a_custom_call_is_streamed() -> None:
    made = events(stored(output=OUTPUT[3:]))
    deltas = [event["delta"] for event in made if event["type"] == "response.custom_tool_call_input.delta"]
    assert "".join(deltas) == TEXT
    assert made[-3]["type"] == "response.custom_tool_call_input.done"
    assert made[2]["item"]["input"] == ""


@pytest.mark.parametrize(
    ("status", "end"),
    [("failed", "failed"), ("incomplete", "incomplete"), ("cancelled", "incomplete")],
)
def test_the_last_event_is_that_of_the_status(status: str, end: str) -> None:
    response = stored(status, error={"code": "server_error", "message": "x"} if status == "failed" else None)
    last = events(response)[-1]
    assert (last["type"], last["response"]) == (f"response.{end}", response)


def test_a_background_response_has_its_events_so_far() -> None:
    names = ["response.created", "response.queued", "response.in_progress"]
    queued = events(stored("queued", background=True))
    running = events(stored("in_progress", background=True))
    done = events(stored(output=OUTPUT, background=True))
    assert [event["type"] for event in queued] == names[:2]
    assert [event["type"] for event in running] == names
    assert [event["response"]["status"] for event in done[:3]] == ["queued", "queued", "in_progress"]
    assert done[:3] == running
    assert running[:2] == queued
    assert [event["sequence_number"] for event in done] == list(range(len(done)))
