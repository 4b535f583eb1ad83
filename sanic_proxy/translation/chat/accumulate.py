"""The frames of a native chat stream -> the completion that the provider answers without `stream`. Pure.

A delta says how the message of its choice grows, and this is the same for all fields, known or not: texts and
lists grow, objects grow by their members, and the objects of a list that have an `index` by that. What
names a thing (`id`, `type`, ...) comes once or is repeated, and does not grow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typing_extensions import override

from sanic_proxy import errors
from sanic_proxy.json_types import Json
from sanic_proxy.openai import codec
from sanic_proxy.streams import sse
from sanic_proxy.translation.format import Collector

_NAMES = frozenset({"finish_reason", "format", "id", "index", "name", "role", "stop_reason", "type"})


class CompletionAccumulator(Collector):
    """The completion of one stream. `feed` takes its frames in pieces of any size."""

    __slots__ = ("_choices", "_completion", "_splitter")

    def __init__(self) -> None:
        self._splitter = sse.FrameSplitter()
        self._completion: Json = {}
        self._choices: dict[int, Json] = {}

    @override
    def feed(self, frames: bytes) -> None:
        for frame in self._splitter.feed(frames):
            chunk = codec.loads_tolerant(frame.payload)
            if isinstance(chunk, dict):
                self._add(chunk)

    @override
    def body(self) -> bytes:
        """Raises UpstreamBadResponse for a stream without an answer."""
        if not self._choices:
            raise errors.UpstreamBadResponse("The provider's stream has no choices")
        choices = [_choice(self._choices[index]) for index in sorted(self._choices)]
        usage = {name: self._completion[name] for name in ("usage",) if name in self._completion}
        kept = {name: value for name, value in self._completion.items() if name != "usage"}
        return codec.dumps({**kept, "object": "chat.completion", "choices": choices, **usage})

    def _add(self, chunk: Json) -> None:
        choices = chunk.pop("choices", None)
        for name, value in chunk.items():
            if value is not None or name not in self._completion:
                self._completion[name] = value
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                index = choice.get("index")
                known = self._choices.setdefault(index if isinstance(index, int) else 0, {})
                _grow(known, choice)


class _Text(list[str]):
    """The pieces of a text, which are joined at the end: the time is linear in its length."""


def _grow(known: Json, delta: Mapping[str, Any]) -> None:
    for name, value in delta.items():
        known[name] = _grown(name, known.get(name), value)


def _grown(name: str, known: Any, value: Any) -> Any:
    if value is None:
        return known
    if isinstance(value, str) and name not in _NAMES:
        return _appended(known, value)
    if isinstance(value, dict):
        grown: Json = known if isinstance(known, dict) else {}
        _grow(grown, value)
        return grown
    if isinstance(value, list):
        return _extended(known if isinstance(known, list) and not isinstance(known, _Text) else [], value)
    return value if value != "" or known is None else known


def _appended(known: Any, piece: str) -> _Text:
    text = known if isinstance(known, _Text) else _Text()
    text.append(piece)
    return text


def _extended(known: list[Any], more: list[Any]) -> list[Any]:
    for item in more:
        index = item.get("index") if isinstance(item, dict) else None
        place = None
        if isinstance(index, int):
            place = next(
                (old for old in reversed(known) if isinstance(old, dict) and old.get("index") == index), None
            )
        if place is None:
            known.append(_grown("", None, item))
        else:
            _grow(place, item)
    return known


def _choice(grown: Json) -> Json:
    """A choice of a whole answer: its `delta` is the message, and its calls have no index."""
    choice: Json = _finished(grown)
    found = choice.pop("delta", None) or choice.pop("message", None)
    message: Json = {"role": "assistant", "content": None, **(found if isinstance(found, dict) else {})}
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        message["tool_calls"] = [
            {name: value for name, value in call.items() if name != "index"}
            for call in calls
            if isinstance(call, dict)
        ]
    finish = choice.pop("finish_reason", None)
    return {"index": choice.pop("index", 0), "message": message, **choice, "finish_reason": finish}


def _finished(value: Any) -> Any:
    if isinstance(value, _Text):
        return "".join(value)
    if isinstance(value, dict):
        return {name: _finished(item) for name, item in value.items()}
    return [_finished(item) for item in value] if isinstance(value, list) else value
