"""OpenAI's chat completions as a format of translations, in both directions.

Parts of a request that a chat cannot express are dropped, and named in `WrittenRequest.dropped`: see
`request_writer` for the names. Parts of an answer that a chat completion has no field for go into fields that
clients know from other servers: `reasoning_content` and `reasoning_details` (see `reasoning`), `stop_reason`
(see `finish`).
"""

from __future__ import annotations

from typing_extensions import override

from sanic_proxy.json_types import Json, JsonMapping
from sanic_proxy.translation.chat import answers, request_reader, request_writer
from sanic_proxy.translation.chat.stream_reader import ChatStreamReader
from sanic_proxy.translation.chat.stream_writer import ChatStreamWriter
from sanic_proxy.translation.conversation import Answer, Conversation
from sanic_proxy.translation.format import Format, StreamReader, StreamWriter, TargetTraits, WrittenRequest


class ChatFormat(Format):
    """See the module."""

    name = "chat"

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
        return ChatStreamReader(target.provider)

    @override
    def writer(self, asked: Conversation) -> StreamWriter:
        return ChatStreamWriter(asked)


__all__ = ["ChatFormat"]
