"""The chunks of a streamed chat completion, and the ids of completions and calls. Pure."""

from __future__ import annotations

import secrets
import time
from typing import Literal

from sanic_proxy.json_types import Json


def new_completion_id() -> str:
    return f"chatcmpl-{secrets.token_hex(14)}"


def new_call_id() -> str:
    return f"call_{secrets.token_hex(12)}"


def now() -> int:
    """The wall clock in whole seconds, as `created` wants it."""
    return int(time.time())


def chunk(
    head: ChunkHead,
    delta: Json,
    finish_reason: str | None = None,
    *,
    index: int = 0,
    logprobs: object = None,
) -> Json:
    """One chat.completion.chunk with all fields that OpenAI's specification requires."""
    choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
    return head.around([choice])


class ChunkHead:
    """What all chunks of one stream share: id, model and created.

    With `include_usage` every chunk but the last carries `usage: null`, as OpenAI's do. `initial_content` is
    the content of the first chunk: null if the answer consists of calls, or may.
    """

    __slots__ = ("created", "id", "include_usage", "initial_content", "model")

    def __init__(
        self,
        *,
        id: str,
        model: str,
        created: int,
        include_usage: bool,
        initial_content: Literal[""] | None = "",
    ) -> None:
        self.id = id
        self.model = model
        self.created = created
        self.include_usage = include_usage
        self.initial_content = initial_content

    def around(self, choices: list[Json], usage: object = None) -> Json:
        made: Json = {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }
        if self.include_usage:
            made["usage"] = usage
        return made
