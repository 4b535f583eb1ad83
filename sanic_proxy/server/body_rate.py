"""The least rate at which a body must arrive."""

from __future__ import annotations

MIN_BYTES_PER_S = 1024
WINDOW_S = 30.0


class BodyRate:
    """Judges a body's rate over windows of `WINDOW_S`. Does no I/O.

    Only the time in which the proxy waits for the client counts: while nothing is read, because a provider
    takes an upload slowly, the client cannot send. A limit for each single read instead would be renewed by
    one byte now and then, and a limit for the whole body would refuse large ones on honest slow lines.
    """

    __slots__ = ("_start_bytes", "left_s")

    def __init__(self, size_bytes: int) -> None:
        self._start_bytes = size_bytes
        self.left_s = WINDOW_S

    def is_enough(self, waited_s: float, size_bytes: int) -> bool:
        """Count `waited_s` of waiting, after which `size_bytes` of the body have come in all."""
        self.left_s -= waited_s
        if self.left_s > 0:
            return True
        came_bytes = size_bytes - self._start_bytes
        self._start_bytes, self.left_s = size_bytes, WINDOW_S
        return came_bytes >= MIN_BYTES_PER_S * WINDOW_S
