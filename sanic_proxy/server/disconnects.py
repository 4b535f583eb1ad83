"""Notices that a client has left while nothing is read from its connection.

An event loop learns of a peer's FIN by reading: it comes behind all bytes that have been sent before it.
While reading is paused (requests that wait their turn, an upload that its provider takes slowly) the FIN
waits unseen behind unread bytes, and work for a client that has left goes on. Linux reports
the FIN itself, whatever precedes it, as EPOLLRDHUP; but event loops do not ask for that. So a paused
connection gets an epoll of its own that asks for nothing else, and the loop watches that epoll: it becomes
readable when the peer closes or resets the connection.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import Any


class DisconnectWatch:
    """Calls `on_disconnect` once the peer has closed the connection. The caller must close the watch.

    It holds one descriptor. Without a free one, and on systems without epoll, nothing is watched.
    """

    __slots__ = ("_epoll", "_loop")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, socket: Any, on_disconnect: Callable[[], object]
    ) -> None:
        self._loop = loop
        self._epoll: select.epoll | None = None
        if socket is None or not hasattr(select, "epoll"):
            return
        epoll = None
        try:
            epoll = select.epoll()
            epoll.register(socket.fileno(), select.EPOLLRDHUP | select.EPOLLET)
            loop.add_reader(epoll.fileno(), on_disconnect)
        except (OSError, ValueError):  # no free descriptor, or the socket is closed
            if epoll is not None:
                epoll.close()
        else:
            self._epoll = epoll

    def close(self) -> None:
        """Stop watching. Safe to call twice."""
        if self._epoll is not None:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None
