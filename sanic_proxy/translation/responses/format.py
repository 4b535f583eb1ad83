"""OpenAI's Responses API as a format: see `Format`."""

from __future__ import annotations

from collections.abc import Callable

from typing_extensions import override

from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.openai import chunks
from sanic_proxy.translation.conversation import Answer, Conversation
from sanic_proxy.translation.format import Format, StreamReader, StreamWriter, TargetTraits, WrittenRequest
from sanic_proxy.translation.responses.answer_reader import read_answer
from sanic_proxy.translation.responses.request_reader import read_request
from sanic_proxy.translation.responses.request_writer import write_request
from sanic_proxy.translation.responses.stream_reader import ResponsesStreamReader
from sanic_proxy.translation.responses.stream_writer import ResponsesStreamWriter, whole_response


class ResponsesFormat(Format):
    """See the module.

    `now` is the clock of responses, in whole seconds since 1970. `has_done_marker`: streams end with
    `data: [DONE]`, as Open Responses demands it and OpenAI does not.
    """

    name = "responses"

    def __init__(self, *, now: Callable[[], int] = chunks.now, has_done_marker: bool = False) -> None:
        self._now = now
        self._has_done_marker = has_done_marker

    @override
    def read_request(self, fields: JsonMapping) -> Conversation:
        return read_request(fields)

    @override
    def write_request(self, conversation: Conversation, target: TargetTraits) -> WrittenRequest:
        return write_request(conversation, target)

    @override
    def read_answer(self, fields: JsonMapping) -> Answer:
        return read_answer(fields)

    @override
    def write_answer(self, answer: Answer, asked: Conversation) -> Json:
        return whole_response(answer, asked, self._now)

    @override
    def reader(self, target: TargetTraits) -> StreamReader:
        return ResponsesStreamReader(target.provider)

    @override
    def writer(self, asked: Conversation) -> StreamWriter:
        return ResponsesStreamWriter(asked, self._now, has_done_marker=self._has_done_marker)
