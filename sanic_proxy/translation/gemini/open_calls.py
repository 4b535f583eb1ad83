"""Calls that have no result yet. Pure."""

from __future__ import annotations

from collections import defaultdict, deque
from itertools import count

from sanic_proxy.translation.conversation import ToolCall


class OpenCalls:
    """Finds calls by id and by name. The cost of a conversation is linear in its calls.

    Each call is in two queues. One that was taken by its id is still in the queue of its name, or the other
    way round, until it reaches the front there.
    """

    __slots__ = ("_by_id", "_by_name", "_numbers", "_open")

    def __init__(self) -> None:
        self._numbers = count()
        self._open: dict[int, ToolCall] = {}
        self._by_id: defaultdict[str, deque[int]] = defaultdict(deque)
        self._by_name: defaultdict[str, deque[int]] = defaultdict(deque)

    def add(self, call: ToolCall) -> None:
        number = next(self._numbers)
        self._open[number] = call
        self._by_id[call.id].append(number)
        self._by_name[call.name].append(number)

    def take(self, id_: str | None, name: str) -> ToolCall | None:
        """Remove and return the oldest call with this id or, if there is none, with this name."""
        return self._take(self._by_id.get(id_ or "")) or self._take(self._by_name.get(name))

    def _take(self, numbers: deque[int] | None) -> ToolCall | None:
        while numbers:
            if (call := self._open.pop(numbers.popleft(), None)) is not None:
                return call
        return None
