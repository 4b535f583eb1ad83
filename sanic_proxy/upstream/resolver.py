"""Host names -> addresses, such that one slow name delays no other.

`getaddrinfo` blocks for as long as the system's resolver likes: 5 to 40 s when a name server is silent.
asyncio and uvloop run it in a pool of a few threads that all names share, so that a handful of requests to
one dead name used to occupy every thread. Here:

- One lookup per name is in flight. Further callers wait for the same one, each as long as it wants to
  (`resolve` is cancelled by the caller's connect timeout); the lookup itself is never cancelled.
- Lookups have threads of their own, at most `MAX_THREADS`; more wait in a queue. A thread lives for one
  lookup and is a daemon, so that a lookup that hangs does not delay the end of the process.
- Addresses are fresh for `TTL_S`. Past that they are looked up again, and serve as stale ones (RFC 8767) for
  up to `MAX_STALE_S` where the lookup fails, or does not end within `STALE_WAIT_S`.
- A failure is remembered for `NEGATIVE_TTL_S`: shorter than the pause before a repeated attempt matters.

Names come from the settings, so their number is bounded. Literal addresses are returned as they are.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf

from sanic_proxy import errors

MAX_THREADS = 32
TTL_S = 30.0
NEGATIVE_TTL_S = 1.0
MAX_STALE_S = 3600.0
STALE_WAIT_S = 1.0

Address = tuple[socket.AddressFamily, str]
Lookup = Callable[[str], Sequence[Address]]


def system_lookup(host: str) -> Sequence[Address]:
    """The addresses of `host`, in the system's order of preference (RFC 6724). Blocks; raises OSError."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [(entry[0], str(entry[4][0])) for entry in found]


def literal_address(host: str) -> Address | None:
    """`host` as an address, if it is one."""
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return None
    return (socket.AF_INET if version == 4 else socket.AF_INET6), host


@dataclass(slots=True)
class _Name:
    """What is known of one name. Times are those of `time.monotonic`."""

    host: str
    addresses: Sequence[Address] = ()
    resolved_at: float = -inf
    next_lookup_at: float = -inf
    lookup_began_at: float = -inf
    lookup: asyncio.Future[None] | None = None  # done when the lookup in flight has ended, either way

    def is_usable(self, now: float) -> bool:
        return now - self.resolved_at < MAX_STALE_S


class Resolver:
    """One event loop's cache of names and its lookups in flight."""

    def __init__(self, lookup: Lookup = system_lookup, now: Callable[[], float] = time.monotonic) -> None:
        self._lookup = lookup
        self._now = now
        self._names: dict[str, _Name] = {}
        self._queue: deque[_Name] = deque()
        self._threads = 0

    async def resolve(self, host: str) -> Sequence[Address]:
        """The addresses of `host`. Raises UpstreamDnsFailed.

        May take as long as the system's resolver does: put a timeout around it.
        """
        if (literal := literal_address(host)) is not None:
            return (literal,)
        name = self._names.get(host)
        if name is None:
            name = self._names[host] = _Name(host)
        now = self._now()
        if now >= name.next_lookup_at:
            lookup = name.lookup or self._begin(name, now)
            wait_s = name.lookup_began_at + STALE_WAIT_S - now if name.is_usable(now) else None
            if wait_s is None or wait_s > 0:
                await asyncio.wait({lookup}, timeout=wait_s)
        if name.is_usable(self._now()):
            return name.addresses
        raise errors.UpstreamDnsFailed("The provider's host name could not be resolved")

    def close(self) -> None:
        """End all waits. Running lookups finish in their threads, and their results are dropped."""
        self._queue.clear()
        for name in self._names.values():
            if name.lookup is not None:
                name.lookup.cancel()
        self._names.clear()

    def _begin(self, name: _Name, now: float) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        name.lookup_began_at = now
        lookup = name.lookup = loop.create_future()
        if self._threads < MAX_THREADS:
            self._start_thread(name, loop)
        else:
            self._queue.append(name)
        return lookup

    def _start_thread(self, name: _Name, loop: asyncio.AbstractEventLoop) -> None:
        self._threads += 1
        thread = threading.Thread(target=self._run, args=(name, loop), name="dns-lookup", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system's limit of threads
            loop.call_soon(self._ended, name, (), loop)

    def _run(self, name: _Name, loop: asyncio.AbstractEventLoop) -> None:
        """In a thread: nothing of this object or of `name` is changed here."""
        found: Sequence[Address] = ()
        try:
            # UnicodeError: a label that is empty or longer than 63 characters.
            with suppress(OSError, UnicodeError):
                found = self._lookup(name.host)
        finally:
            with suppress(RuntimeError):  # the loop has been closed meanwhile
                loop.call_soon_threadsafe(self._ended, name, found, loop)

    def _ended(self, name: _Name, found: Sequence[Address], loop: asyncio.AbstractEventLoop) -> None:
        self._threads -= 1
        now = self._now()
        if found:
            name.addresses = tuple(dict.fromkeys(found))
            name.resolved_at = now
        name.next_lookup_at = now + (TTL_S if found else NEGATIVE_TTL_S)
        lookup, name.lookup = name.lookup, None
        if lookup is not None and not lookup.done():
            lookup.set_result(None)
        if self._queue:
            self._start_thread(self._queue.popleft(), loop)
