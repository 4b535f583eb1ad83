"""Sessions of the operator's page: logins, signed cookies, and which sessions have ended.

A cookie holds the session itself, signed with a key that is derived from the admin key: every worker can
check it, on every machine with that admin key, and another admin key ends all sessions. Clients get such
cookies as well and could test guesses of the admin key with one, so the key is derived by scrypt, which makes
each guess expensive. A client's session has the SHA-256 of its key, so it ends when that key is blocked or
replaced.

A session that has logged out is noted in the shared memory, where all workers of the machine see it at once,
and in the state store, which outlives restarts and is read by all machines. It is forgotten when it would
have expired. A client's key may begin a few sessions a minute, so there are never many to remember.

Failed logins are limited by the rates of the shared memory, per address; one that succeeds is not counted. An
address is hashed into one of BUCKETS cells, and an IPv6 network (/48) into one of NETWORK_BUCKETS, so that
requests from any number of addresses take few cells. There is no limit for all addresses together: anyone
could use it up to lock the operator out, and to admit a correct key beyond it is to answer guesses beyond it.
The buckets bound them already: BUCKETS * LOGINS failures per minute, 85 a second, hopeless against a key of
16 random characters; and the admin routes check the key of a header without any limit. The hash is keyed with
the admin key, so that nobody can choose addresses that share the operator's bucket.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from sanic_proxy.config.rules import ScopeLimits
from sanic_proxy.governance.rates import Admission, RateRefusal, Rates
from sanic_proxy.governance.rules import Scope, ScopedLimits
from sanic_proxy.state_store.base import Connection, Migration, StateStore
from sanic_proxy.state_store.follower import Follower
from sanic_proxy.state_store.shared import SharedMemory, key_of

SessionKind = Literal["admin", "client"]

COOKIE = "sanic_proxy_session"
LIFETIME_S = 12 * 3600
# Failed logins per minute: of an address or IPv6 network of 64 bits, and of one of 48 bits.
LOGINS = 10
NETWORK_LOGINS = 30
BUCKETS = 512
NETWORK_BUCKETS = 128
# Sessions that a client's key may begin: so many at once, then so many per minute.
SESSIONS_AT_ONCE = 20
SESSIONS_PER_MINUTE = 2
MIGRATION = Migration(
    "ended sessions", ("CREATE TABLE session_ended (id TEXT NOT NULL PRIMARY KEY, expires INTEGER NOT NULL)",)
)
_MAX_COOKIE_CHARS = 300
_ADDRESS_LIMITS = ScopeLimits(tpm=LOGINS)
_NETWORK_LIMITS = ScopeLimits(tpm=NETWORK_LOGINS)
_SESSION_LIMITS = ScopeLimits(rpm=SESSIONS_PER_MINUTE, burst=SESSIONS_AT_ONCE)


@dataclass(frozen=True, slots=True)
class Session:
    """A login. `expires` is in seconds since the epoch, `digest` the SHA-256 of a client's key in hex."""

    kind: SessionKind
    id: str
    expires: int
    digest: str = ""

    @property
    def text(self) -> str:
        """What the cookie holds before its signature."""
        return f"{self.kind}.{self.id}.{self.expires}.{self.digest}"


class EndedSessions:
    """The ids of sessions that have logged out, until they would have expired."""

    def __init__(self) -> None:
        self._expiries: dict[str, int] = {}

    def add(self, expiries: Mapping[str, int], now: float) -> None:
        """Add sessions: ids and expiries in seconds since the epoch. Those that are over are dropped."""
        merged = {**self._expiries, **expiries}
        self._expiries = {id_: expires for id_, expires in merged.items() if expires > now}

    def __contains__(self, id_: str) -> bool:
        return id_ in self._expiries

    def __len__(self) -> int:
        return len(self._expiries)


class Sessions:
    """See the module. `workers` share the limits of logins where memory cannot be shared."""

    def __init__(self, admin_key: str, shared: SharedMemory, store: StateStore, workers: int = 1) -> None:
        self._admin_key = admin_key.encode()
        self._shared = shared
        self._store = store
        self._rates = Rates(shared, workers=workers)
        self._key: bytes | None = None
        self._ended = EndedSessions()
        self._follower = Follower(store, self._read_ended, "the sessions that have ended")

    def follow(self) -> None:
        """Read which sessions have ended, now and after each change. To be called in the event loop."""
        self._follower.start()

    def close(self) -> None:
        """End following."""
        self._follower.close()

    # Logins

    def attempt(self, address: str) -> Admission | RateRefusal:
        """Count a login from `address`, or refuse it. `settle(0)` of one that succeeds takes it back."""
        single, network = _networks(address)
        limits = [ScopedLimits(Scope("login", f"address {self._bucket(single, BUCKETS)}"), _ADDRESS_LIMITS)]
        if network is not None:
            bucket = self._bucket(network, NETWORK_BUCKETS)
            limits.append(ScopedLimits(Scope("login", f"network {bucket}"), _NETWORK_LIMITS))
        return self._rates.admit(self._rates.limits_of(limits), tokens=1)

    def admit_client(self, digest: str) -> Admission | RateRefusal:
        """Count a session that the client's key with that digest is about to begin, or refuse it."""
        scope = ScopedLimits(Scope("login", f"key {digest}"), _SESSION_LIMITS)
        return self._rates.admit(self._rates.limits_of((scope,)), tokens=0)

    def is_admin_key(self, key: str) -> bool:
        """Whether this is the admin key. Takes the same time for every key."""
        given = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        return hmac.compare_digest(given, hashlib.sha256(self._admin_key).digest())

    def begin(self, kind: SessionKind, now: float, digest: str = "") -> Session:
        """A new session."""
        return Session(kind, secrets.token_hex(16), int(now) + LIFETIME_S, digest)

    # Cookies

    async def cookie(self, session: Session) -> str:
        """The value of the session's cookie."""
        return f"{session.text}.{await self._signature('cookie', session.text)}"

    async def csrf(self, session: Session) -> str:
        """The token that requests with the session's cookie have to carry to change anything."""
        return await self._signature("csrf", session.text)

    async def read(self, cookie: str, now: float) -> Session | None:
        """The session of a cookie's value; None if it is forged, over, or has ended."""
        text, _, signature = cookie.rpartition(".")
        if len(cookie) > _MAX_COOKIE_CHARS or not cookie.isascii():
            return None
        if not hmac.compare_digest(signature, await self._signature("cookie", text)):
            return None
        kind, id_, expires, digest = text.split(".")
        session = Session("admin" if kind == "admin" else "client", id_, int(expires), digest)
        return None if self.is_over(session, now) else session

    def is_over(self, session: Session, now: float) -> bool:
        """Whether the session has expired, or has logged out in any worker."""
        if session.expires <= now or session.id in self._ended:
            return True
        return self._shared.entries.peek(_entry(session), time.monotonic()) is not None

    async def end(self, session: Session, now: float) -> None:
        """Log out. Raises StoreError if that could not be stored: it then holds on this machine alone."""
        self._ended.add({session.id: session.expires}, now)
        with self._shared.lock as is_locked:
            if is_locked:
                self._shared.entries.put(_entry(session), 1, time.monotonic() + session.expires - now)

        def store(connection: Connection) -> None:
            connection.execute("DELETE FROM session_ended WHERE expires <= ?", (int(now),))
            connection.execute(
                "INSERT INTO session_ended (id, expires) VALUES (?, ?) ON CONFLICT (id) DO NOTHING",
                (session.id, session.expires),
            )

        await self._store.run(store)

    async def _signature(self, purpose: str, text: str) -> str:
        if self._key is None:
            self._key = await asyncio.to_thread(_derived, self._admin_key)
        message = f"{purpose}\0{text}".encode()
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()

    async def _read_ended(self) -> None:
        now = time.time()
        self._ended.add(await self._store.run(partial(_ended_after, now=int(now))), now)

    def _bucket(self, network: str, count: int) -> int:
        digest = hmac.digest(self._admin_key, f"address\0{network}".encode(), "sha256")
        return int.from_bytes(digest[:8], "little") % count


def _ended_after(connection: Connection, now: int) -> dict[str, int]:
    rows = connection.execute("SELECT id, expires FROM session_ended WHERE expires > ?", (now,)).fetchall()
    return {id_: int(expires) for id_, expires in rows}


def _derived(admin_key: bytes) -> bytes:
    return hashlib.scrypt(admin_key, salt=b"sanic-proxy sessions", n=2**14, r=8, p=1, dklen=32)


def _entry(session: Session) -> int:
    return key_of("session", session.id)


def _networks(address: str) -> tuple[str, str | None]:
    """The address, or for IPv6 its networks of 64 and of 48 bits: one customer has that many addresses."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "unknown", None
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is None:
            return parsed.packed[:8].hex(), parsed.packed[:6].hex()
        parsed = parsed.ipv4_mapped
    return str(parsed), None
