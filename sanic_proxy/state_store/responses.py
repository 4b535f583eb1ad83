"""Stored responses: what `previous_response_id`, `GET /v1/responses/{id}` and background responses rest on.

Theory. A row is one response of one client; a client sees no row of another one. There are two kinds:

- A response that the proxy made of another API's answer is stored with its content: the response object and
  the input of its own request. `previous` names the response that it continues, so the conversation before
  it is found by following these links; nothing is stored twice. Whenever a conversation is continued, the
  time of all its responses begins anew, so that it does not lose its beginning.
- Of a response that a provider stores itself, the row says only where: the provider, and which of its keys.

Rows are dropped when their time is over and, once the limit of bytes is reached, in the order of that time.
Those of background responses that still run are never dropped; what then has no room is not stored.
A deleted response that others continue is hidden, and dropped with the last of them or at its time.

A background response belongs to the worker that runs it, named by a random text. The worker renews a lease
while it lives. A response that is not finished and whose lease is over has lost its worker: whoever reads it
makes it a failed one. Leases are times of the machine's monotonic clock, which nobody sets; one that lies
further ahead than a lease can be is from before a restart of the machine.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sanic_proxy.openai import codec
from sanic_proxy.state_store.base import Connection, Migration, StateStore, StoreFull

T = TypeVar("T")

FILE_NAME = "responses.sqlite"
MIGRATIONS = (
    Migration(
        "responses",
        (
            """CREATE TABLE response (
                seq INTEGER PRIMARY KEY,
                owner TEXT NOT NULL,
                id TEXT NOT NULL,
                provider TEXT NOT NULL DEFAULT '',
                key_number INTEGER NOT NULL DEFAULT 0,
                previous TEXT NOT NULL DEFAULT '',
                status TEXT NOT NULL DEFAULT '',
                is_hidden INTEGER NOT NULL DEFAULT 0,
                worker TEXT NOT NULL DEFAULT '',
                lease REAL NOT NULL DEFAULT 0,
                size INTEGER NOT NULL,
                expires_at REAL NOT NULL,
                UNIQUE (owner, id)
            )""",
            "CREATE INDEX response_expiry ON response (expires_at)",
            "CREATE INDEX response_previous ON response (owner, previous) WHERE previous != ''",
            "CREATE INDEX response_unfinished ON response (worker) WHERE status IN ('queued', 'in_progress')",
            """CREATE TABLE response_content (
                seq INTEGER PRIMARY KEY REFERENCES response (seq) ON DELETE CASCADE,
                body BLOB NOT NULL,
                input BLOB NOT NULL
            )""",
            "CREATE TABLE response_total (bytes INTEGER NOT NULL)",
            "INSERT INTO response_total VALUES (0)",
            """CREATE TRIGGER response_added AFTER INSERT ON response
                BEGIN UPDATE response_total SET bytes = bytes + NEW.size; END""",
            """CREATE TRIGGER response_removed AFTER DELETE ON response
                BEGIN UPDATE response_total SET bytes = bytes - OLD.size; END""",
            """CREATE TRIGGER response_resized AFTER UPDATE OF size ON response
                BEGIN UPDATE response_total SET bytes = bytes + NEW.size - OLD.size; END""",
        ),
    ),
)

# A response of more than that, with the input of its request, is not stored.
MAX_ITEM_BYTES = 16 * 1024 * 1024
# What a row takes besides its content, roughly.
ROW_BYTES = 512
# OpenAI keeps its responses for 30 days.
REFERENCE_S = 30 * 86_400.0
LEASE_S = 10.0
RENEW_S = 2.0
# How many rows one write drops at most, so that a transaction stays short.
_DROPPED_AT_ONCE = 256
# A response may grow so much beyond all limits, so that it can always end with another status or an error.
_UNCHECKED_GROWTH_BYTES = 4096
# Renewed only when a tenth of their time is over.
_RENEWED_SHARE = 0.1


class ResponseTooLarge(Exception):
    """The response with its input is larger than MAX_ITEM_BYTES."""


class ConversationTooLarge(Exception):
    """The items of a conversation are larger than they may be."""


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """One response as its client may see it.

    `provider` and `key_number` say where it is stored if the proxy has no content of it; `provider` is empty
    otherwise, and `body` is the response as JSON.
    """

    id: str
    status: str
    provider: str = ""
    key_number: int = 0
    body: bytes = b""
    previous: str = ""
    is_background: bool = False


@dataclass(frozen=True, slots=True)
class NewResponse:
    """A response to be stored. `body` and `input` (a list of items) are JSON."""

    owner: str
    id: str
    status: str
    body: bytes
    input: bytes
    previous: str = ""
    worker: str = ""

    @property
    def size_bytes(self) -> int:
        return len(self.body) + len(self.input) + ROW_BYTES


@dataclass(frozen=True, slots=True)
class Limits:
    """How many bytes all stored responses may take, and how many seconds each is kept."""

    size_bytes: int
    ttl_s: float


class ResponseStore:
    """See the module. Its operations raise StoreError where the store fails.

    `limit_bytes` is asked for when the store is first written to. `worker` names this object among those of
    all workers.
    """

    def __init__(self, store: StateStore, limit_bytes: Callable[[], int], ttl_s: float) -> None:
        self._store = store
        self._limit_bytes = limit_bytes
        self._limits: Limits | None = None
        self._ttl_s = ttl_s
        self.worker = secrets.token_hex(8)

    @property
    def store(self) -> StateStore:
        return self._store

    async def add(self, response: NewResponse) -> None:
        """Store `response`; it is committed when this returns. Raises ResponseTooLarge or StoreFull."""
        if response.size_bytes > MAX_ITEM_BYTES:
            raise ResponseTooLarge
        await self._write(lambda connection, limits: _add(connection, response, limits))

    async def refer(self, owner: str, id_: str, provider: str, key_number: int) -> None:
        """Note that the response `id_` is stored by a provider under one of its keys."""
        values = (owner, id_, provider, key_number, ROW_BYTES, time.time() + REFERENCE_S)
        await self._write(lambda connection, limits: _refer(connection, values, limits))

    async def find(self, owner: str, id_: str) -> StoredResponse | None:
        """The response of that id, unless it is another client's. A lost one is a failed one."""
        return await self._store.run(lambda connection: _find(connection, owner, id_))

    async def conversation(self, owner: str, id_: str, max_bytes: int) -> list[bytes] | None:
        """The items up to and including those of the response `id_`: pieces of JSON, joined by commas.

        None if a part of the conversation is not stored any more. Raises ConversationTooLarge.
        """
        ttl_s = self._ttl_s
        return await self._store.run(
            lambda connection: _conversation(connection, owner, id_, max_bytes, ttl_s=ttl_s)
        )

    async def input_of(self, owner: str, id_: str) -> list[tuple[str, bytes, bytes]] | None:
        """The responses up to `id_`, oldest first: the id, its input items and its output items as JSON."""
        return await self._store.run(lambda connection: _chain(connection, owner, id_))

    async def delete(self, owner: str, id_: str) -> bool:
        """Delete a response; False if there is none."""
        return await self._store.run(lambda connection: _delete(connection, owner, id_))

    async def advance(self, owner: str, id_: str, status: str, body: bytes) -> bool:
        """Give a response that is not finished another status; False if it is finished, or gone.

        Raises ResponseTooLarge or StoreFull, and then the response stays as it is.
        """
        return await self._write(
            lambda connection, limits: _advance(connection, (owner, id_), status, body, limits)
        )

    def renew(self) -> None:
        """Queue a renewal of the leases of this worker's responses."""
        worker, lease = self.worker, time.monotonic() + LEASE_S
        self._store.write(
            lambda connection: connection.execute(
                "UPDATE response SET lease = ? WHERE worker = ? AND status IN ('queued', 'in_progress')",
                (lease, worker),
            )
        )

    async def unfinished(self) -> set[str]:
        """The ids of this worker's responses that are not finished."""
        worker = self.worker
        return await self._store.run(lambda connection: _unfinished(connection, worker))

    async def aclose(self) -> None:
        """Commit what is queued and close."""
        await self._store.aclose()

    async def _write(self, work: Callable[[Connection, Limits], T]) -> T:
        def run(connection: Connection) -> T:
            if self._limits is None:
                self._limits = Limits(self._limit_bytes(), self._ttl_s)
            return work(connection, self._limits)

        return await self._store.run(run)


# In the store's thread


def _add(connection: Connection, response: NewResponse, limits: Limits) -> None:
    _make_room(connection, limits, response.size_bytes)
    lease = time.monotonic() + LEASE_S if response.worker else 0.0
    row = connection.execute(
        "INSERT INTO response (owner, id, previous, status, worker, lease, size, expires_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING seq",
        (
            response.owner,
            response.id,
            response.previous,
            response.status,
            response.worker,
            lease,
            response.size_bytes,
            time.time() + limits.ttl_s,
        ),
    ).fetchone()
    connection.execute(
        "INSERT INTO response_content VALUES (?, ?, ?)", (row[0], response.body, response.input)
    )


def _refer(connection: Connection, values: Sequence[Any], limits: Limits) -> None:
    _make_room(connection, limits, ROW_BYTES)
    connection.execute(
        "INSERT INTO response (owner, id, provider, key_number, size, expires_at) VALUES (?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (owner, id) DO UPDATE SET provider = excluded.provider, "
        "key_number = excluded.key_number, expires_at = excluded.expires_at WHERE provider != ''",
        values,
    )


# The rows that may be dropped: not those of a response that a worker runs.
_DROPPABLE = "NOT (status IN ('queued', 'in_progress') AND lease BETWEEN :now AND :now + :lease_s)"


def _make_room(connection: Connection, limits: Limits, size_bytes: int) -> None:
    """Drop rows until `size_bytes` more fit. Raises StoreFull."""
    if size_bytes > limits.size_bytes:
        raise StoreFull(f"{size_bytes} bytes are more than all stored responses may take")
    clock = {"now": time.monotonic(), "lease_s": LEASE_S}
    connection.execute(
        "DELETE FROM response WHERE seq IN (SELECT seq FROM response "  # noqa: S608 - constants
        f"WHERE expires_at < :time AND {_DROPPABLE} ORDER BY expires_at LIMIT :count)",
        {**clock, "time": time.time(), "count": _DROPPED_AT_ONCE},
    )
    while _total(connection) + size_bytes > limits.size_bytes:
        oldest = connection.execute(
            f"SELECT seq FROM response WHERE {_DROPPABLE} ORDER BY expires_at LIMIT 1",  # noqa: S608
            clock,
        ).fetchone()
        if oldest is None:
            raise StoreFull("The stored responses are full of background responses that still run")
        connection.execute("DELETE FROM response WHERE seq = ?", oldest)


def _total(connection: Connection) -> int:
    total: int = connection.execute("SELECT bytes FROM response_total").fetchone()[0]
    return total


def _find(connection: Connection, owner: str, id_: str) -> StoredResponse | None:
    row = connection.execute(
        "SELECT status, provider, key_number, body, previous, worker, lease FROM response "
        "LEFT JOIN response_content USING (seq) "
        "WHERE owner = ? AND id = ? AND NOT is_hidden AND expires_at >= ?",
        (owner, id_, time.time()),
    ).fetchone()
    if row is None:
        return None
    status, provider, key_number, body, previous, worker, lease = row
    if worker and status in {"queued", "in_progress"} and not 0 <= lease - time.monotonic() <= LEASE_S:
        status, body = "failed", _lost(body)
        _replace(connection, (owner, id_), status, body)
    return StoredResponse(id_, status, provider, key_number, body or b"", previous, bool(worker))


def _lost(body: bytes) -> bytes:
    """A response whose worker has died."""
    message = "The process that ran this response has ended. Send the request again"
    response = codec.loads_tolerant(body)
    return codec.dumps(
        {**response, "status": "failed", "error": {"code": "server_error", "message": message}}
    )


def _replace(connection: Connection, key: tuple[str, str], status: str, body: bytes) -> bool:
    """Change a response that is not finished; False if there is none."""
    row = connection.execute(
        "UPDATE response SET status = ?, size = ? + (SELECT length(input) FROM response_content AS content "
        "WHERE content.seq = response.seq) "
        "WHERE owner = ? AND id = ? AND status IN ('queued', 'in_progress') RETURNING seq",
        (status, len(body) + ROW_BYTES, *key),
    ).fetchone()
    if row is None:
        return False
    connection.execute("UPDATE response_content SET body = ? WHERE seq = ?", (body, row[0]))
    return True


def _advance(connection: Connection, key: tuple[str, str], status: str, body: bytes, limits: Limits) -> bool:
    row = connection.execute(
        "SELECT size, length(body) FROM response JOIN response_content USING (seq) "
        "WHERE owner = ? AND id = ? AND status IN ('queued', 'in_progress')",
        key,
    ).fetchone()
    if row is None:
        return False
    size_bytes, body_bytes = row
    growth = len(body) - body_bytes
    if growth > _UNCHECKED_GROWTH_BYTES:
        if size_bytes + growth > MAX_ITEM_BYTES:
            raise ResponseTooLarge
        _make_room(connection, limits, growth)
    return _replace(connection, key, status, body)


# The rows from a response back to the first one, with their distance from it.
_CHAIN = """
    WITH RECURSIVE chain (seq, id, previous, provider, depth) AS (
        SELECT seq, id, previous, provider, 0 FROM response WHERE owner = :owner AND id = :id
        UNION ALL
        SELECT response.seq, response.id, response.previous, response.provider, depth + 1
        FROM chain JOIN response ON response.owner = :owner AND response.id = chain.previous
        WHERE chain.previous != ''
    )
"""


def _chain(connection: Connection, owner: str, id_: str) -> list[tuple[str, bytes, bytes]] | None:
    """Ids, input and output items of a conversation; None if a part is missing."""
    rows = connection.execute(
        _CHAIN  # noqa: S608 - constants
        + "SELECT chain.id, previous, provider, input, body FROM chain "
        "LEFT JOIN response_content USING (seq) ORDER BY depth DESC",
        {"owner": owner, "id": id_},
    ).fetchall()
    if not rows or rows[0][1] or any(row[2] for row in rows):
        return None
    return [
        (id_, input_, codec.dumps(codec.loads_tolerant(body)["output"])) for id_, _, _, input_, body in rows
    ]


def _conversation(
    connection: Connection, owner: str, id_: str, max_bytes: int, *, ttl_s: float
) -> list[bytes] | None:
    chosen = {"owner": owner, "id": id_}
    total = connection.execute(
        _CHAIN + "SELECT sum(size) FROM chain JOIN response USING (seq)",  # noqa: S608 - constants
        chosen,
    )
    if (total.fetchone()[0] or 0) > 2 * max_bytes:
        raise ConversationTooLarge
    chain = _chain(connection, owner, id_)
    if chain is None:
        return None
    pieces = [piece[1:-1] for _, *lists in chain for piece in lists if len(piece) > len(b"[]")]
    if sum(map(len, pieces)) > max_bytes:
        raise ConversationTooLarge
    expires_at = time.time() + ttl_s
    connection.execute(
        _CHAIN  # noqa: S608 - constants
        + "UPDATE response SET expires_at = :expires_at WHERE seq IN (SELECT seq FROM chain) "
        "AND expires_at < :renewed_below",
        {**chosen, "expires_at": expires_at, "renewed_below": expires_at - ttl_s * _RENEWED_SHARE},
    )
    return pieces


def _delete(connection: Connection, owner: str, id_: str) -> bool:
    row = connection.execute(
        "UPDATE response SET is_hidden = 1 WHERE owner = ? AND id = ? AND NOT is_hidden RETURNING previous",
        (owner, id_),
    ).fetchone()
    if row is None:
        return False
    while id_:
        gone = connection.execute(
            "DELETE FROM response WHERE owner = :owner AND id = :id AND is_hidden AND NOT EXISTS "
            "(SELECT 1 FROM response WHERE owner = :owner AND previous = :id) RETURNING previous",
            {"owner": owner, "id": id_},
        ).fetchone()
        id_ = gone[0] if gone is not None else ""
    return True


def _unfinished(connection: Connection, worker: str) -> set[str]:
    rows = connection.execute(
        "SELECT id FROM response WHERE worker = ? AND status IN ('queued', 'in_progress') AND NOT is_hidden",
        (worker,),
    )
    return {row[0] for row in rows}
