"""The least rate at which a body must arrive."""

from __future__ import annotations

import pytest

from sanic_proxy.server.body_rate import MIN_BYTES_PER_S, WINDOW_S, BodyRate

ENOUGH = int(MIN_BYTES_PER_S * WINDOW_S)


@pytest.mark.parametrize(
    ("waits", "is_enough"),
    [
        ([(29, 1)], True),
        ([(30, ENOUGH)], True),
        ([(30, ENOUGH - 1)], False),
        ([(1, 1)] * 30, False),
        ([(1, MIN_BYTES_PER_S)] * 300, True),
        ([(1, 0)] * 29 + [(1, ENOUGH)], True),  # in bursts
        ([(30, 1000 * ENOUGH), (30, ENOUGH - 1)], False),  # no credit from an earlier window
        ([(0.001, ENOUGH)] * 1000, True),
        ([(0, 0)] * 1000, True),  # time in which nothing waited
    ],
)
def test_the_rate_is_judged_per_window_of_waiting(waits: list[tuple[float, int]], is_enough: bool) -> None:
    rate, size_bytes, judged = BodyRate(0), 0, True
    for waited_s, came_bytes in waits:
        size_bytes += came_bytes
        judged = judged and rate.is_enough(waited_s, size_bytes)
    assert judged is is_enough


def test_what_is_left_of_a_window_is_how_long_to_wait() -> None:
    rate = BodyRate(0)
    rate.is_enough(10, 0)
    assert rate.left_s == WINDOW_S - 10
