"""The provider `replay`: serves answers that a proxy has captured, with their timing, and with faults.

A client can so be tested again and again without a vendor. An answer is the captured one of an equal
conversation (`conversation_digest`), dialect and model; else the model's next one. What failed when it was
captured fails again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from typing_extensions import override

from sanic_proxy import errors
from sanic_proxy.config.capture import Fault
from sanic_proxy.config.model import ProviderSettings, Settings
from sanic_proxy.json_types import Json
from sanic_proxy.observability.capture import conversation_digest
from sanic_proxy.providers.base import (
    Answer,
    ChatProvider,
    ChatRequest,
    ProviderKind,
    WholeAnswer,
    protocol,
)
from sanic_proxy.providers.replay.recordings import Recording, Recordings
from sanic_proxy.streams.filters import StreamFilter
from sanic_proxy.streams.stream import Stream, stalled
from sanic_proxy.upstream.client import Response, UpstreamClient

HTTP_ERROR = 400
TOO_MANY_REQUESTS = 429

Frames = Sequence[tuple[float, bytes]]


@protocol("replay")
class ReplayProvider(ChatProvider):
    """See the module."""

    def __init__(self, provider: ProviderSettings, settings: Settings, client: UpstreamClient) -> None:
        super().__init__(provider, settings, client)
        self._recordings = Recordings(Path(settings.replay.file))
        self._speed = settings.replay.speed
        self._fault = settings.replay.fault

    @property
    @override
    def provider_kind(self) -> ProviderKind:
        return "embedded"

    @override
    async def send_request(self, request: ChatRequest) -> Answer:
        return Answer(self, request, self._answer(request))

    @override
    async def parse_non_streaming(self, answer: Answer) -> WholeAnswer:
        body = await answer.source.read_all()
        answer.request.record.usage = answer.request.wire.usage_in(body)
        return WholeAnswer(body, [("content-type", "application/json")])

    @override
    async def create_streaming_response(self, request: ChatRequest) -> Stream:
        return Stream(self._answer(request), StreamFilter(), request.record)

    @override
    async def list_models(self) -> list[Json]:
        return [{"id": name} for name in self._recordings.models]

    def _answer(self, request: ChatRequest) -> TimedFrames:
        """The answer to a request as it comes. Raises the error with which it begins, if it does."""
        raise_status(self._fault)
        recording = self._recordings.find(
            request.wire.name,
            request.upstream_model,
            conversation_digest(request.fields),
            is_streaming=request.is_streaming,
        )
        if not recording.frames:
            raise failure_of(recording)
        if request.is_streaming:
            request.record.usage = recording.usage
        frames, end = self._with_fault(recording)
        speed = self._speed
        timed = [(at_s / speed if speed else 0.0, frame) for at_s, frame in frames]
        if self._fault is not None and self._fault.name == "slow":
            timed = [(number / self._fault.rate, frame) for number, (_, frame) in enumerate(timed)]
        return TimedFrames(timed, end, silence_s=self._silence_s)

    def _with_fault(self, recording: Recording) -> tuple[Frames, errors.ProxyError | None]:
        """The frames to send, and the error after them."""
        end = None if recording.is_complete else failure_of(recording)
        if self._fault is None:
            return recording.frames, end
        events = split_events(recording.frames)
        if self._fault.name == "cut":
            return first_half(events), errors.UpstreamDisconnected("The answer was cut, as asked")
        if self._fault.name == "stall":
            return first_half(events), stalled(self.settings.timeouts.stall_s)
        return events, end

    @property
    def _silence_s(self) -> float:
        """How long the connection is silent before the error at its end."""
        is_stalled = self._fault is not None and self._fault.name == "stall"
        return self.settings.timeouts.stall_s if is_stalled else 0.0


class TimedFrames(Response):
    """Frames that come at their times, in seconds since this was made, and `end` after them.

    `silence_s` pass before `end`.
    """

    __slots__ = ("_end", "_frames", "_silence_s", "_started")

    def __init__(self, frames: Frames, end: errors.ProxyError | None, *, silence_s: float = 0.0) -> None:
        self._frames = list(reversed(frames))
        self._end = end
        self._silence_s = silence_s
        self._started = asyncio.get_running_loop().time()

    @override
    async def read_some(self, wait_s: float | None = None) -> bytes | None:
        if not self._frames:
            if self._end is not None:
                await asyncio.sleep(self._silence_s)
                raise self._end
            return b""
        at_s, frame = self._frames[-1]
        left_s = self._started + at_s - asyncio.get_running_loop().time()
        if wait_s is not None and left_s > wait_s:
            await asyncio.sleep(wait_s)
            return None
        if left_s > 0:
            await asyncio.sleep(left_s)
        self._frames.pop()
        return frame


def raise_status(fault: Fault | None) -> None:
    """Raise the error of a fault that is a status."""
    if fault is None:
        return
    if fault.name == "429":
        raise errors.RateLimited("The rate limit is reached, as asked", retry_after_s=1)
    if fault.name == "500":
        raise errors.UpstreamError("The provider fails, as asked", code="replay_error", status=500)


def failure_of(recording: Recording) -> errors.ProxyError:
    """The error for an answer that was not complete when it was captured."""
    status, ended = recording.status, recording.ended or "unknown"
    message = f"The captured answer was not complete: {ended}"
    if status == TOO_MANY_REQUESTS:
        return errors.RateLimited(message)
    if status >= HTTP_ERROR:
        return errors.UpstreamError(message, code=ended, status=status)
    return errors.UpstreamDisconnected(message)


def split_events(frames: Frames) -> list[tuple[float, bytes]]:
    """The same bytes with one server-sent event in each frame."""
    return [
        (at_s, event)
        for at_s, frame in frames
        for event in (part + b"\n\n" for part in frame.removesuffix(b"\n\n").split(b"\n\n"))
    ]


def first_half(frames: Frames) -> Frames:
    """At least one of several frames; none of a single one."""
    return frames[: len(frames) // 2]
