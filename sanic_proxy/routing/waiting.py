"""Requests that wait for a limit of their targets instead of being refused. A queue per model and worker.

Only the head of the queue looks whether a target is free, when the first of their limits may be over; all
others wait for their turn. The queue is fair between clients: they take turns, and the requests of each
client keep their order. It is bounded in length, and in time by `max_wait_s` and by the deadline of each
request. A request whose wait would be longer is refused at once. Workers have queues of their own; which one
gets a free place of a shared limit is decided by chance.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import Generic, TypeVar

T = TypeVar("T")

MAX_WAITING = 1000


class FairQueue(Generic[T]):
    """Round robin over clients, first in first out for each."""

    __slots__ = ("_by_client",)

    def __init__(self) -> None:
        self._by_client: OrderedDict[str, deque[T]] = OrderedDict()

    @property
    def head(self) -> T | None:
        """The item whose turn it is."""
        return next((items[0] for items in self._by_client.values()), None)

    def add(self, client: str, item: T) -> None:
        """Append an item of `client`."""
        self._by_client.setdefault(client, deque()).append(item)

    def remove(self, client: str, item: T) -> None:
        """Take an item out, wherever it is. If it was the head, the next client has its turn."""
        items = self._by_client[client]
        was_head = self.head is item
        items.remove(item)
        if not items:
            del self._by_client[client]
        elif was_head:
            self._by_client.move_to_end(client)

    def ahead_of(self, client: str) -> int:
        """How many items come before one that `client` would add now."""
        own = len(self._by_client.get(client, ()))
        return sum(
            min(len(items), own + 1) if name != client else own for name, items in self._by_client.items()
        )


class RequestQueue:
    """The requests of one worker that wait for the limits of a model's targets; `waiting` is their number.

    While there are some, a new one must not overtake them.
    """

    __slots__ = ("_changed", "_queue", "max_wait_s", "max_waiting", "waiting")

    def __init__(self, max_wait_s: float, max_waiting: int = MAX_WAITING) -> None:
        self.max_wait_s = max_wait_s
        self.max_waiting = max_waiting
        self.waiting = 0
        self._queue: FairQueue[asyncio.Future[None]] = FairQueue()
        self._changed: asyncio.Future[None] | None = None

    def ahead_of(self, client: str) -> int:
        """How many requests would be served before a new one of `client`."""
        return self._queue.ahead_of(client)

    def join(self, client: str) -> asyncio.Future[None]:
        """Wait at the end. The future is done when it is the request's turn; `leave` must be called."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.add(client, turn)
        self.waiting += 1
        self._call_head()
        return turn

    def leave(self, client: str, turn: asyncio.Future[None]) -> None:
        """The request has been sent, was refused, or its client has left."""
        self._queue.remove(client, turn)
        self.waiting -= 1
        self._call_head()

    def wake(self) -> None:
        """A request to one of the targets has ended: the head may try again."""
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    async def changed(self, within_s: float) -> None:
        """Wait until `wake`, or for `within_s`."""
        loop = asyncio.get_running_loop()
        self._changed = changed = loop.create_future()
        timer = loop.call_later(within_s, self.wake)
        try:
            await changed
        finally:
            timer.cancel()

    def _call_head(self) -> None:
        head = self._queue.head
        if head is not None and not head.done():
            head.set_result(None)
