"""Anthropic's Messages API as a format. Pure.

https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

from typing_extensions import override

from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.translation.conversation import Answer, Conversation
from sanic_proxy.translation.format import Format, StreamReader, StreamWriter, TargetTraits, WrittenRequest
from sanic_proxy.translation.messages import answers, request_reader, request_writer
from sanic_proxy.translation.messages.stream_reader import MessagesReader
from sanic_proxy.translation.messages.stream_writer import MessagesWriter
from sanic_proxy.translation.messages.values import API

__all__ = ["MessagesFormat"]


class MessagesFormat(Format):
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
        return MessagesReader(target.provider)

    @override
    def writer(self, asked: Conversation) -> StreamWriter:
        return MessagesWriter(asked.model)
