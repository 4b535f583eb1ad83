"""The shared ring of events: one order, bounds, and writers that are killed or stopped."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from functools import partial

import pytest

from sanic_proxy.state_store.ring import MAX_EVENT_BYTES, PLACES, EventRing
from sanic_proxy.state_store.shared import unnamed_memory
from tests.support.load import wait_until
from tests.support.shared_memory import Peer, peers

OPEN = "from sanic_proxy.state_store.ring import EventRing ;; ring = EventRing({fd})"
ENDLESS = "while True: ring.append([str(number).encode() * 500 for number in range(5)])"


@pytest.fixture
def ring(fd: int) -> Iterator[EventRing]:
    ring = EventRing(fd)
    yield ring
    ring.close()


@pytest.fixture
def peer(fd: int) -> Iterator[Peer]:
    with peers(1, inherited=fd) as (made,):
        made.run(OPEN.format(fd=fd))
        yield made


def test_a_new_ring_is_empty(ring: EventRing) -> None:
    assert (ring.last, list(ring.after(0)), list(ring.before())) == (0, [], [])


def test_events_of_all_processes_have_one_order(ring: EventRing, peer: Peer) -> None:
    for number in range(4):
        assert ring.append([b"own %d" % number])
        assert peer.run(f"ring.append([b'other {number}'])") == "True"
    found = list(ring.after(0))
    numbers = [number for number, _ in found]
    assert [event for _, event in found[:3]] == [b"own 0", b"other 0", b"own 1"]
    assert numbers == list(range(numbers[0], numbers[0] + 8))
    assert ring.last == numbers[-1]
    assert list(ring.after(numbers[5])) == found[6:]
    assert list(ring.before()) == found[::-1]
    assert list(ring.before(numbers[2])) == found[1::-1]
    assert list(ring.after(numbers[-1])) == list(ring.after(2**62)) == list(ring.before(1)) == []


def test_the_oldest_events_make_room(ring: EventRing) -> None:
    events = [b"%d" % number for number in range(3 * PLACES)]
    assert ring.append(events)
    assert [event for _, event in ring.after(0)] == events[-PLACES:]
    assert len(list(ring.before())) == PLACES


def test_an_event_may_fill_its_place(ring: EventRing) -> None:
    events = [bytes([65 + number]) * MAX_EVENT_BYTES for number in range(3)]
    assert ring.append(events)
    assert [event for _, event in ring.after(0)] == events


def test_numbers_go_on_after_a_new_start(ring: EventRing) -> None:
    """A listener that was connected to the main process before gets what the next one has."""
    ring.append([b"before"])
    later = unnamed_memory()
    other = EventRing(later.fileno())
    other.append([b"after"])
    assert [event for _, event in other.after(ring.last)] in ([b"after"], [])
    assert abs(other.last - ring.last) < 60_000
    other.close()
    later.close()


def has_passed(ring: EventRing, number: int) -> bool:
    return ring.last > number


def test_a_killed_writer_leaves_only_whole_events(fd: int, ring: EventRing) -> None:
    assert ring.append([b"next"])
    for _ in range(5):
        with peers(1, inherited=fd) as (writer,):
            writer.run(OPEN.format(fd=fd))
            writer.send(ENDLESS)
            wait_until(partial(has_passed, ring, ring.last + PLACES))
        assert ring.append([b"next"])
        found = list(ring.after(0))
        assert found[-1] == (ring.last, b"next")
        assert {event for _, event in found} <= {
            b"next",
            *(str(number).encode() * 500 for number in range(5)),
        }
        assert len(found) >= PLACES - 1


def test_a_reader_beside_a_writer_sees_whole_events_in_order(ring: EventRing, peer: Peer) -> None:
    peer.send(ENDLESS)
    wait_until(lambda: ring.last > 0)
    after = 0
    for _ in range(30):
        for number, event in ring.after(after):
            assert number > after
            after = number
            assert len(set(event)) == 1
            assert len(event) == 500
    peer.kill()


@pytest.mark.row(82)
def test_a_stopped_writer_stops_nobody(fd: int, ring: EventRing, peer: Peer) -> None:
    peer.run(f"import fcntl ;; fcntl.lockf({fd}, fcntl.LOCK_EX, 1, 0)")
    peer.signal(signal.SIGSTOP)
    assert not ring.append([b"x"])
    assert list(ring.after(0)) == []
    peer.kill()
    assert ring.append([b"x"])
