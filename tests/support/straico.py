"""A scripted Straico: answers in turn, and uploads, which are no JSON."""

from __future__ import annotations

import asyncio
import email.parser
import email.policy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from typing_extensions import override

from tests.support.upstream import Exchange, Script, Seen, Upstream, straico_completion

UPLOAD = "/v0/file/upload"
PROMPT = "/v1/prompt/completion"


@dataclass
class File:
    """One uploaded file."""

    field_name: str
    name: str
    kind: str
    content: bytes


@dataclass
class StraicoUpstream(Upstream):
    """Like `Upstream`, and takes uploads; `busiest` is how many of them were open at once."""

    files: list[File] = field(default_factory=list)
    uploading: int = 0
    busiest: int = 0
    upload: Script | None = None
    upload_pause_s: float = 0.0

    @override
    def _judge(self, seen: Seen, version: str) -> None:
        if seen.path != UPLOAD:
            super()._judge(seen, version)
            return
        self.files.append(file_in(seen))
        if seen.header("accept-encoding") != "identity" or not seen.header("authorization"):
            self.problems.append("an upload without its headers")

    @override
    def _script_for(self, seen: Seen) -> Script:
        if seen.path == UPLOAD:
            return self._upload
        return super()._script_for(seen)

    async def _upload(self, exchange: Exchange) -> None:
        self.uploading += 1
        self.busiest = max(self.busiest, self.uploading)
        name = self.files[-1].name
        try:
            if self.upload is not None:
                await self.upload(exchange)
                return
            await asyncio.sleep(self.upload_pause_s)
            await exchange.answer({"data": {"url": f"https://files.example/{name}"}, "success": True}, 201)
        finally:
            self.uploading -= 1

    def prompts(self) -> list[Any]:
        return [seen.json for seen in self.requests if seen.path == PROMPT]

    def forget(self) -> None:
        self.requests.clear()
        self.problems.clear()
        self.files.clear()
        self.forget_scripts()
        self.upload, self.upload_pause_s, self.busiest = None, 0.0, 0


def file_in(seen: Seen) -> File:
    """The one file of a multipart body, read by the standard library."""
    head = f"content-type: {seen.header('content-type')}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + seen.body)
    (part,) = message.iter_parts()
    name = part.get_param("name", header="content-disposition")
    # The exact bytes of the body: the library normalizes line ends.
    content = seen.body.partition(b"\r\n\r\n")[2].rpartition(b"\r\n--")[0]
    return File(str(name), str(part.get_filename()), part.get_content_type(), content)


@contextmanager
def running_upstream() -> Iterator[StraicoUpstream]:
    upstream = StraicoUpstream()
    upstream.start()
    yield upstream
    upstream.stop()


def in_turn(*replies: Any, after_s: float = 0.0) -> Script:
    """Answer the first request with the first, and so on; a Script among them is run instead."""
    left = list(replies)

    async def script(exchange: Exchange) -> None:
        reply = left.pop(0)
        await asyncio.sleep(after_s)
        if callable(reply):
            await reply(exchange)
        else:
            await exchange.answer(straico_completion(reply) if isinstance(reply, str) else reply)

    return script


def always(reply: Any) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(reply)

    return script


def failing(status: int, text: str) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.answer({"error": text, "success": False}, status)

    return script


async def never(exchange: Exchange) -> None:
    await exchange.client_leaves()


def v1_reply(text: str) -> dict[str, Any]:
    """As the prompt endpoint answers."""
    reply = straico_completion(text)
    cost = {"price": reply.pop("price"), "words": reply.pop("words")}
    completions = {"some/model": {"completion": reply, **cost}}
    overall = {f"overall_{key}": value for key, value in cost.items()}
    return {"success": True, "data": {**overall, "completions": completions}}
