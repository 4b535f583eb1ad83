"""Clients of Responses in front of a provider of Messages, and the other way round."""

from __future__ import annotations

import json
from typing import Any

from sanic_proxy.streams.filters import FilterChain
from sanic_proxy.streams.messages_filter import MessagesStreamFilter
from sanic_proxy.streams.responses_filter import ResponsesStreamFilter
from sanic_proxy.translation.format import TargetTraits
from sanic_proxy.translation.messages import MessagesFormat
from sanic_proxy.translation.responses import ResponsesFormat
from sanic_proxy.translation.translate import Translation, translated
from tests.support.messages import block, call_block, frame, start, stop, text_block, thinking_block
from tests.support.responses import events_of, judge_stream

Json = dict[str, Any]

RESPONSES, MESSAGES = ResponsesFormat(now=lambda: 1_700_000_000), MessagesFormat()
ANTHROPIC, OPENAI = TargetTraits("anthropic", "claude"), TargetTraits("openai", "gpt")
PATCH = {"type": "custom", "name": "apply_patch", "description": "Patch files"}


def asked(*items: Json) -> Translation:
    user = {"role": "user", "content": "hello"}
    request = {"model": "m", "input": [user, *items], "tools": [PATCH], "reasoning": {"effort": "high"}}
    return translated(RESPONSES, request, MESSAGES, ANTHROPIC)


ANSWER = [
    start(input_tokens=5, cache_read_input_tokens=3),
    *thinking_block(0, "Let me", " think"),
    *block(1, {"type": "redacted_thinking", "data": "ZGF0YQ=="}),
    *text_block(2, "I patch."),
    *call_block(3, '{"input": "*** Be', 'gin"}', name="apply_patch"),
    *stop("tool_use", output_tokens=9),
]


def answered() -> Json:
    chain = FilterChain(MessagesStreamFilter(), asked().stream_filter())
    return judge_stream(events_of(b"".join(map(chain.feed, ANSWER))))


def test_a_message_is_a_response() -> None:
    final = answered()
    thinking, redacted, message, call = final["output"]
    assert [part["text"] for part in thinking.get("content") or thinking["summary"]] == ["Let me think"]
    assert thinking["encrypted_content"] != redacted["encrypted_content"]
    assert message["content"][0]["text"] == "I patch."
    assert (call["type"], call["name"], call["input"]) == ("custom_tool_call", "apply_patch", "*** Begin")
    assert call["call_id"] == "toolu_3"
    # Anthropic counts the tokens of the cache apart.
    assert final["usage"]["input_tokens"] == 8
    assert final["usage"]["input_tokens_details"]["cached_tokens"] == 3
    assert final["usage"]["output_tokens"] == 9


def test_reasoning_returns_to_anthropic_with_its_signature() -> None:
    output = answered()["output"]
    result = {"type": "custom_tool_call_output", "call_id": "toolu_3", "output": "done"}
    messages = asked(*output, result).fields["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    thinking, redacted, text, call = messages[1]["content"]
    assert thinking == {"type": "thinking", "thinking": "Let me think", "signature": "c2ln"}
    assert redacted == {"type": "redacted_thinking", "data": "ZGF0YQ=="}
    assert text["text"] == "I patch."
    assert (call["type"], call["id"], call["input"]) == ("tool_use", "toolu_3", {"input": "*** Begin"})
    assert messages[2]["content"][0]["tool_use_id"] == "toolu_3"


def test_reasoning_of_another_provider_is_kept_from_anthropic() -> None:
    foreign = {
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "s"}],
        "encrypted_content": "gAAA",
    }
    translation = asked(foreign, {"role": "assistant", "content": "a"}, {"role": "user", "content": "b"})
    blocks = [part for message in translation.fields["messages"] for part in message["content"]]
    assert not any(isinstance(part, dict) and "thinking" in part["type"] for part in blocks)


def test_encrypted_reasoning_travels_through_a_client_of_messages() -> None:
    user: Json = {"role": "user", "content": "hello"}
    request = {"model": "m", "max_tokens": 100, "messages": [user], "stream": True}
    chain = FilterChain(
        ResponsesStreamFilter(), translated(MESSAGES, request, RESPONSES, OPENAI).stream_filter()
    )
    item = {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "s"}]}
    text = {"id": "msg_1", "type": "message", "content": [{"type": "output_text", "text": "Hello"}]}
    response = {"id": "resp_1", "model": "gpt", "created_at": 5, "status": "in_progress", "output": []}
    ended = {**response, "status": "completed", "usage": {"input_tokens": 3, "output_tokens": 2}}
    frames = b"".join(
        [
            frame("response.created", response=response),
            frame("response.output_item.done", output_index=0, item={**item, "encrypted_content": "gAAA"}),
            frame("response.output_item.done", output_index=1, item=text),
            frame("response.completed", response=ended),
        ]
    )
    made = [json.loads(part.split(b"data: ")[1]) for part in chain.feed(frames).split(b"\n\n") if part]
    assert chain.is_done
    blocks = [event["content_block"]["type"] for event in made if event["type"] == "content_block_start"]
    assert blocks == ["thinking", "text"]
    (signature,) = [
        event["delta"]["signature"]
        for event in made
        if event.get("delta", {}).get("type") == "signature_delta"
    ]
    history: list[Json] = [
        user,
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "s", "signature": signature},
                {"type": "text", "text": "Hello"},
            ],
        },
        {"role": "user", "content": "more"},
    ]
    written = translated(MESSAGES, {**request, "messages": history}, RESPONSES, OPENAI)
    reasoning = next(item for item in written.fields["input"] if item["type"] == "reasoning")
    assert reasoning["encrypted_content"] == "gAAA"
