"""One attempt: the request made one to its target, and a stream opened up to its first content."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sanic_proxy.dialects.chat import CHAT
from sanic_proxy.errors import ProxyError
from sanic_proxy.providers.base import ChatProvider, ChatRequest
from sanic_proxy.routing.adaption import aim
from sanic_proxy.routing.targets import Target
from sanic_proxy.streams.filters import StreamFilter
from sanic_proxy.streams.stream import Stream
from sanic_proxy.translation.translate import Translation


async def aimed(request: ChatRequest, target: Target[ChatProvider]) -> Translation | None:
    """As `aim`, in a thread where a large request is translated.

    That is Python code and may take a second: in a thread, the interpreter switches to the event loop every
    few milliseconds. Nothing else touches `request` meanwhile.
    """
    if request.is_small or request.dialect.name in target.provider.dialects:
        return aim(request, target)
    return await asyncio.to_thread(aim, request, target)


async def begun(
    target: Target[ChatProvider],
    request: ChatRequest,
    translation: Translation | None,
    joined: Callable[[Stream], Stream] | None = None,
    framing: StreamFilter | None = None,
) -> Stream:
    """The stream of `target`, which has begun. Raises its failure. The caller closes it.

    `joined` takes the stream where its frames are a chat's: in front of a translation for a client that does
    not speak chat, behind one for a client that does. `framing` is the client's (`Dialect.framing`).
    """
    try:
        stream = await target.provider.create_streaming_response(request)
    except ProxyError as exc:
        if translation is None:
            raise
        raise translation.error(exc) from None
    try:
        if target.saving.skip_malformed:
            stream.skip_malformed()
        if request.hides_usage and translation is None:
            stream.hide_usage()
        translator = None if translation is None else translation.stream_filter()
        if translator is not None and request.dialect is CHAT:
            stream.add_filter(translator)
            translator = None
        if joined is not None:
            stream = joined(stream)
        if translator is not None:
            stream.add_filter(translator)
        if framing is not None:
            stream.add_filter(framing)
        await stream.begin()
    except BaseException:
        stream.close()
        raise
    return stream
