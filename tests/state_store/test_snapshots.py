"""What workers show to each other: whole texts of those that live."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator

import pytest

from sanic_proxy.state_store.snapshots import Snapshots
from tests.support.load import wait_until
from tests.support.shared_memory import Peer, peers

MAX_BYTES = 10_000
OPEN = "from sanic_proxy.state_store.snapshots import Snapshots ;; shown = Snapshots({fd}, {size})"


@pytest.fixture
def own(fd: int) -> Iterator[Snapshots]:
    shown = Snapshots(fd, MAX_BYTES)
    yield shown
    shown.close()


@pytest.fixture
def others(fd: int) -> Iterator[list[Peer]]:
    with peers(2, inherited=fd) as made:
        for peer in made:
            peer.run(OPEN.format(fd=fd, size=MAX_BYTES))
        yield made


def test_all_texts_are_seen_by_all(own: Snapshots, others: list[Peer]) -> None:
    assert own.texts() == []
    own.publish(b"own")
    for number, peer in enumerate(others):
        peer.run(f"shown.publish(b'other {number}')")
    assert sorted(own.texts()) == [b"other 0", b"other 1", b"own"]
    assert eval(others[0].run("sorted(shown.texts())")) == sorted(own.texts())
    own.publish(b"x" * MAX_BYTES)
    assert b"x" * MAX_BYTES in own.texts()
    own.publish(b"too long" * MAX_BYTES)
    assert b"x" * MAX_BYTES in own.texts()


def test_a_killed_worker_shows_nothing_and_its_place_is_free(
    fd: int, own: Snapshots, others: list[Peer]
) -> None:
    own.publish(b"own")
    for peer in others:
        peer.run("shown.publish(b'other')")
        assert peer.run("shown.listen(10)") == "'counted'"
    assert (len(own.texts()), own.listeners) == (3, 2)
    others[0].kill()
    assert sorted(own.texts()) == [b"other", b"own"]
    assert own.listeners == 1
    size = os.fstat(fd).st_size
    for _ in range(3):
        with peers(1, inherited=fd) as (later,):
            later.run(OPEN.format(fd=fd, size=MAX_BYTES))
            later.run("shown.publish(b'later')")
            assert sorted(own.texts()) == [b"later", b"other", b"own"]
        assert sorted(own.texts()) == [b"other", b"own"]
    assert os.fstat(fd).st_size == size


def test_a_worker_that_is_killed_while_it_writes_leaves_nothing(own: Snapshots, others: list[Peer]) -> None:
    letters = [bytes([letter]) * MAX_BYTES for letter in b"ab"]
    others[0].send("while True: shown.publish(b'a' * 10_000) or shown.publish(b'b' * 10_000)")
    wait_until(lambda: own.texts() != [])
    seen = [text for _ in range(300) for text in own.texts()]
    assert seen
    assert set(seen) <= set(letters)
    others[0].kill()
    assert own.texts() == []


def test_listeners_are_limited_over_all_workers(own: Snapshots, others: list[Peer]) -> None:
    assert own.listen(3) == "counted"
    assert others[0].run("shown.listen(3)") == "'counted'"
    assert others[1].run("shown.listen(3)") == "'counted'"
    assert own.listen(3) == "full"
    assert others[0].run("shown.leave() or shown.listeners") == "2"
    assert own.listen(3) == "counted"
    assert own.listen(3) == "full"
    others[1].kill()
    assert own.listen(3) == "counted"  # in place of the dead worker's


def test_a_worker_that_ends_gives_its_place_back(fd: int, own: Snapshots) -> None:
    other = Snapshots(fd, MAX_BYTES)
    own.publish(b"own")
    own.close()
    other.publish(b"other")
    assert other.texts() == [b"other"]
    other.close()


def test_a_locked_list_of_listeners_is_not_a_full_one(own: Snapshots, fd: int, others: list[Peer]) -> None:
    lock = f"__import__('fcntl').lockf({fd}, {{}}, 1, 0)"
    others[0].run(lock.format(fcntl.LOCK_EX))
    assert own.listen(3) == "locked"
    others[0].run(lock.format(fcntl.LOCK_UN))
    assert own.listen(3) == "counted"
