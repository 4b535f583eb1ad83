"""What the ledger says has been spent: sums by client, model and day, rows, and what is left of budgets.

The functions on connections run in the store's thread. Days are those of UTC, as in the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sanic_proxy.config.rules import NANO, ScopeLimits
from sanic_proxy.governance.budgets import Counter, window
from sanic_proxy.governance.ledger_tables import ROW_COLUMNS, spent
from sanic_proxy.governance.rules import Scope, ScopedLimits
from sanic_proxy.json_types import Json
from sanic_proxy.state_store.base import Connection

# By what sums can be grouped: the column of the ledger's table for each word.
GROUPS = {
    "key": "client",
    "model": "model",
    "day": "day",
    "team": "team",
    "provider": "provider",
    "target": "target",
}
_FIRST_DAY, _LAST_DAY = "0000-00-00", "9999-12-31"


class Sum(NamedTuple):
    """The sums of one group. `nano` is in nano-dollars, the units are tokens.

    `estimated` counts the attempts whose usage nobody has seen.
    """

    group: tuple[str, ...]
    attempts: int
    estimated: int
    input: int
    cached: int
    cache_write: int
    output: int
    reasoning: int
    nano: int


def sums(
    connection: Connection,
    by: Sequence[str],
    *,
    since: str = "",
    until: str = "",
    clients: Sequence[str] | None = None,
) -> list[Sum]:
    """The sums of the days from `since` to `until` (`2026-11-28`), by some of GROUPS, the largest first.

    `clients`: of these alone.
    """
    if clients is not None and not clients:
        return []
    columns = ", ".join(GROUPS[word] for word in by)
    totals = ", ".join(f"SUM({name})" for name in Sum._fields[1:])
    where, values = "day >= ? AND day <= ?", [since or _FIRST_DAY, until or _LAST_DAY]
    if clients is not None:
        where += f" AND client IN ({_marks(clients)})"
        values += clients
    rows = connection.execute(
        f"SELECT {columns}, {totals} FROM ledger_day WHERE {where} "  # noqa: S608 - names of this module
        f"GROUP BY {columns} ORDER BY SUM(nano) DESC, {columns}",
        tuple(values),
    ).fetchall()
    number = len(by)
    return [Sum(tuple(row[:number]), *map(int, row[number:])) for row in rows]


def named(entry: Sum, by: Sequence[str], names: Mapping[str, str]) -> Sum:
    """The sum with the names of clients in place of their ids."""
    words = zip(by, entry.group, strict=True)
    group = tuple(names.get(word) or word if kind == "key" else word for kind, word in words)
    return entry._replace(group=group)


def sum_object(entry: Sum, by: Sequence[str], names: Mapping[str, str]) -> Json:
    """A sum as JSON, in US dollars. `key` is the client's name, by its id in `names`, and `client_id` the id.

    A name may be that of several clients: that of a deleted one can be given again.
    """
    groups = dict(zip(by, entry.group, strict=True))
    if "key" in groups:
        id_ = groups["key"]
        groups |= {"key": names.get(id_) or id_, "client_id": id_}
    fields = entry._asdict()
    fields.pop("group")
    return {**groups, "usd": fields.pop("nano") / NANO, **fields}


def rows(
    connection: Connection,
    limit: int,
    *,
    clients: Sequence[str] | None = None,
    request_id: str = "",
    since_ms: int = 0,
    until_ms: int = 2**62,
) -> list[Json]:
    """The rows of attempts, the latest first; `clients`: of these alone."""
    if clients is not None and not clients:
        return []
    where, values = ["started_ms >= ? AND started_ms < ?"], [since_ms, until_ms]
    parameters: list[object] = list(values)
    if clients is not None:
        where.append(f"client IN ({_marks(clients)})")
        parameters += clients
    if request_id:
        where.append("request_id = ?")
        parameters.append(request_id)
    found = connection.execute(
        f"SELECT {', '.join(ROW_COLUMNS)} FROM ledger_row WHERE {' AND '.join(where)} "  # noqa: S608
        "ORDER BY started_ms DESC, attempt DESC LIMIT ?",
        (*parameters, limit),
    ).fetchall()
    return [dict(zip(ROW_COLUMNS, row, strict=True)) for row in found]


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


class BudgetUse(NamedTuple):
    """What is left of one budget in its present period, in nano-dollars.

    `reserved` is what workers hold for requests in flight. `resets` is in seconds since the epoch.
    """

    scope: Scope
    per: str
    limit: int
    used: int
    reserved: int
    resets: int

    @property
    def left(self) -> int:
        """What may still be reserved."""
        return max(0, self.limit - self.used - self.reserved)


def budget_use(connection: Connection, scopes: Sequence[ScopedLimits], now: float) -> list[BudgetUse]:
    """The present use of each budget of `scopes`."""
    found = []
    for scope, limits in ((scoped.scope, scoped.limits) for scoped in scopes):
        for budget in limits.budgets:
            start, end = window(budget.per, budget.time_zone, now)
            counter = Counter(scope.kind, scope.name, budget.per, start)
            row = connection.execute(
                "SELECT used FROM budget_counter WHERE id = ?", (counter.key,)
            ).fetchone()
            used = int(row[0]) if row is not None else spent(connection, counter, end)
            (reserved,) = connection.execute(
                "SELECT COALESCE(SUM(nano), 0) FROM budget_lease WHERE counter = ?", (counter.key,)
            ).fetchone()
            found.append(BudgetUse(scope, budget.per, budget.limit_nano, used, int(reserved), end))
    return found


class Spending(NamedTuple):
    """What a client has spent in all, in nano-dollars, and what it has used of each of its budgets."""

    total: int = 0
    budgets: tuple[BudgetUse, ...] = ()


def spending(connection: Connection, clients: Mapping[str, ScopeLimits], now: float) -> dict[str, Spending]:
    """The spending of clients, by their ids."""
    totals = {entry.group[0]: entry.nano for entry in sums(connection, ["key"], clients=list(clients))}
    return {
        id_: Spending(
            totals.get(id_, 0),
            tuple(budget_use(connection, [ScopedLimits(Scope("client", id_), limits)], now)),
        )
        for id_, limits in clients.items()
    }
