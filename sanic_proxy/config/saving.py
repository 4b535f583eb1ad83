"""How broken streams are saved: the keys of a model's and a provider's table, and what they accept."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, get_args

from typing_extensions import override

from sanic_proxy.config.variables import Duration, Kind, Schema

OnCut = Literal["error", "continue", "restart"]
# How a provider is asked to continue an answer: by the answer's beginning as the last message, of the role
# `assistant`, and the mark that it wants on that message or beside the messages.
Continuation = Literal["", "assistant", "prefix", "partial", "continue_final_message"]

ON_CUT: tuple[OnCut, ...] = get_args(OnCut)
CONTINUATIONS: tuple[Continuation, ...] = get_args(Continuation)[1:]
MAX_FRAMES = 100_000


@dataclass(frozen=True, slots=True)
class HoldBack:
    """How long a stream's content is held back: for so many seconds or frames from the first content on."""

    seconds: float = math.inf
    frames: float = math.inf


@dataclass(frozen=True, slots=True)
class StreamSaving:
    """What is done about a model's streams that break off.

    While `hold_back` lasts, the client sees nothing, and a stream that fails is replaced as if it had never
    begun. `on_cut` is for those that fail later. `skip_malformed`: a malformed frame is no failure.
    `collects`: whole answers are put together from streams, so that the same clocks hold for them.
    """

    hold_back: HoldBack | None = None
    on_cut: OnCut = "error"
    skip_malformed: bool = False
    collects: bool = False


NO_SAVING = StreamSaving()

_FRAMES = re.compile(r"([0-9]{1,6}) ?frames?")
_DURATION = Duration(zero=True)


@dataclass(frozen=True)
class HoldBackKind(Kind[HoldBack | None]):
    """`2`, `"500ms"`, `"20 frames"`, `"all"`; None for 0."""

    @property
    @override
    def expects(self) -> str:
        return f'"all", a number of frames from 1 to {MAX_FRAMES} ("20 frames"), or {_DURATION.expects}'

    @override
    def parse(self, text: str) -> HoldBack | None:
        plain = text.strip().lower()
        if plain == "all":
            return HoldBack()
        if (found := _FRAMES.fullmatch(plain)) is not None:
            if not 1 <= int(found[1]) <= MAX_FRAMES:
                raise ValueError
            return HoldBack(frames=int(found[1]))
        seconds = _DURATION.parse(plain)
        return HoldBack(seconds=seconds) if seconds else None

    @override
    def schema(self) -> Schema:
        return {"type": ["number", "string"], "minimum": 0}


@dataclass(frozen=True)
class ContinuationKind(Kind[Continuation | bool]):
    """`true`, `false` or the name of a mark."""

    @property
    @override
    def expects(self) -> str:
        return f"true, false or one of {', '.join(CONTINUATIONS)}"

    @override
    def parse(self, text: str) -> Continuation | bool:
        for name in CONTINUATIONS:
            if text == name:
                return name
        raise ValueError

    @override
    def from_toml(self, value: object) -> Continuation | bool:
        return value if isinstance(value, bool) else super().from_toml(value)

    @override
    def schema(self) -> Schema:
        return {"enum": [True, False, *CONTINUATIONS]}


def continuation(declared: Continuation | bool | None, known: Continuation) -> Continuation:
    """How a target is asked to continue an answer; `known` holds where `declared` is None or `true`."""
    if declared is None:
        return known
    if declared is True:
        return known or "assistant"
    return declared or ""
