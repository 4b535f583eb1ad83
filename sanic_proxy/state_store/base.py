"""What a store of shared state does, whichever database holds it.

A feature that keeps state shared by the workers of a machine (keys, budgets, stored responses) owns its
tables: it declares them as a `Migration` and reads and writes them by functions that get a connection. The
store knows no feature. It is opened by its first use, so a proxy that needs no shared state opens no file.

SQL for both databases. The functions of features run on SQLite and on PostgreSQL, so their SQL is what both
understand. Parameters are `?` or `:name`, an upsert is `INSERT ... ON CONFLICT`, `RETURNING` is allowed.
Columns have the types TEXT, INTEGER (64 bits), REAL and BLOB; `INTEGER PRIMARY KEY` counts up. A
transaction excludes all others, on whatever machine, so a function may read, decide and write.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

Parameters = Sequence[Any] | Mapping[str, Any]


class Rows(Protocol):
    """The result of one statement."""

    @property
    def rowcount(self) -> int:
        """How many rows the statement has changed."""

    def fetchone(self) -> Any:
        """The next row as a tuple, or None."""

    def fetchall(self) -> list[Any]:
        """All further rows."""

    def __iter__(self) -> Iterator[Any]: ...


class Statements(Protocol):
    """What executes statements, such as the connection of a program that only looks at a store."""

    def execute(self, sql: str, parameters: Parameters = (), /) -> Rows:
        """Execute one statement; see the module for its SQL."""


class Connection(Statements, Protocol):
    """What a feature's function gets: a connection with a transaction under way."""

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> object:
        """Execute one statement with each of `rows` as its parameters."""


Work = Callable[[Connection], T]


class StoreError(Exception):
    """The store cannot be used; the message has the reason and the remedy."""


class StoreTooNew(StoreError):
    """The file was written by a newer version of the proxy, and is left as it is."""


class StoreUnavailable(StoreError):
    """The disk is full, or the file is locked, damaged or out of reach. A later try may succeed."""


class StoreRefused(StoreError):
    """The database does not take a value, or a statement. The same work would be refused again."""


class StoreFull(StoreError):
    """There is no room for what was to be stored, and nothing that may be dropped for it."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema. Steps are applied in order, once, and never changed after a release."""

    name: str
    statements: Sequence[str]


class StateStore(ABC):
    """Shared state of the workers on one machine. Its operations raise StoreError where the store fails."""

    def exists(self) -> bool:
        """Whether anything may have been stored. No file is made to find out."""
        return True

    @abstractmethod
    async def run(self, work: Work[T]) -> T:
        """Run `work` in one transaction, off the event loop, and return its result.

        An exception of `work` rolls its changes back and is raised here; one of the database, or of a value
        that it does not take, as StoreError. If the caller is cancelled, work that has begun is completed,
        and work that has not begun is dropped.
        """

    @abstractmethod
    def write(self, work: Work[object]) -> None:
        """Queue `work` for the next batch, without waiting. Raises StoreUnavailable if the queue is full."""

    @abstractmethod
    async def flush(self) -> None:
        """Wait until all that was queued is committed. Raises the first error of the batch."""

    @abstractmethod
    def subscribe(self, on_change: Callable[[], None]) -> Callable[[], None]:
        """Have `on_change` called in the event loop soon after another process has changed the store.

        Returns a function that ends the subscription.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Commit what is queued and close. Safe to call twice, and on a store that was never opened."""
