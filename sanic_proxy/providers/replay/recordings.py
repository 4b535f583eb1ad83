"""A file of captured content, as answers to replay: which one a request gets.

The file is read once for an index; an answer is read when it is replayed, as a file may have gigabytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sanic_proxy import errors
from sanic_proxy.openai import codec
from sanic_proxy.streams import sse

MAX_LISTED = 10


@dataclass(frozen=True, slots=True)
class Recording:
    """One captured answer. `frames` are pairs of seconds since the request began, and bytes.

    A whole answer is one frame. `is_complete`: the answer has its end.
    """

    frames: tuple[tuple[float, bytes], ...]
    status: int
    ended: str
    is_complete: bool
    usage: dict[str, Any] | None = None


@dataclass(slots=True)
class _Answers:
    """The places of the lines for one dialect, model and form of answer, and how often each was asked for."""

    places: list[int] = field(default_factory=list)
    by_digest: dict[str, list[int]] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)

    def next(self, digest: str) -> int:
        """The answers to equal requests in turn; those of the model in turn for any other request."""
        same = self.by_digest.get(digest)
        key, places = (digest, same) if same else ("", self.places)
        count = self.asked.get(key, 0)
        self.asked[key] = count + 1
        return places[count % len(places)]


_Key = tuple[str, str, bool]  # dialect, model, is it streamed


class Recordings:
    """The answers in the file at `path`. Lines that are no captures are skipped."""

    def __init__(self, path: Path) -> None:
        """Read the index. Raises OSError."""
        self._path = path
        self._answers: dict[_Key, _Answers] = {}
        for place, line in _lines(path):
            key = str(line.get("dialect")), str(line.get("model")), bool(line.get("stream"))
            answers = self._answers.setdefault(key, _Answers())
            answers.places.append(place)
            if isinstance(digest := line.get("digest"), str):
                answers.by_digest.setdefault(digest, []).append(place)

    @property
    def models(self) -> list[str]:
        """The names of the models with answers."""
        return sorted({model for _, model, _ in self._answers})

    def find(self, dialect: str, model: str, digest: str, *, is_streaming: bool) -> Recording:
        """The answer to a request. Raises ModelNotFound where none was captured for the model."""
        answers = self._answers.get((dialect, model, is_streaming))
        if answers is None:
            raise errors.ModelNotFound(self._missing(dialect, model, is_streaming=is_streaming))
        with self._path.open("rb") as file:
            file.seek(answers.next(digest))
            line = _parsed(file.readline())
        if line is None:
            raise errors.UpstreamError("The file of captured answers has changed: start the proxy again")
        return recording_of(line)

    def _missing(self, dialect: str, model: str, *, is_streaming: bool) -> str:
        form = "streamed" if is_streaming else "whole"
        known = [
            f"{name} ({api}, {'streamed' if streams else 'whole'})" for api, name, streams in self._answers
        ]
        more = f" and {len(known) - MAX_LISTED} more" if len(known) > MAX_LISTED else ""
        listed = ", ".join(known[:MAX_LISTED]) or "none"
        return (
            f"No {form} answer of the {dialect} API was captured for the model {model[:80]!r}; captured: "
            f"{listed}{more}"
        )


def recording_of(line: dict[str, Any]) -> Recording:
    """The answer in a line of the file."""
    body, frames = line.get("body"), line.get("frames")
    elapsed_s = float(line.get("ms") or 0.0) / 1000
    pieces: list[tuple[float, bytes]] = []
    if isinstance(body, str) and body:
        pieces = [(elapsed_s, body.encode())]
    elif isinstance(frames, list):
        pieces = [(float(at_ms) / 1000, as_events(str(text)).encode()) for at_ms, text in frames]
    ended = str(line.get("ended") or "")
    return Recording(
        tuple(pieces),
        int(line.get("status") or 0),
        ended,
        ended == "complete" and not line.get("cut"),
        line["usage"] if isinstance(line.get("usage"), dict) else None,
    )


def as_events(text: str) -> str:
    """A piece of a stream as server-sent events: Gemini's clients may also get elements of a JSON array."""
    elements = text.removeprefix("[").removeprefix(",").removesuffix("]").strip()
    if text[:1] not in {"[", ",", "]"}:
        return text
    found = codec.loads_tolerant(f"[{elements}]".encode())
    return "".join(sse.encode(codec.dumps(element)).decode() for element in found)


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The captures in a file, each with its place."""
    place = 0
    with path.open("rb") as file:
        for text in file:
            if (line := _parsed(text)) is not None:
                yield place, line
            place += len(text)


def _parsed(text: bytes) -> dict[str, Any] | None:
    try:
        line = codec.loads_tolerant(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) and "dialect" in line else None
