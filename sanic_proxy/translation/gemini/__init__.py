"""Gemini's API to generate content as a format. Pure.

https://ai.google.dev/api/generate-content

The model and whether the answer is a stream are in the path of a request. `read_request` gets them beside the
client's fields, as `model` and `stream`; `write_request` leaves them out.
"""

from __future__ import annotations

from typing_extensions import override

from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.translation.conversation import Answer, Conversation
from sanic_proxy.translation.format import Format, StreamReader, StreamWriter, TargetTraits, WrittenRequest
from sanic_proxy.translation.gemini import answers, request_reader, request_writer
from sanic_proxy.translation.gemini.stream_reader import GeminiReader
from sanic_proxy.translation.gemini.stream_writer import GeminiWriter
from sanic_proxy.translation.gemini.values import API

__all__ = ["GeminiFormat"]


class GeminiFormat(Format):
    """See the module."""

    name = API

    @override
    def read_request(self, fields: JsonMapping) -> Conversation:
        return request_reader.read(fields)

    @override
    def write_request(self, conversation: Conversation, target: TargetTraits) -> WrittenRequest:
        return request_writer.write(conversation, target)

    @override
    def read_answer(self, fields: JsonMapping) -> Answer:
        return answers.read(fields)

    @override
    def write_answer(self, answer: Answer, asked: Conversation) -> Json:
        return answers.write(answer, asked)

    @override
    def reader(self, target: TargetTraits) -> StreamReader:
        return GeminiReader(target.provider)

    @override
    def writer(self, asked: Conversation) -> StreamWriter:
        return GeminiWriter(asked)
