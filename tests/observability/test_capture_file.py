"""The file of captured content: limits of size and age, a full disk, several writers."""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sanic_proxy.observability.capture_file import CaptureFile, CaptureWriter

DAY_S = 86_400.0


def line(number: int, age_s: float = 0.0, size: int = 0) -> bytes:
    return (
        json.dumps(
            {"time": time.time() - age_s, "n": number, "x": "x" * size}, separators=(",", ":")
        ).encode()
        + b"\n"
    )


def numbers(path: Path) -> list[int]:
    return [json.loads(text)["n"] for text in path.read_text().splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "captures.jsonl"


def file_at(path: Path, max_bytes: int = 2**20, ttl_s: float = DAY_S) -> CaptureFile:
    return CaptureFile(path, ttl_s=ttl_s, max_bytes=max_bytes)


def test_only_the_owner_can_read_it(path: Path) -> None:
    file_at(path).append(line(1))
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    file_at(path).append(line(2))
    assert path.stat().st_mode & 0o777 == 0o600
    assert numbers(path) == [1, 2]


def test_a_link_is_not_followed(path: Path) -> None:
    path.symlink_to(path.with_name("other"))
    with pytest.raises(OSError, match="symbolic"):
        file_at(path).append(line(1))


def test_old_lines_are_removed(path: Path) -> None:
    file = file_at(path, ttl_s=100)
    file.prune()  # there is none yet
    assert not path.exists()
    file.append(line(1, age_s=300) + line(2, age_s=200) + line(3, age_s=50) + line(4))
    file.prune()
    assert numbers(path) == [3, 4]
    file.prune()
    assert numbers(path) == [3, 4]


def test_what_is_no_line_is_removed_with_the_old_ones(path: Path) -> None:
    path.write_bytes(b"half a li\n" + line(1))
    file_at(path).prune()
    assert numbers(path) == [1]


def test_the_oldest_lines_go_when_the_file_is_full(path: Path) -> None:
    file = file_at(path, max_bytes=10_000)
    for number in range(100):
        file.append(line(number, size=500))
        assert path.stat().st_size <= 10_000
    kept = numbers(path)
    assert kept == list(range(kept[0], 100))
    assert len(kept) > 5
    with pytest.raises(ValueError, match="larger"):
        file.append(line(0, size=20_000))


def test_more_than_a_block_is_moved_whole(path: Path) -> None:
    file = file_at(path, max_bytes=2**26)
    kept = [line(number, size=700_000) for number in range(2, 6)]
    file.append(line(1, age_s=2 * DAY_S, size=12_345) + b"".join(kept))
    file.prune()
    assert path.read_bytes() == b"".join(kept)


def test_several_writers_lose_nothing(path: Path) -> None:
    def write(first: int) -> None:
        file = file_at(path)
        for number in range(first, first + 50):
            file.append(line(number, size=200))

    threads = [threading.Thread(target=write, args=(100 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers(path)) == sorted(100 * a + b for a in range(4) for b in range(50))


@pytest.fixture
def full_disk() -> Iterator[int]:
    """No file of this process may grow beyond this size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limit = 2**20
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.row(68)
def test_a_full_disk_drops_whole_lines_and_counts_them(
    path: Path, full_disk: int, caplog: pytest.LogCaptureFixture
) -> None:
    writer = CaptureWriter(file_at(path, max_bytes=2**30))
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            writer.submit(10 * 2**20, lambda number=number: line(number, size=full_disk * 2 // 5))  # type: ignore[misc]
        writer.close()
    assert numbers(path) == [0, 1]
    assert writer.dropped == 1
    assert "1 captures could not be written" in caplog.text


def test_a_full_queue_drops_and_counts(path: Path) -> None:
    writer = CaptureWriter(file_at(path), max_queued_bytes=100)
    may_go = threading.Event()

    def slow() -> bytes:
        may_go.wait()
        return line(0)

    writer.submit(60, slow)
    writer.submit(60, lambda: line(1))
    writer.submit(40, lambda: line(2))
    may_go.set()
    writer.close()
    assert (numbers(path), writer.dropped) == ([0, 2], 1)


def test_a_line_that_cannot_be_made_is_dropped(path: Path) -> None:
    def wrong() -> bytes:
        raise RecursionError

    writer = CaptureWriter(file_at(path))
    writer.submit(1, wrong)
    writer.submit(1, lambda: line(1))
    writer.close()
    assert (numbers(path), writer.dropped) == ([1], 1)


def test_lines_that_are_old_at_the_start_are_removed(path: Path) -> None:
    path.write_bytes(line(1, age_s=2 * DAY_S) + line(2))
    os.chmod(path, 0o600)
    CaptureWriter(file_at(path)).close()
    assert numbers(path) == [2]
