"""What a process costs, from /proc: CPU time and not the clock, so that a busy machine changes little."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.load import wait_until

ATTEMPTS = 4
REFERENCE_S = 0.02


def cpu_s(pid: int) -> float:
    """CPU seconds of all threads so far, to the nanosecond (`man 5 proc`: schedstat)."""
    spent = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        spent += int((task / "schedstat").read_text().split()[0])
    return spent / 1e9


def reference_s() -> float:
    """CPU seconds of a fixed piece of work: the unit of bounds on CPU time, about 20 ms on a fast core.

    It grows as everything else does on a slow core, or on one whose caches and sibling are busy.
    """
    began = time.thread_time()
    words = {str(number): [number] for number in range(30_000)}
    text = ",".join(f"{key}:{value[0]}" for key, value in words.items())
    assert len(text.split(",")) == len(words)
    return time.thread_time() - began


def slowness() -> float:
    """How many times slower this core is now than one where `reference_s` takes REFERENCE_S; at least 1.

    For bounds in seconds on work that takes far longer than a scheduler's turn.
    """
    return max(1.0, reference_s() / REFERENCE_S)


def least_cost(
    work: Callable[[], object], *, enough: float, clock: Callable[[], float] = time.thread_time
) -> float:
    """CPU time of the cheapest attempt, in units of `reference_s`; the first below `enough` is the last.

    `clock` gives the CPU seconds so far, those of this thread by default. Other load makes work more
    expensive, never cheaper: what costs too much by itself does so each time.
    """
    least = float("inf")
    for _ in range(ATTEMPTS):
        unit_s, began = reference_s(), clock()
        work()
        least = min(least, (clock() - began) / unit_s)
        if least < enough:
            break
    return least


def rss_kib(pid: int) -> int:
    """Resident memory."""
    return int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0])


def descriptors(pid: int) -> int:
    """Open files and sockets."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def is_gone(pid: int) -> bool:
    """Ended, or a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_until_gone(pids: list[int]) -> None:
    wait_until(lambda: all(map(is_gone, pids)))
