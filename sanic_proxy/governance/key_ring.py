"""The clients of one worker, by their keys: those of the settings, and those with keys made at run time.

Theory. A key of the settings is found in memory. Any other may be in the store: the first request with it
waits for a look-up, whose result is kept, also that there is no such key. Look-ups are done in batches, one
at a time and at most one in `INTERVAL_S`, so a flood of unknown keys costs a bounded number of transactions;
what does not fit into the queue is refused with a 503. Each transaction also reads which clients have changed
since the last one, and these are forgotten. The store announces commits of other processes, and the worker
reads the changes then: so a block holds within the store's polling interval. While the store does not exist,
nothing is read and no file is made.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from sanic_proxy.config.model import Settings
from sanic_proxy.config.rules import ClientRules
from sanic_proxy.errors import Overloaded, StoreFailed, Unauthorized
from sanic_proxy.governance import keys
from sanic_proxy.governance.keys import FoundKey
from sanic_proxy.observability.record import Client
from sanic_proxy.state_store.base import Connection, StateStore, StoreError

logger = logging.getLogger(__name__)

MAX_REMEMBERED = 4096
# Clients and refused keys that are kept in memory.
MAX_KEPT = 16_384
# How often a worker reads keys from the store at most, and how many at once.
INTERVAL_S = 0.02
MAX_BATCH = 500
MAX_WAITING = 2_000
_ID_DIGITS = 16
_LABEL_DIGITS = 8
_UNKNOWN = "Incorrect API key provided: it is not one of this proxy's keys"
_BLOCKED = "The API key is blocked"


class UnknownKey(Unauthorized):
    """The key may be in the store: `KeyRing.look_up` knows."""

    def __init__(self, digest: bytes) -> None:
        super().__init__(_UNKNOWN)
        self.digest = digest


@dataclass(frozen=True, slots=True)
class _Read:
    """What one transaction has read: the number of the latest change, whose clients have changed, and keys.

    `count` is the number of all clients; None where nothing has changed.
    """

    number: int
    changed: Sequence[str]
    count: int | None
    found: dict[str, FoundKey]


class KeyRing:
    """See the module. Keys are compared as digests of the whole key.

    The time of a look-up depends on digests alone, which clients cannot choose. `store` is None where no key
    can be made at run time. `on_found` is called when a client of the store comes into memory, before any of
    its requests goes on: it may have limits.
    """

    def __init__(
        self,
        settings: Settings,
        store: StateStore | None = None,
        on_found: Callable[[], None] = lambda: None,
    ) -> None:
        digests = [_digest(key.reveal()) for key in settings.api_keys]
        self._clients = {digest: _unlimited(digest) for digest in digests}
        for entry in settings.clients:
            client = Client(id=entry.rules.id, name=entry.rules.name, rules=entry.rules)
            self._clients.update((bytes.fromhex(digest), client) for digest in entry.digests)
        self._known: dict[str | None, Client] = {}
        # Whether no key is needed.
        self.is_empty = settings.is_open
        self._has_several = len({client.id for client in self._clients.values()}) > 1
        self._store = None if settings.is_open else store
        self._on_found = on_found
        # What the store has said: digests of its clients, and of keys that it refused, with the reason.
        self._stored: dict[bytes, str] = {}
        self._refused: dict[bytes, str] = {}
        self._number: int | None = None
        self._count = 0
        self._waiting: dict[bytes, asyncio.Future[None]] = {}
        self._is_stale = False
        self._has_failed = False  # the last reading; a failure is logged once
        self._reading: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] | None = None

    @property
    def has_many(self) -> bool:
        """Whether there may be several clients, of whom none may see what belongs to another one."""
        if self._has_several or self._store is None:
            return self._has_several
        return self._count > 0 if self._number is not None else self._store.exists()

    async def surely_many(self) -> bool:
        """As `has_many`, by the store where memory does not know. Raises StoreError."""
        if self.has_many and not self._has_several and self._number is None and self._store is not None:
            return await self._store.run(keys.count) > 0
        return self.has_many

    def client_with(self, key: str) -> Client | None:
        """The client whose key this is, as far as memory knows."""
        return self._clients.get(_digest(key))

    async def client_of(self, digest: bytes) -> Client | None:
        """The client whose key has this SHA-256, by the store if memory has none; None if it may not come in.

        Raises StoreFailed and Overloaded, as `look_up`.
        """
        if digest not in self._clients and digest not in self._refused:
            await self.look_up(digest)
        client = self._clients.get(digest)
        expires = None if client is None else client.rules.expires
        return None if expires is not None and expires <= time.time() else client

    def refusal(self, key: str) -> Unauthorized:
        """Why there is no client with `key`: UnknownKey if the store has not been asked yet."""
        digest = _digest(key)
        if self._store is None or (reason := self._refused.get(digest)) == _UNKNOWN:
            return Unauthorized(_UNKNOWN)
        return UnknownKey(digest) if reason is None else Unauthorized(reason, code="key_blocked")

    def remembered(self, authorization: str | None) -> Client | None:
        """The client of a whole Authorization header that was accepted before: no need to hash its key."""
        return self._known.get(authorization)

    def remember(self, authorization: str, client: Client) -> None:
        """Remember an accepted header. Bounded: one key may be written with any number of blanks."""
        if len(self._known) < MAX_REMEMBERED:
            self._known[authorization] = client

    # The store

    async def look_up(self, digest: bytes) -> None:
        """Have the store say whose key that is. Raises StoreFailed, or Overloaded if too many wait."""
        if self._store is None or not self._store.exists():
            return
        done = self._waiting.get(digest)
        if done is None:
            if len(self._waiting) >= MAX_WAITING:
                raise Overloaded("Too many unknown keys are being looked up: retry in 1 s", retry_after_s=1)
            done = self._waiting[digest] = asyncio.get_running_loop().create_future()
        self._read_soon()
        try:
            await asyncio.shield(done)
        except StoreError as exc:
            # The log has the reason, which names hosts and paths: nobody knows who this client is.
            raise StoreFailed("The key cannot be looked up now: retry later") from exc

    def changed(self) -> None:
        """Read what has changed in the store, soon: this process or another one has written it."""
        self._is_stale = True
        self._read_soon()

    def _read_soon(self) -> None:
        if self._store is None:
            return
        if self._unsubscribe is None:
            self._unsubscribe = self._store.subscribe(self.changed)
        if self._reading is None:
            self._reading = asyncio.get_running_loop().create_task(self._read_all(self._store))

    async def _read_all(self, store: StateStore) -> None:
        try:
            while self._waiting or self._is_stale:
                self._is_stale = False
                batch = list(self._waiting)[:MAX_BATCH]
                await self._read(store, batch)
                await asyncio.sleep(INTERVAL_S)
        finally:
            self._reading = None

    async def _read(self, store: StateStore, batch: Sequence[bytes]) -> None:
        digests = [digest.hex() for digest in batch]
        try:
            read = await store.run(partial(_read, digests=digests, number=self._number, now=time.time()))
        except StoreError as exc:
            if not self._has_failed:
                self._has_failed = True
                logger.warning("keys cannot be read: %s", exc)
            for digest in batch:
                done = self._waiting.pop(digest)
                done.set_exception(exc)
                done.exception()  # the clients may have left: asyncio would log that nobody has read it
            return
        self._has_failed = False
        self._forget(read)
        for digest in batch:
            self._keep(digest, read.found.get(digest.hex()))
            self._waiting.pop(digest).set_result(None)

    def _forget(self, read: _Read) -> None:
        """Forget the clients that have changed, and all refusals then: a key may have been made since."""
        if read.count is None:
            return
        self._number, self._count = read.number, read.count
        self._refused.clear()
        changed = set(read.changed)
        for digest in [digest for digest, id_ in self._stored.items() if id_ in changed]:
            del self._stored[digest], self._clients[digest]
        self._forget_headers(changed)

    def _keep(self, digest: bytes, found: FoundKey | None) -> None:
        if found is None or found.key.is_blocked:
            if len(self._refused) >= MAX_KEPT:
                self._refused.clear()
            self._refused[digest] = _UNKNOWN if found is None else _BLOCKED
            return
        while len(self._stored) >= MAX_KEPT:
            oldest = next(iter(self._stored))
            self._forget_headers({self._stored.pop(oldest)})
            del self._clients[oldest]
        rules = found.key.rules
        if found.until is not None:
            rules = replace(rules, expires=min(found.until, rules.expires or found.until))
        self._clients[digest] = Client(id=rules.id, name=rules.name or rules.id, rules=rules)
        self._stored[digest] = rules.id
        self._on_found()

    def _forget_headers(self, ids: set[str]) -> None:
        for header in [header for header, client in self._known.items() if client.id in ids]:
            del self._known[header]

    async def aclose(self) -> None:
        """End the subscription, and fail what waits."""
        if self._unsubscribe is not None:
            self._unsubscribe()
        if self._reading is not None:
            self._reading.cancel()
        for done in self._waiting.values():
            done.cancel()


def _read(connection: Connection, *, digests: Sequence[str], number: int | None, now: float) -> _Read:
    latest, changed = keys.changed_since(connection, number)
    total = keys.count(connection) if latest != number else None
    found = keys.look_up(connection, digests, now) if digests else {}
    return _Read(latest, changed, total, found)


def _unlimited(digest: bytes) -> Client:
    """The client of a key in SANIC_PROXY_API_KEYS, which has no rules of its own."""
    id_ = digest.hex()[:_ID_DIGITS]
    name = id_[:_LABEL_DIGITS]
    return Client(id=id_, name=name, rules=ClientRules(id=id_, name=name))


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
