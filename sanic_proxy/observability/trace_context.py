"""The place of one request in a trace: W3C Trace Context (www.w3.org/TR/trace-context, level 1). Pure.

`traceparent` names the trace, the span of the caller and whether it is sampled; `tracestate` holds further
values of other tracing systems. A caller's headers that are not valid are ignored, as the specification
demands: the request is then the root of a new trace.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping

PARENT, STATE = "traceparent", "tracestate"
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_MEMBER = re.compile(
    r"(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
_SAMPLED = 1
# The limits of `tracestate`: members, and characters that every system has to pass on.
MAX_MEMBERS = 32
MAX_STATE_CHARS = 512
# Ids must be unique, not secret. Seeded from the operating system when a worker imports this.
_bits = random.Random().getrandbits  # noqa: S311


class TraceContext:
    """The span of one request, and those of its attempts.

    `trace_id` and the ids of spans are lower-case hexadecimal. `parent_id` is the caller's span; "" for the
    root of a trace. `state` is the caller's `tracestate`.
    """

    __slots__ = ("_attempts", "_current_id", "is_sampled", "parent_id", "span_id", "state", "trace_id")

    def __init__(self, trace_id: str, parent_id: str, state: str, *, is_sampled: bool) -> None:
        self.trace_id = trace_id
        self.parent_id = parent_id
        self.state = state
        self.is_sampled = is_sampled
        self.span_id = self._current_id = _new_id(64)
        self._attempts: dict[float, str] = {}

    def begin_attempt(self, started: float) -> None:
        """Begin the span of an attempt, which is known by its monotonic time."""
        self._attempts[started] = self._current_id = _new_id(64)

    def attempt_id(self, started: float) -> str:
        """The id of the span of the attempt that began at `started`."""
        return self._attempts.get(started) or _new_id(64)

    def child(self) -> TraceContext:
        """That of a further request, which this one causes."""
        return TraceContext(self.trace_id, self.span_id, self.state, is_sampled=self.is_sampled)

    def headers(self) -> dict[str, str]:
        """The headers of the attempt that has begun last."""
        found = {PARENT: f"00-{self.trace_id}-{self._current_id}-{int(self.is_sampled):02x}"}
        return {**found, STATE: self.state} if self.state else found


def context_of(headers: Mapping[str, str], is_root_sampled: Callable[[str], bool]) -> TraceContext:
    """The context of a request with these headers, whose names are in lower case.

    `is_root_sampled` decides by its id about a trace that begins here; else the caller has decided.
    """
    given = headers.get(PARENT)
    if given is None or (parent := _parsed(given)) is None:
        trace_id = _new_id(128)
        return TraceContext(trace_id, "", "", is_sampled=is_root_sampled(trace_id))
    trace_id, parent_id, flags = parent
    return TraceContext(trace_id, parent_id, _state(headers), is_sampled=bool(flags & _SAMPLED))


def passed_headers(trace: TraceContext | None, headers: Mapping[str, str]) -> dict[str, str]:
    """What a target gets that takes part in traces: the attempt's context, without one the client's own."""
    if trace is not None:
        return trace.headers()
    given = headers.get(PARENT)
    if given is None or _parsed(given) is None:
        return {}
    state = _state(headers)
    return {PARENT: given, STATE: state} if state else {PARENT: given}


def _parsed(text: str) -> tuple[str, str, int] | None:
    """Trace id, span id and flags; None for what is not valid. Later versions may have further fields."""
    match = _PARENT.fullmatch(text)
    if match is None or not text.isascii() or not text.isprintable():
        return None
    version, trace_id, span_id, flags, more = match.groups()
    is_known = version != "ff" and not (version == "00" and more is not None)
    return (
        (trace_id, span_id, int(flags, 16)) if is_known and int(trace_id, 16) and int(span_id, 16) else None
    )


def _state(headers: Mapping[str, str]) -> str:
    text = headers.get(STATE, "")
    if not text or len(text) > MAX_STATE_CHARS:
        return ""
    members = [member.strip(" \t") for member in text.split(",")]
    members = [member for member in members if member]
    is_good = len(members) <= MAX_MEMBERS and all(_MEMBER.fullmatch(member) for member in members)
    return ",".join(members) if is_good else ""


def _new_id(bits: int) -> str:
    return f"{_bits(bits) or 1:0{bits // 4}x}"
