"""Run coroutines on an event loop whose clock moves only while nothing is ready to run.

When every task waits for a timer, the clock jumps to the first one. Time-outs, pauses and heartbeats then
take no time, fire in the order of their times, and never because the machine was busy. Only for code that
waits for timers and futures of its own loop: for a thread or a socket the loop would not wait, but let the
next timer fire.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar
from unittest.mock import patch

from typing_extensions import override

T = TypeVar("T")

START_S = 1000.0
# Timers fire a little late, as on any loop: rounding must not let one fire before its time, again and again.
LATE_S = 1e-6


class _JumpingSelector(selectors.DefaultSelector):
    """Adds the time it was to wait to its clock, and returns at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = START_S

    @override
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout > 0:
            self.now_s += timeout + LATE_S
            timeout = 0
        return super().select(timeout)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        self._clock = _JumpingSelector()
        super().__init__(self._clock)

    @override
    def time(self) -> float:
        return self._clock.now_s


def run(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` in virtual time, which `time.monotonic` shows as well."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        loop = runner.get_loop()
        with patch("time.monotonic", loop.time):
            return runner.run(main)
