"""Memory shared by processes: sums, cells, and what is left of a process that dies or stops."""

from __future__ import annotations

import logging
import os
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sanic_proxy.state_store.shared import (
    FILE_NAME,
    KEPT_UNTIL,
    Layout,
    SharedMemory,
    key_of,
    unnamed_memory,
)
from tests.support.load import wait_until
from tests.support.shared_memory import Peer, peers

KEY = key_of("a", "b")
SMALL = Layout(cells=8, gauges=2, counters=2, slots=2, entries=8)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[SharedMemory]:
    """This process's view of the file in `tmp_path`."""
    made = SharedMemory(directory=tmp_path)
    yield made
    made.close()


def gauge(peer: Peer, value: int) -> None:
    peer.run(f"memory.gauges.own()[memory.gauges.column({KEY})] = {value}")


def counter(peer: Peer, value: int) -> None:
    peer.run(f"memory.counters.own()[memory.counters.column({KEY})] += {value}")


def total(memory: SharedMemory) -> int:
    column = memory.gauges.column(KEY)
    assert column is not None
    return memory.gauges.total(column)


def cell_value(memory: SharedMemory, key: int = KEY) -> float:
    with memory.lock as is_locked:
        assert is_locked
        cell = memory.cells.find(key, time.monotonic())
        assert cell is not None
        return cell[1]


def write_cell(memory: SharedMemory, value: float, key: int = KEY, kept_s: float = 60.0) -> bool:
    now = time.monotonic()
    with memory.lock as is_locked:
        cell = memory.cells.find(key, now) if is_locked else None
        if cell is None:
            return False
        cell[KEPT_UNTIL] = now + kept_s
        cell[1] = value
        return True


@pytest.mark.parametrize("is_named", [True, False], ids=["named", "inherited"])
def test_numbers_of_several_processes_are_summed(tmp_path: Path, is_named: bool) -> None:
    carrier = unnamed_memory()
    directory = tmp_path if is_named else None
    inherited = None if is_named else carrier.fileno()
    with peers(3, directory, inherited) as processes:
        for number, peer in enumerate(processes, 1):
            gauge(peer, number)
            counter(peer, 10 * number)
        memory = SharedMemory(directory=directory, inherited=inherited)
        assert total(memory) == 6
        assert memory.counters.totals() == [60]
        gauge(processes[0], 0)
        assert total(memory) == 5
        memory.close()
    carrier.close()


def test_an_unnamed_memory_has_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    carrier = unnamed_memory()
    assert os.fstat(carrier.fileno()).st_nlink == 0
    carrier.close()


def test_a_file_is_made_by_its_first_use_and_private(tmp_path: Path) -> None:
    memory = SharedMemory(directory=tmp_path / "state")
    assert not list(tmp_path.iterdir())
    assert write_cell(memory, 1.0)
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "state" / FILE_NAME).stat().st_mode) == 0o600
    memory.close()


def test_increments_under_the_lock_are_exact(tmp_path: Path, memory: SharedMemory) -> None:
    section = (
        "n = 0 ;; while n < 300: ;;  with memory.lock as is_locked: ;;   if is_locked: ;;    n += 1 ;;"
        f"    cell = memory.cells.find({KEY}, 0) ;;    cell[0] = 1e12 ;;    cell[1] += 1"
    )
    with peers(4, tmp_path) as processes:
        for peer in processes:
            peer.send(section)
        assert [peer.receive() for peer in processes] == ["None"] * 4
        assert cell_value(memory) == 1200.0


@pytest.mark.row(82)
def test_a_process_killed_in_a_critical_section_holds_nobody_up(tmp_path: Path, memory: SharedMemory) -> None:
    with peers(1, tmp_path) as (peer,):
        peer.run("memory.lock.__enter__()")
        peer.kill()
        assert write_cell(memory, 2.0)
        assert cell_value(memory) == 2.0


@pytest.mark.row(82)
def test_a_stopped_process_that_holds_the_lock_is_waited_for_once(
    tmp_path: Path, memory: SharedMemory
) -> None:
    assert write_cell(memory, 1.0)
    with peers(1, tmp_path) as (peer,):
        peer.run("memory.lock.__enter__()")
        peer.signal(signal.SIGSTOP)
        assert not write_cell(memory, 2.0)
        cpu_before, before = time.process_time(), time.monotonic()
        for _ in range(200):
            assert not write_cell(memory, 2.0)
        assert time.monotonic() - before < 10  # 200 waits of 0.05 s would take that long
        assert time.process_time() - cpu_before < 10
        peer.signal(signal.SIGCONT)
        peer.run("memory.lock.__exit__()")
        wait_until(lambda: write_cell(memory, 3.0))
        assert cell_value(memory) == 3.0


@pytest.mark.row(82)
def test_a_process_that_begins_while_the_lock_is_held_joins_later(tmp_path: Path) -> None:
    with peers(1, tmp_path) as (peer,):
        peer.run("memory.lock.__enter__()")
        late = SharedMemory(directory=tmp_path)
        assert late.gauges.column(KEY) is None
        assert late.gauges.own() is None
        assert late.counters.totals() == []
        peer.kill()
        wait_until(lambda: late.gauges.column(KEY) is not None)
        assert late.gauges.own() is not None
        late.close()


@pytest.mark.row(82)
def test_a_dead_workers_gauges_vanish_and_its_counters_stay(tmp_path: Path, memory: SharedMemory) -> None:
    with peers(2, tmp_path) as (first, second):
        gauge(first, 5)
        slot = first.run("memory.mapped().slot")
        counter(first, 50)
        gauge(second, 1)
        counter(second, 10)
        assert total(memory) == 6
        first.kill()
        seen = []

        def is_folded() -> bool:
            seen.append(memory.counters.totals()[0])
            return total(memory) == 1

        wait_until(is_folded)
        assert set(seen) == {60}
        assert memory.counters.totals() == [60]
        third = Peer(tmp_path)
        gauge(third, 2)
        assert third.run("memory.mapped().slot") == slot
        assert memory.counters.totals() == [60]
        third.kill()


def test_a_worker_that_ends_gives_its_slot_back(tmp_path: Path, memory: SharedMemory) -> None:
    with peers(1, tmp_path) as (peer,):
        gauge(peer, 5)
        counter(peer, 50)
        assert total(memory) == 5
        peer.run("memory.close()")
        assert total(memory) == 0
        assert memory.counters.totals() == [50]


def test_an_interrupted_fold_counts_once(tmp_path: Path, memory: SharedMemory) -> None:
    """A process is killed when the new totals are in force, and the folded slot has not been cleared."""
    assert memory.counters.totals() == []
    with peers(2, tmp_path) as (first, second):
        counter(first, 50)
        counter(second, 10)
        slot = int(first.run("memory.mapped().slot"))
        first.kill()
        second.run("from sanic_proxy.state_store.shared_map import SharedMap")
        second.run("SharedMap.finish_fold = lambda self: None")
        second.run(f"memory.mapped().fold({slot})")
        assert second.run("memory.counters.totals()") == "[60]"
        second.kill()
        assert memory.counters.totals() == [60]
        assert memory.counters.totals() == [60]


def test_two_instances_on_one_directory_share_it_and_others_do_not(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    with peers(2, here) as (first, second), peers(1, there) as (other,):
        for peer in (first, second, other):
            gauge(peer, 1)
        column = f"memory.gauges.total(memory.gauges.column({KEY}))"
        assert [peer.run(column) for peer in (first, second, other)] == ["2", "2", "1"]


def test_columns_end_with_their_main_process_and_cells_do_not(tmp_path: Path) -> None:
    with peers(1, tmp_path) as (peer,):
        counter(peer, 50)
        peer.run("memory.lock.__enter__()")
        peer.run(f"cell = memory.cells.find({KEY}, 0)")
        peer.run("cell[0] = 1e12")
        peer.run("cell[1] = 7.0")
    later = SharedMemory(directory=tmp_path)  # whose parent is another process
    assert later.counters.totals() == []
    assert cell_value(later) == 7.0
    later.close()


@pytest.mark.row(83)
def test_a_file_of_an_earlier_boot_is_emptied(tmp_path: Path) -> None:
    memory = SharedMemory(directory=tmp_path)
    assert write_cell(memory, 1.0, kept_s=1e9)
    memory.close()
    with (tmp_path / FILE_NAME).open("r+b") as file:
        file.seek(8)
        file.write(bytes(8))
    later = SharedMemory(directory=tmp_path)
    assert cell_value(later) == 0.0
    later.close()


@pytest.mark.row(83)
def test_a_file_that_others_use_in_another_form_is_left_to_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with peers(1, tmp_path) as (peer,):
        gauge(peer, 1)
        memory = SharedMemory(directory=tmp_path, layout=SMALL)
        assert total(memory) == 0
        assert peer.run(f"memory.gauges.total(memory.gauges.column({KEY}))") == "1"
        assert write_cell(memory, 1.0)
    assert "not shared with other instances: another version" in caplog.text
    memory.close()


@pytest.mark.row(83)
def test_a_directory_that_cannot_be_used_leaves_the_workers_of_one_instance_sharing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    carrier = unnamed_memory()
    with peers(1, inherited=carrier.fileno()) as (peer,):
        gauge(peer, 2)
        memory = SharedMemory(directory=tmp_path / "file", inherited=carrier.fileno())
        assert total(memory) == 2
        memory.close()
    assert caplog.text.count("not shared with other instances") == 1
    carrier.close()


@pytest.mark.row(84)
def test_full_tables_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    memory = SharedMemory(layout=SMALL)
    kept = [number for number in range(40) if write_cell(memory, float(number), key=number + 1)]
    assert kept == list(range(8))
    assert [cell_value(memory, key=number + 1) for number in kept] == [float(number) for number in kept]
    for columns in (memory.gauges, memory.counters):
        assert [columns.column(key) for key in (5, 6, 7, 5, 8)] == [0, 1, None, 0, None]
    levels = [record.levelno for record in caplog.records]
    assert levels == [logging.WARNING] * 2
    memory.close()


def test_more_workers_than_slots_count_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    carrier = unnamed_memory()
    layout = Layout(cells=8, gauges=2, counters=2, slots=1)
    first = SharedMemory(inherited=carrier.fileno(), layout=layout)
    column = first.gauges.column(KEY)
    assert column == 0
    with peers(1, inherited=carrier.fileno()) as (peer,):
        peer.run("memory = SharedMemory(inherited=int(__import__('sys').argv[2]), layout=Layout(8, 2, 2, 1))")
        assert peer.run(f"memory.gauges.column({KEY})") == "None"
        assert peer.run("memory.gauges.own()") == "None"
    first.close()
    carrier.close()


def test_an_expired_cell_makes_room_for_another_key() -> None:
    memory = SharedMemory(layout=SMALL)
    assert all(write_cell(memory, 1.0, key=key, kept_s=60 if key > 1 else -1) for key in range(1, 9))
    assert write_cell(memory, 2.0, key=100)
    assert cell_value(memory, key=100) == 2.0
    assert not write_cell(memory, 2.0, key=101)
    assert cell_value(memory, key=2) == 1.0
    memory.close()


def test_entries_are_shared_until_they_end(tmp_path: Path, memory: SharedMemory) -> None:
    with peers(1, tmp_path) as (peer,):
        peer.run("memory.lock.__enter__()")
        peer.run(f"memory.entries.put({KEY}, -5, 20.0)")
        peer.run("memory.lock.__exit__()")
        with memory.lock as is_locked:
            assert is_locked
            assert memory.entries.get(KEY + 1, 10.0, 0.0) is None
            assert memory.entries.get(KEY, 10.0, 0.0) == -5
            assert memory.entries.get(KEY, 19.0, 30.0) == -5  # which keeps it to 30
            assert memory.entries.get(KEY, 29.0, 0.0) == -5
            assert memory.entries.get(KEY, 30.0, 40.0) is None


def test_of_too_many_entries_those_that_end_first_give_way() -> None:
    memory = SharedMemory(layout=SMALL)
    with memory.lock:
        for key in range(1, 9):
            memory.entries.put(key, key, 100.0 - key)
        memory.entries.put(8, 80, 200.0)
        memory.entries.put(9, 9, 150.0)
        found = [memory.entries.get(key, 0.0, 0.0) for key in range(1, 10)]
    assert found == [1, 2, 3, 4, 5, 6, None, 80, 9]
    memory.close()


def test_without_a_table_there_are_no_entries() -> None:
    memory = SharedMemory(layout=Layout(entries=0))
    with memory.lock:
        memory.entries.put(KEY, 1, 100.0)
        assert memory.entries.get(KEY, 0.0, 0.0) is None
    memory.close()


def test_private_memory_needs_no_file_and_has_one_user() -> None:
    memory = SharedMemory()
    own, column = memory.gauges.own(), memory.gauges.column(KEY)
    assert own is not None
    assert column is not None
    own[column] += 3
    assert memory.gauges.total(column) == 3
    memory.close()


def test_keys_are_stable_and_differ() -> None:
    assert key_of("a", "b") == key_of("a", "b") == KEY
    assert len({key_of("a", "b"), key_of("ab"), key_of("b", "a"), key_of("a", "b", "")}) == 4
    assert -(2**63) <= key_of("\udc80") < 2**63
