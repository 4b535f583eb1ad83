"""One request in a client's format -> a target's, and the answer back. Does no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from typing_extensions import override

from sanic_proxy import errors
from sanic_proxy.json_types import JsonMapping
from sanic_proxy.openai import codec
from sanic_proxy.streams import sse
from sanic_proxy.streams.filters import StreamFilter
from sanic_proxy.translation.collect import AnswerCollector
from sanic_proxy.translation.conversation import Answer, Conversation, Event, Reasoning
from sanic_proxy.translation.format import Collector, Format, StreamReader, StreamWriter, TargetTraits
from sanic_proxy.translation.tool_names import EventRestorer, restored_parts


class Translation:
    """A request as it was translated for one target, and the translator of its answer.

    `fields` is the request in the target's format. `dropped` names what the target's format cannot express.
    """

    __slots__ = ("_asked", "_client", "_originals", "dropped", "fields", "target", "traits")

    def __init__(self, client: Format, asked: Conversation, target: Format, traits: TargetTraits) -> None:
        written = target.write_request(asked, traits)
        self._client, self._asked, self.target, self.traits = client, asked, target, traits
        self._originals = written.originals
        self.fields = written.fields
        self.dropped: Sequence[str] = written.dropped

    def whole(self, body: bytes) -> bytes:
        """A whole answer of the target, in the client's format. Raises UpstreamBadResponse."""
        parsed = codec.loads_tolerant(body)
        if not isinstance(parsed, dict):
            raise errors.UpstreamBadResponse("The provider's answer is not a JSON object")
        return self.written(self.target.read_answer(parsed))

    def written(self, answer: Answer) -> bytes:
        """`answer` in the client's format."""
        for part in answer.parts:
            if isinstance(part, Reasoning) and part.signature and not part.origin:
                part.origin = self.traits.provider
        if self._originals:
            answer.parts = restored_parts(answer.parts, self._originals)
        return codec.dumps(self._client.write_answer(answer, self._asked))

    def error(self, error: errors.ProxyError) -> errors.ProxyError:
        """A failure of the target without the target's own body, which is not in the client's format."""
        return error.replaced(body=b"") if error.body else error

    def collector(self) -> Collector:
        """A collector of a whole answer in the client's format from a stream of the target."""
        return _Collector(self)

    def stream_filter(self) -> StreamFilter:
        """A filter for one stream of the target, behind the guard of the target's dialect."""
        restorer = EventRestorer(self._originals) if self._originals else None
        return TranslationFilter(self.target.reader(self.traits), self._client.writer(self._asked), restorer)


def translated(
    client: Format,
    fields: JsonMapping,
    target: Format,
    traits: TargetTraits,
    repeated: JsonMapping | None = None,
) -> Translation:
    """`fields`, a request in the format `client`, for a target. Raises InvalidRequest.

    `repeated` has fields of the answer, besides those that repeat the request's.
    """
    asked = client.read_request(fields)
    if repeated:
        asked.repeated = {**asked.repeated, **repeated}
    return Translation(client, asked, target, traits)


class _Collector(Collector):
    """See `Translation.collector`: the target's events, as the whole answer of the client's format."""

    def __init__(self, translation: Translation) -> None:
        self._translation = translation
        self._reader = translation.target.reader(translation.traits)
        self._splitter = sse.FrameSplitter()
        self._events = AnswerCollector()

    @override
    def feed(self, frames: bytes) -> None:
        for frame in self._splitter.feed(frames):
            for event in self._reader.read(frame):
                self._events.add(event)

    @override
    def body(self) -> bytes:
        for event in self._reader.end():
            self._events.add(event)
        return self._translation.written(self._events.answer())


class TranslationFilter(StreamFilter):
    """Whole frames of one format -> frames of another one.

    Without a `restorer` no tool has another name for the target than for the client.
    """

    __slots__ = ("_reader", "_restorer", "_splitter", "_writer", "failure")

    def __init__(self, reader: StreamReader, writer: StreamWriter, restorer: EventRestorer | None) -> None:
        self._reader = reader
        self._writer = writer
        self._restorer = restorer
        self._splitter = sse.FrameSplitter()
        self.failure: errors.ProxyError | None = None

    @override
    def feed(self, data: bytes) -> bytes:
        read, write = self._reader.read, self._writer.write
        written: list[bytes] = []
        try:
            for frame in self._splitter.whole_frames(data) or self._splitter.feed(data):
                written += map(write, self._restored(read(frame)))
        except errors.ProxyError as exc:
            self.failure = exc
        return b"".join(written)

    @override
    def failed(self, error: errors.ProxyError) -> bytes:
        return self._writer.failed(error)

    @override
    def end(self) -> bytes:
        last = map(self._writer.write, self._restored(self._reader.end()))
        return b"".join([*last, self._writer.end()])

    def _restored(self, events: Iterable[Event]) -> Iterable[Event]:
        restorer = self._restorer
        if restorer is None:
            return events
        return (restored for event in events for restored in restorer.restored(event))
