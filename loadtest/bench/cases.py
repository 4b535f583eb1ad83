"""What is measured, as data: a kind of load, and how much of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Case:
    """One load that gateways are put under.

    Without `frames` the answers are whole and wrk is the client; with them they are streams. `interval_ms` is
    the upstream's wait before each frame, `stagger_ms` the time over which the first requests are spread,
    `total` the number of streams, if they are not limited by `seconds`.
    """

    name: str
    title: str
    connections: int
    seconds: int
    quick_seconds: int
    body_bytes: int = 0
    frames: int = 0
    interval_ms: int = 0
    stagger_ms: int = 0
    total: int = 0


CASES: tuple[Case, ...] = (
    Case("whole", "whole answers, 64 connections", 64, 6, 2),
    Case("single", "whole answers, 1 connection", 1, 3, 2),
    Case("back_to_back", "64 streams at once, back to back", 64, 6, 2, frames=100),
    Case(
        "paced", "200 streams at once, 20 ms", 200, 6, 2, frames=20, interval_ms=20, stagger_ms=400
    ),  # the starts spread over the length of a stream
    Case(
        "thousand",
        "1,000 streams at once, 20 ms",
        1000,
        0,
        0,
        frames=50,
        interval_ms=20,
        stagger_ms=500,
        total=1000,
    ),
    Case("large", "1 MiB requests, 8 connections", 8, 5, 2, body_bytes=2**20),
)

# Measured by procedures of their own (`procedures.py`).
PROCEDURES: tuple[str, ...] = ("memory", "large_memory", "imports", "starts")


def case(name: str) -> Case:
    """The case of that name. Raises KeyError."""
    return {each.name: each for each in CASES}[name]
