"""Stored responses: what `previous_response_id`, `GET /v1/responses/{id}` and background responses rest on.

Theory. A row is one response of one client; a client sees no row of another one. There are two kinds:

- A response that the proxy made of another API's answer is stored with its content: the response object and
  the input of its own request. `previous` names the response that it continues, so the conversation before
  it is found by following these links; nothing is stored twice. Whenever a conversation is continued, the
  time of all its responses begins anew, so that it does not lose its beginning.
- Of a response that a provider stores itself, the row says only where: the provider, and which of its keys.

Rows are dropped when their time is over. Once the limit of bytes is reached, those of the client whose rows
take the most bytes are dropped, in the order of their time, so that no client drops those of others.
Those of background responses that still run are never dropped; what then has no room is not stored.
A deleted response that others continue is hidden, and dropped with the last of them or at its time.

A background response belongs to the worker that runs it, named by a random text. The worker renews a lease
while it lives. A response that is not finished and whose lease is over has lost its worker: whoever reads it
makes it a failed one. Leases are times of the machine's monotonic clock, which nobody sets; one that lies
further ahead than a lease can be is from before a restart of the machine.

Items are cut out of the stored JSON by SQLite, which does not hold the interpreter's lock meanwhile: a
parser in Python would stop the event loop, whatever thread it runs in.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

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
    Migration(
        "bytes of each owner's responses",
        (
            "CREATE TABLE response_owner (owner TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID",
            "INSERT INTO response_owner SELECT owner, sum(size) FROM response GROUP BY owner",
            "CREATE INDEX response_owner_bytes ON response_owner (bytes)",
            "CREATE INDEX response_owner_expiry ON response (owner, expires_at)",
            """CREATE TRIGGER response_owner_added AFTER INSERT ON response
                BEGIN INSERT INTO response_owner VALUES (NEW.owner, NEW.size)
                ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes; END""",
            """CREATE TRIGGER response_owner_removed AFTER DELETE ON response
                BEGIN UPDATE response_owner SET bytes = bytes - OLD.size WHERE owner = OLD.owner;
                DELETE FROM response_owner WHERE owner = OLD.owner AND bytes <= 0; END""",
            """CREATE TRIGGER response_owner_resized AFTER UPDATE OF size ON response
                BEGIN UPDATE response_owner SET bytes = bytes + NEW.size - OLD.size
                WHERE owner = NEW.owner; END""",
        ),
    ),
    Migration(
        "ids of the items of outputs",
        (
            """CREATE TABLE response_item (
                owner TEXT NOT NULL,
                id TEXT NOT NULL,
                seq INTEGER NOT NULL REFERENCES response (seq) ON DELETE CASCADE,
                PRIMARY KEY (owner, id)
            ) WITHOUT ROWID""",
            "CREATE INDEX response_item_seq ON response_item (seq)",
        ),
    ),
)

# A response of more than that, with the input of its request, is not stored.
MAX_ITEM_BYTES = 16 * 1024 * 1024
# Items of more bytes are spread over several pages.
PAGE_BYTES = 1024 * 1024
# What a row takes besides its content, roughly.
ROW_BYTES = 512
# OpenAI keeps its responses for 30 days.
REFERENCE_S = 30 * 86_400.0
_RESPONSE = "resp_"
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


class UnknownItem(Exception):
    """No item of the conversation has that id."""


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


class StoredItem(NamedTuple):
    """An item of a conversation: which of its response's items it is, from 0, and the item as JSON."""

    response_id: str
    number: int
    body: bytes


@dataclass(frozen=True, slots=True)
class PageOptions:
    """The part of a list that is wanted: at most `limit` items that follow the item of the id `after`."""

    limit: int
    is_descending: bool = True
    after: str | None = None


class ReferredItem(NamedTuple):
    """An item as JSON or, where a provider has its response, that provider and which of its keys."""

    body: bytes
    provider: str = ""
    key_number: int = 0


class ItemPage(NamedTuple):
    """A part of the items of an input, in the order that was wanted."""

    items: list[StoredItem]
    has_more: bool


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

    async def refer(
        self, owner: str, id_: str, provider: str, key_number: int, item_ids: Sequence[str] = ()
    ) -> None:
        """Note that the response `id_`, whose output has those items, is stored by a provider under a key."""
        values = (owner, id_, provider, key_number, ROW_BYTES, time.time() + REFERENCE_S)
        await self._write(lambda connection, limits: _refer(connection, values, item_ids, limits))

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

    async def input_page(self, owner: str, id_: str, options: PageOptions) -> ItemPage | None:
        """Items that the response `id_` was made of, those of the responses before it included.

        A page ends early behind PAGE_BYTES. None if a part of the conversation is not stored any more. Raises
        UnknownItem.
        """
        return await self._store.run(lambda connection: _input_page(connection, owner, id_, options))

    async def items(self, owner: str, ids: Sequence[str], max_bytes: int) -> dict[str, ReferredItem]:
        """Those of the items of `ids` that belong to responses of the client. Raises ConversationTooLarge."""
        return await self._store.run(lambda connection: _referred_items(connection, owner, ids, max_bytes))

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
    _make_room(connection, limits, response.owner, response.size_bytes)
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
    _note_items(connection, response.owner, row[0])


def _note_items(connection: Connection, owner: str, seq: int) -> None:
    """Note the ids of the items of a response's output."""
    connection.execute(
        "INSERT OR REPLACE INTO response_item SELECT ?, json_extract(item.value, '$.id'), seq "  # noqa: S608
        f"FROM response_content, json_each({_OUTPUT}) AS item "
        "WHERE seq = ? AND json_type(item.value, '$.id') = 'text'",
        (owner, seq),
    )


def _refer(connection: Connection, values: Sequence[Any], item_ids: Sequence[str], limits: Limits) -> None:
    _make_room(connection, limits, values[0], ROW_BYTES)
    connection.execute(
        "INSERT INTO response (owner, id, provider, key_number, size, expires_at) VALUES (?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (owner, id) DO UPDATE SET provider = excluded.provider, "
        "key_number = excluded.key_number, expires_at = excluded.expires_at WHERE provider != ''",
        values,
    )
    for item in item_ids:
        connection.execute(
            "INSERT OR REPLACE INTO response_item "
            "SELECT owner, ?, seq FROM response WHERE owner = ? AND id = ?",
            (item, *values[:2]),
        )


# The rows that may be dropped: not those of a response that a worker runs.
_DROPPABLE = "NOT (status IN ('queued', 'in_progress') AND lease BETWEEN :now AND :now + :lease_s)"


def _make_room(connection: Connection, limits: Limits, owner: str, size_bytes: int) -> None:
    """Drop rows until `size_bytes` more of `owner` fit. Raises StoreFull."""
    if size_bytes > limits.size_bytes:
        raise StoreFull(f"{size_bytes} bytes are more than all stored responses may take")
    clock = {"now": time.monotonic(), "lease_s": LEASE_S}
    connection.execute(
        "DELETE FROM response WHERE seq IN (SELECT seq FROM response "  # noqa: S608 - constants
        f"WHERE expires_at < :time AND {_DROPPABLE} ORDER BY expires_at LIMIT :count)",
        {**clock, "time": time.time(), "count": _DROPPED_AT_ONCE},
    )
    while _total(connection) + size_bytes > limits.size_bytes:
        for largest in _owners_by_size(connection, owner, size_bytes):
            dropped = connection.execute(
                "DELETE FROM response WHERE seq = (SELECT seq FROM response "  # noqa: S608
                f"WHERE owner = :owner AND {_DROPPABLE} ORDER BY expires_at LIMIT 1)",
                {**clock, "owner": largest},
            )
            if dropped.rowcount:
                break
        else:
            raise StoreFull("The stored responses are full of background responses that still run")


def _owners_by_size(connection: Connection, owner: str, size_bytes: int) -> Iterator[str]:
    """The owners by the bytes of their rows, most first, `owner` with `size_bytes` more than it has."""
    own = connection.execute("SELECT bytes FROM response_owner WHERE owner = ?", (owner,)).fetchone()
    own_bytes = (own[0] if own is not None else 0) + size_bytes
    rows = connection.execute("SELECT owner, bytes FROM response_owner ORDER BY bytes DESC")
    for other, other_bytes in rows:
        if own is not None and other_bytes <= own_bytes:
            yield owner
            own = None
        if other != owner:
            yield other


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
    _note_items(connection, key[0], row[0])
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
        _make_room(connection, limits, key[0], growth)
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


def _chain(connection: Connection, owner: str, id_: str) -> list[tuple[str, int]] | None:
    """The ids and numbers of the responses of a conversation, oldest first; None if one is missing."""
    rows = connection.execute(
        _CHAIN + "SELECT id, seq, previous, provider FROM chain ORDER BY depth DESC",  # noqa: S608 - constants
        {"owner": owner, "id": id_},
    ).fetchall()
    if not rows or rows[0][2] or any(row[3] for row in rows):
        return None
    return [(id_, seq) for id_, seq, *_ in rows]


class _Part(NamedTuple):
    """The items of a response's input or output, whose numbers begin with `first`."""

    response_id: str
    seq: int
    source: str
    first: int


# The two lists of items of a response, as arguments of json_each. Content is stored as bytes.
_INPUT, _OUTPUT = "CAST(input AS TEXT)", "CAST(body AS TEXT), '$.output'"
# Numbers of the items of an output begin here.
FIRST_OF_OUTPUT = 0x800000


def _input_page(connection: Connection, owner: str, id_: str, options: PageOptions) -> ItemPage | None:
    chain = _chain(connection, owner, id_)
    if chain is None:
        return None
    parts = [
        part
        for response_id, seq in chain
        for part in (
            _Part(response_id, seq, _INPUT, 0),
            _Part(response_id, seq, _OUTPUT, FIRST_OF_OUTPUT),
        )
    ][:-1]
    if options.is_descending:
        parts.reverse()
    last: int | None = None
    if options.after is not None:
        parts, last = _parts_from(connection, parts, options.after)
    found: list[StoredItem] = []
    size_bytes = 0
    for part in parts:
        for number, body in _items(connection, part, last, options):
            if len(found) == options.limit or (found and size_bytes + len(body) > PAGE_BYTES):
                return ItemPage(found, has_more=True)
            found.append(StoredItem(part.response_id, number, body.encode()))
            size_bytes += len(body)
        last = None
    return ItemPage(found, has_more=False)


def _items(
    connection: Connection, part: _Part, last: int | None, options: PageOptions
) -> Iterator[tuple[int, str]]:
    """The items of a part that follow the one of the number `last`; all of them if that is None."""
    order, compared = ("DESC", "<") if options.is_descending else ("ASC", ">")
    bound = (2**62 if options.is_descending else -1) if last is None else last - part.first
    rows = connection.execute(
        f"SELECT item.key, item.value FROM response_content, json_each({part.source}) AS item "  # noqa: S608
        f"WHERE seq = ? AND item.type = 'object' AND item.key {compared} ? ORDER BY item.key {order} LIMIT ?",
        (part.seq, bound, options.limit + 1),
    )
    for key, value in rows:
        yield part.first + key, value


def _parts_from(connection: Connection, parts: list[_Part], item_id: str) -> tuple[list[_Part], int]:
    """The parts from the one with the item of that id on, and the item's number. Raises UnknownItem."""
    made = numbered_item(item_id)
    for at, part in enumerate(parts):
        if made is not None and made[0] == part.response_id:
            if (part.first == FIRST_OF_OUTPUT) == (made[1] >= FIRST_OF_OUTPUT):
                return parts[at:], made[1]
            continue
        row = connection.execute(
            f"SELECT item.key FROM response_content, json_each({part.source}) AS item "  # noqa: S608 - constants
            "WHERE seq = ? AND item.type = 'object' AND json_extract(item.value, '$.id') = ?",
            (part.seq, item_id),
        ).fetchone()
        if row is not None:
            return parts[at:], part.first + row[0]
    raise UnknownItem


def _referred_items(
    connection: Connection, owner: str, ids: Sequence[str], max_bytes: int
) -> dict[str, ReferredItem]:
    found: dict[str, ReferredItem] = {}
    for id_ in ids:
        if id_ not in found and (item := _referred_item(connection, owner, id_)) is not None:
            found[id_] = item
            max_bytes -= len(item.body)
        if max_bytes < 0:
            raise ConversationTooLarge
    return found


def _referred_item(connection: Connection, owner: str, id_: str) -> ReferredItem | None:
    made = numbered_item(id_)
    row = connection.execute(
        "SELECT seq, provider, key_number FROM response "  # noqa: S608 - constants
        + (
            "LEFT JOIN response_item USING (seq, owner) WHERE response_item.id = ?"
            if made is None
            else "WHERE id = ?"
        )
        + " AND owner = ? AND NOT is_hidden AND expires_at >= ?",
        (id_ if made is None else made[0], owner, time.time()),
    ).fetchone()
    if row is None or (made is not None and row[1]):
        return None
    seq, provider, key_number = row
    if provider:
        return ReferredItem(b"", provider, key_number)
    is_input = made is not None and made[1] < FIRST_OF_OUTPUT
    wanted = "json_extract(item.value, '$.id') = ?" if made is None else "item.key = ?"
    item = connection.execute(
        "SELECT item.value FROM response_content, "  # noqa: S608 - constants
        f"json_each({_INPUT if is_input else _OUTPUT}) AS item "
        f"WHERE seq = ? AND item.type = 'object' AND {wanted}",
        (seq, id_ if made is None else made[1] % FIRST_OF_OUTPUT),
    ).fetchone()
    return None if item is None else ReferredItem(item[0].encode())


# The id of an item that came without one, as `item_id` makes it.
_NUMBERED = re.compile(r"[a-z]{2,4}_([0-9a-f]{48})([0-9a-f]{6})")


def item_id(prefix: str, response_id: str, number: int) -> str:
    """The id of an item that came without one, at most 64 characters: it says which item it is."""
    return f"{prefix}_{response_id.removeprefix(_RESPONSE)}{number:06x}"


def numbered_item(id_: str) -> tuple[str, int] | None:
    """The id of the response and the number of the item in what `item_id` made; None for any other id."""
    found = _NUMBERED.fullmatch(id_)
    return (_RESPONSE + found[1], int(found[2], 16)) if found else None


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
    pieces = []
    for _, seq in chain:
        given, made = connection.execute(
            "SELECT input, json_extract(CAST(body AS TEXT), '$.output') FROM response_content WHERE seq = ?",
            (seq,),
        ).fetchone()
        pieces += [piece[1:-1] for piece in (given, made.encode()) if len(piece) > len(b"[]")]
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
