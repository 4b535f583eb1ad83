"""Keys made at run time: their tables, and the transactions on them, which run in the store's thread.

A client has an id for life and one key at a time; for a grace period its former key is valid as well. Of a
key only its SHA-256 digest is stored, in hexadecimal, with enough of its ends to recognise it: a key of 32
random bytes cannot be guessed from its digest, so no slow hash is needed. A deleted client keeps its row, for
its name in accounts of the past.

Each change takes the next number of a counter and stamps its client with it, so that a worker that knows the
changes up to one number finds the later ones.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

import orjson

from sanic_proxy.config.clients import digest_of
from sanic_proxy.config.rules import DEFAULT_SOFT, Budget, ClientRules, ScopeLimits
from sanic_proxy.state_store.base import Connection, Migration

MIGRATION = Migration(
    "client keys",
    (
        """CREATE TABLE client_key (
            id TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL, team TEXT NOT NULL, user_id TEXT NOT NULL,
            rules TEXT NOT NULL, expires REAL, digest TEXT NOT NULL, hint TEXT NOT NULL,
            blocked INTEGER NOT NULL, created REAL NOT NULL, updated REAL NOT NULL, deleted REAL,
            change INTEGER NOT NULL)""",
        "CREATE INDEX client_key_name ON client_key (name)",
        "CREATE INDEX client_key_change ON client_key (change)",
        """CREATE TABLE client_key_digest (
            digest TEXT NOT NULL PRIMARY KEY, client TEXT NOT NULL, until REAL)""",
        "CREATE INDEX client_key_digest_client ON client_key_digest (client)",
        "CREATE TABLE client_key_counter (name TEXT NOT NULL PRIMARY KEY, number INTEGER NOT NULL)",
        "INSERT INTO client_key_counter (name, number) VALUES ('change', 0)",
    ),
)
KEY_PREFIX = "sk-"
ID_PREFIX = "key_"
KEY_BYTES = 32
_ID_BYTES = 12
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# As many base62 digits as 32 bytes need at most.
_KEY_DIGITS = 43
# An imported key is shorter than this only by mistake: it could be guessed.
MIN_KEY_CHARS = 16
MAX_KEY_CHARS = 512
_HINT_CHARS = 4
# The rows of clients. Statements are made of constants and `?`, never of values.
_COLUMNS = "id, name, team, user_id, rules, digest, hint, blocked, created, updated, deleted"
_SELECT = f"SELECT {_COLUMNS} FROM client_key "  # noqa: S608
_COUNT = "SELECT COUNT(*) FROM client_key "
_PRESENT = "deleted IS NULL"


class KeyConflict(Exception):
    """There is a client with that name or key already; the message says which."""


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A client whose key was made at run time. Times are in seconds since the epoch.

    `digest` and `hint` (`sk-Ab...wxyz`) are those of its present key. `user_id` is a label of LiteLLM's.
    """

    rules: ClientRules
    digest: str
    hint: str
    created: float
    updated: float
    is_blocked: bool = False
    user_id: str = ""
    deleted: float | None = None

    @property
    def id(self) -> str:
        """The id of the client."""
        return self.rules.id

    def status(self, now: float) -> str:
        """In LiteLLM's words: "active", "expired", "revoked" (blocked) or "deleted"."""
        if self.deleted is not None:
            return "deleted"
        if self.is_blocked:
            return "revoked"
        return "expired" if self.rules.expires is not None and self.rules.expires <= now else "active"


@dataclass(frozen=True, slots=True)
class FoundKey:
    """The client of a presented key. `until`: when a former key ends, in seconds since the epoch."""

    key: StoredKey
    until: float | None


def new_key() -> str:
    """A key of 32 random bytes: `sk-` and 43 base62 digits."""
    return KEY_PREFIX + _base62(secrets.token_bytes(KEY_BYTES), _KEY_DIGITS)


def new_id() -> str:
    """An id for a client."""
    return ID_PREFIX + _base62(secrets.token_bytes(_ID_BYTES), 0)


def _base62(data: bytes, digits: int) -> str:
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, rest = divmod(number, len(_DIGITS))
        text = _DIGITS[rest] + text
    return text.rjust(digits, _DIGITS[0])


def hint_of(key: str) -> str:
    """The first and last four characters of a key: `sk-A...wxyz`."""
    return f"{key[:_HINT_CHARS]}...{key[-_HINT_CHARS:]}"


def made(
    key: str, rules: ClientRules, now: float, *, is_blocked: bool = False, user_id: str = ""
) -> StoredKey:
    """A new client with `key`, before it is stored."""
    return StoredKey(rules, digest_of(key), hint_of(key), now, now, is_blocked, user_id)


# Reading


def look_up(connection: Connection, digests: Sequence[str], now: float) -> dict[str, FoundKey]:
    """The clients of keys by their digests; those that no client has are left out."""
    marks = ", ".join("?" * len(digests))
    owners = connection.execute(
        f"SELECT digest, client, until FROM client_key_digest WHERE digest IN ({marks})",  # noqa: S608
        tuple(digests),
    ).fetchall()
    found = {}
    for digest, id_, until in owners:
        row = connection.execute(f"{_SELECT} WHERE id = ?", (id_,)).fetchone()
        if row is not None and (until is None or until > now):
            found[digest] = FoundKey(_key(row), until)
    return found


def changed_since(connection: Connection, number: int | None) -> tuple[int, list[str]]:
    """The number of the latest change, and the ids of the clients that were changed after `number`.

    None: no change is known, and none matters.
    """
    latest: int = connection.execute("SELECT number FROM client_key_counter").fetchone()[0]
    if number is None or latest == number:
        return latest, []
    rows = connection.execute("SELECT id FROM client_key WHERE change > ?", (number,)).fetchall()
    return latest, [row[0] for row in rows]


def count(connection: Connection) -> int:
    """How many clients there are."""
    number: int = connection.execute(f"{_COUNT} WHERE {_PRESENT}").fetchone()[0]
    return number


def find(connection: Connection, reference: str) -> StoredKey | None:
    """The client with that id, name, key or digest of a key. A deleted one only by its id or digest."""
    digest = digest_of(reference) if reference.startswith(KEY_PREFIX) else reference.lower()
    row = connection.execute(
        f"{_SELECT} WHERE id = ? OR (name = ? AND {_PRESENT}) OR digest = ? "  # noqa: S608
        "OR id IN (SELECT client FROM client_key_digest WHERE digest = ?) "
        "ORDER BY CASE WHEN deleted IS NULL THEN 0 ELSE 1 END, deleted DESC",
        (reference, reference, digest, digest),
    ).fetchone()
    return None if row is None else _key(row)


Order = Literal["created", "updated", "expires", "name", "team", "user_id"]
ORDERS: tuple[Order, ...] = get_args(Order)


@dataclass(frozen=True, slots=True)
class KeyFilter:
    """Which clients are listed, and in what order; what is empty does not matter.

    `status` is as in `StoredKey.status`.
    """

    name: str = ""
    part_of_name: str = ""
    team: str = ""
    user_id: str = ""
    digest: str = ""
    status: str = ""
    order_by: Order = "created"
    is_ascending: bool = False


def select(
    connection: Connection, wanted: KeyFilter, now: float, limit: int, offset: int = 0
) -> tuple[int, list[StoredKey]]:
    """How many clients the filter fits, and those of one page in its order."""
    where, values = _conditions(wanted, now)
    total: int = connection.execute(_COUNT + where, values).fetchone()[0]
    # Of two clients with the same value the newer one is first.
    order = f"{ORDERS[ORDERS.index(wanted.order_by)]} {'ASC' if wanted.is_ascending else 'DESC'}"
    rows = connection.execute(
        f"{_SELECT}{where} ORDER BY {order}, created DESC, id LIMIT ? OFFSET ?", (*values, limit, offset)
    ).fetchall()
    return total, [_key(row) for row in rows]


def _conditions(wanted: KeyFilter, now: float) -> tuple[str, list[object]]:
    """The conditions of a filter, and the values of their parameters."""
    where = ["deleted IS NOT NULL" if wanted.status == "deleted" else _PRESENT]
    values: list[object] = []
    exact = {"name": wanted.name, "team": wanted.team, "user_id": wanted.user_id, "digest": wanted.digest}
    for column, value in exact.items():
        if value:
            where.append(f"{column} = ?")
            values.append(value)
    if wanted.part_of_name:
        where.append("LOWER(name) LIKE ? ESCAPE '!'")
        part = wanted.part_of_name.lower().replace("!", "!!").replace("%", "!%").replace("_", "!_")
        values.append(f"%{part}%")
    if wanted.status in {"active", "expired", "revoked"}:
        where.append(f"blocked = {int(wanted.status == 'revoked')}")
    if wanted.status in {"active", "expired"}:
        is_active = wanted.status == "active"
        where.append("(expires IS NULL OR expires > ?)" if is_active else "expires <= ?")
        values.append(now)
    return f"WHERE {' AND '.join(where)}", values


def names(connection: Connection) -> dict[str, str]:
    """The name of each client by its id, deleted ones included."""
    return dict(connection.execute("SELECT id, name FROM client_key").fetchall())


class ClientToken(NamedTuple):
    """The digest of a client's present key, and its label `user_id`."""

    digest: str
    user_id: str


def tokens(connection: Connection) -> dict[str, ClientToken]:
    """The digests and labels of all clients by their ids, deleted ones included."""
    rows = connection.execute("SELECT id, digest, user_id FROM client_key").fetchall()
    return {id_: ClientToken(digest, user_id) for id_, digest, user_id in rows}


def _key(row: Any) -> StoredKey:
    id_, name, team, user_id, rules, digest, hint, blocked, created, updated, deleted = row
    parsed = rules_from(rules, id_, name, team)
    return StoredKey(parsed, digest, hint, created, updated, bool(blocked), user_id, deleted)


def _present(connection: Connection, id_: str) -> StoredKey:
    row = connection.execute(f"{_SELECT} WHERE id = ? AND {_PRESENT}", (id_,)).fetchone()
    if row is None:
        raise KeyError(id_)
    return _key(row)


# Changing


def create(connection: Connection, new: StoredKey) -> StoredKey:
    """Store a client. Raises KeyConflict."""
    _check_name(connection, new.rules.name)
    _add_digest(connection, new.digest, new.id)
    connection.execute(
        "INSERT INTO client_key (id, digest, hint, created, name, team, user_id, rules, expires, blocked, "
        "updated, change) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (new.id, new.digest, new.hint, new.created, *_changing(new), _next_change(connection)),
    )
    return new


Change = Callable[[StoredKey], StoredKey]


def update(connection: Connection, id_: str, change: Change, now: float) -> StoredKey:
    """Store what `change` makes of a client; its key stays. Raises KeyConflict for a name that is taken.

    Raises KeyError for an unknown client, and what `change` raises.
    """
    old = _present(connection, id_)
    new = replace(change(old), updated=now)
    if new.rules.name != old.rules.name:
        _check_name(connection, new.rules.name)
    connection.execute(
        "UPDATE client_key SET name = ?, team = ?, user_id = ?, rules = ?, expires = ?, blocked = ?, "
        "updated = ?, change = ? WHERE id = ?",
        (*_changing(new), _next_change(connection), id_),
    )
    return new


def rotate(connection: Connection, id_: str, key: str, grace_s: float, now: float) -> StoredKey:
    """Give a client a new key; its present one ends in `grace_s` seconds, and any former one at once.

    Raises KeyError for an unknown client, KeyConflict for a key that exists already.
    """
    old = _present(connection, id_)
    connection.execute(
        "DELETE FROM client_key_digest WHERE client = ? AND (digest <> ? OR ? <= 0)",
        (id_, old.digest, grace_s),
    )
    connection.execute("UPDATE client_key_digest SET until = ? WHERE client = ?", (now + grace_s, id_))
    new = replace(old, digest=digest_of(key), hint=hint_of(key), updated=now)
    _add_digest(connection, new.digest, id_)
    connection.execute(
        "UPDATE client_key SET digest = ?, hint = ?, updated = ?, change = ? WHERE id = ?",
        (new.digest, new.hint, now, _next_change(connection), id_),
    )
    return new


def delete(connection: Connection, id_: str, now: float) -> StoredKey:
    """Delete a client. Raises KeyError for an unknown one."""
    old = _present(connection, id_)
    connection.execute("DELETE FROM client_key_digest WHERE client = ?", (id_,))
    connection.execute(
        "UPDATE client_key SET deleted = ?, change = ? WHERE id = ?", (now, _next_change(connection), id_)
    )
    return replace(old, deleted=now)


def _changing(key: StoredKey) -> tuple[object, ...]:
    """The values of the columns that `update` writes."""
    rules = key.rules
    text = rules_text(rules)
    return rules.name, rules.team, key.user_id, text, rules.expires, int(key.is_blocked), key.updated


def _check_name(connection: Connection, name: str) -> None:
    if name and connection.execute(f"{_COUNT} WHERE name = ? AND {_PRESENT}", (name,)).fetchone()[0]:
        raise KeyConflict(f"There is a key with the name {name!r} already")


def _add_digest(connection: Connection, digest: str, id_: str) -> None:
    added = connection.execute(
        "INSERT INTO client_key_digest (digest, client, until) VALUES (?, ?, NULL) ON CONFLICT DO NOTHING",
        (digest, id_),
    )
    if added.rowcount != 1:
        raise KeyConflict("That key exists already")


def _next_change(connection: Connection) -> int:
    number: int = connection.execute(
        "UPDATE client_key_counter SET number = number + 1 RETURNING number"
    ).fetchone()[0]
    return number


# Rules as JSON; id, name and team have columns of their own


def rules_text(rules: ClientRules) -> str:
    """The rules as JSON, without what has its default."""
    limits = rules.limits
    fields: dict[str, Any] = {
        "models": rules.models,
        "endpoints": rules.endpoints,
        "expires": rules.expires,
        "max_requests": rules.max_requests,
        "max_cost_nano": rules.max_cost_nano,
        "metadata": rules.metadata,
        "ui": rules.ui or None,
        "rpm": limits.rpm,
        "tpm": limits.tpm,
        "concurrent": limits.concurrent,
        "burst": limits.burst,
        "budgets": [[each.limit_nano, each.per, each.time_zone, each.strict] for each in limits.budgets],
    }
    present = {name: value for name, value in fields.items() if value not in (None, (), [], {})}
    if limits.soft != DEFAULT_SOFT:
        present["soft"] = limits.soft
    return orjson.dumps(present).decode()


def rules_from(text: str, id_: str, name: str, team: str) -> ClientRules:
    """The rules that `rules_text` has written."""
    fields = orjson.loads(text)
    return ClientRules(
        id=id_,
        name=name,
        team=team,
        limits=ScopeLimits(
            rpm=fields.get("rpm"),
            tpm=fields.get("tpm"),
            concurrent=fields.get("concurrent"),
            burst=fields.get("burst"),
            budgets=tuple(Budget(*each) for each in fields.get("budgets", ())),
            soft=tuple(fields.get("soft", DEFAULT_SOFT)),
        ),
        models=tuple(fields.get("models", ())),
        endpoints=tuple(fields.get("endpoints", ())),
        expires=fields.get("expires"),
        max_requests=fields.get("max_requests"),
        max_cost_nano=fields.get("max_cost_nano"),
        metadata=fields.get("metadata", {}),
        ui=fields.get("ui", False),
    )
