"""The disk of the state directory fills up, its file is locked or damaged, while a proxy runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sanic_proxy.governance.journal import FIRST_SLOTS, Journal, JournalFull
from sanic_proxy.governance.leases import UNRESERVED
from sanic_proxy.state_store.sqlite import FILE_NAME
from tests.support.billing import Billing, running_billing
from tests.support.disk import Disk, small_disk
from tests.support.load import wait_until
from tests.support.proxy import Reply

# A request reserves up to 5 millionths of a dollar: a lease is soon used up, and the store is asked.
CLIENTS = """
[clients.app]
key_env = "APP_KEY"
budget = { usd = 0.06, per = "total" }
[clients.other]
key_env = "OTHER_KEY"
budget = { usd = 0.06, per = "total" }
[clients.last]
key_env = "LAST_KEY"
budget = { usd = 0.06, per = "total" }
"""
MANY = 200


class Faults:
    """A proxy whose state is on a small disk, and the requests that were answered."""

    def __init__(self, billing: Billing, disk: Disk) -> None:
        self.billing = billing
        self.disk = disk
        self.answered: list[str] = []
        self._sent = 0

    def send(self, client: str) -> Reply:
        self._sent += 1
        id_ = f"r{self._sent}"
        metadata, headers = {"id": id_}, {"x-request-id": id_}
        reply = self.billing.post(client, metadata=metadata, headers=headers, max_tokens=20)
        if reply.status == 200:
            self.answered.append(id_)
        return reply

    def until_refused(self, client: str) -> Reply:
        """The first refusal: what has been granted can be spent."""
        for _ in range(MANY):
            reply = self.send(client)
            if reply.status != 200:
                return reply
        raise AssertionError("nothing was refused")

    def until_answered(self, client: str) -> None:
        wait_until(lambda: self.send(client).status == 200)

    def _has_tables(self) -> bool:
        with closing(sqlite3.connect(self.disk.path / FILE_NAME)) as connection:
            found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'ledger_row'").fetchone()
        return found is not None

    def failures(self) -> int:
        """How often a worker has noticed that it cannot write."""
        return self.billing.proxy.log.count("the ledger cannot be written")

    def check_books(self) -> None:
        """Each request that was answered is in the ledger, at what it is billed."""
        wait_until(self._has_tables)
        for id_ in self.answered:
            (row,) = self.billing.rows(id_)
            assert row["nano"] == self.billing.bill(id_)


def running(directory: Path, on_store_down: str) -> Iterator[Faults]:
    with small_disk(directory / "state", size_mib=16) as disk:
        settings = {"SANIC_PROXY_ON_STORE_DOWN": on_store_down, "SANIC_PROXY_BREAKER": "off"}
        with running_billing(directory, CLIENTS, workers=2, **settings) as billing:
            yield Faults(billing, disk)
        assert "Traceback" not in billing.proxy.log


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faults]:
    yield from running(tmp_path_factory.mktemp("refusing"), "refuse")


@pytest.fixture(scope="module")
def passing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faults]:
    yield from running(tmp_path_factory.mktemp("passing"), "allow")


def damage(directory: Path) -> None:
    for name in (FILE_NAME, f"{FILE_NAME}-wal"):
        path = directory / name
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.write(b"?" * size)


def replace(directory: Path) -> None:
    for name in (FILE_NAME, f"{FILE_NAME}-wal", f"{FILE_NAME}-shm"):
        (directory / name).unlink(missing_ok=True)


@pytest.mark.row(68, 72)
def test_a_full_disk_refuses_and_recovers(refusing: Faults) -> None:
    refusing.until_answered("app")
    refusing.disk.fill()
    reply = refusing.until_refused("app")
    assert (reply.status, reply.error["code"]) == (503, "store_unavailable")
    assert int(reply.headers["retry-after"]) >= 1
    wait_until(lambda: "the ledger cannot be written" in refusing.billing.proxy.log)
    assert "full" in refusing.billing.proxy.log
    refusing.disk.empty()
    refusing.until_answered("app")
    wait_until(lambda: "the ledger can be written again" in refusing.billing.proxy.log)
    refusing.check_books()


def test_a_full_disk_lets_pass_and_books_later(passing: Faults) -> None:
    passing.until_answered("app")
    passing.disk.fill()
    for _ in range(40):
        assert passing.send("app").status == 200
    passing.disk.empty()
    passing.until_answered("app")
    passing.check_books()
    flags = [row["flags"] for id_ in passing.answered for row in passing.billing.rows(id_)]
    assert {0, UNRESERVED} == set(flags)


@pytest.mark.row(72)
def test_a_locked_file_refuses_and_recovers(refusing: Faults) -> None:
    refusing.until_answered("other")
    with closing(sqlite3.connect(refusing.disk.path / FILE_NAME, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        reply = refusing.until_refused("other")
        assert (reply.status, reply.error["code"]) == (503, "store_unavailable")
        other.execute("ROLLBACK")
    refusing.until_answered("other")
    refusing.check_books()


# The last one, as it loses what has been booked.
@pytest.mark.parametrize("how", ["refusing", "passing"])
def test_a_file_that_is_damaged_while_it_is_used(how: str, request: pytest.FixtureRequest) -> None:
    faults: Faults = request.getfixturevalue(how)
    faults.until_answered("last")
    before = faults.failures()
    damage(faults.disk.path)
    if how == "refusing":
        reply = faults.until_refused("last")
        assert (reply.status, reply.error["code"]) == (503, "store_unavailable")
    else:
        wait_until(lambda: faults.send("last").status == 200 and faults.failures() > before)
    wait_until(lambda: faults.failures() > before)
    faults.answered.clear()  # what was booked in it is lost
    replace(faults.disk.path)
    faults.until_answered("last")
    faults.check_books()


def test_a_journal_on_a_full_disk_goes_on_when_there_is_room(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", size_mib=6) as disk:
        journal = Journal.create(disk.path, "w")
        disk.fill()
        opened = [journal.open(b"reservation") for _ in range(FIRST_SLOTS)]
        assert fails(lambda: journal.open(b"one more"))
        assert fails(lambda: Journal.create(disk.path, "x"))
        assert [path.name for path in disk.path.glob("*x*")] == []
        journal.settle(opened[0], b"settlement")  # what is open can be settled
        journal.release(opened[0])
        assert journal.open(b"another") == opened[0]
        disk.empty()
        assert journal.open(b"one more") == FIRST_SLOTS
        assert len(list(journal.left())) == FIRST_SLOTS + 1
        journal.close()


def fails(use: Callable[[], object]) -> bool:
    try:
        use()
    except (JournalFull, OSError):
        return True
    return False
