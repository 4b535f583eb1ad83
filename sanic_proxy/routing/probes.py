"""One probe per machine: the workers agree in shared memory which of them probes a target.

Each worker has circuits of its own, and would probe a failing target as often as if it were alone. So a probe
needs a lease, which ends by itself if its worker is killed. Its outcome concerns all workers: a probe that
failed says when the next one may be sent, whoever sends it, and a target that answers need not be probed
by a worker whose last failure is older. A worker that cannot get the lock decides for itself. Times are
handed in.
"""

from __future__ import annotations

import os
from typing import Final

from sanic_proxy.state_store.shared import KEPT_UNTIL, SharedMemory, key_of

# The doubles of a target's cell; the holder is a number that a worker has drawn, 0: nobody.
_HOLDER, _LEASED_UNTIL, _FAILED_AT, _NOT_BEFORE, _ANSWERED_AT = range(1, 6)
# An answer is of no interest to a worker whose circuit opened later, or whose pause is over by then.
_REMEMBERED_S = 60.0
# No time is below 0.
ALIVE: Final = -1.0


class Probes:
    """The leases of one worker."""

    __slots__ = ("_holder", "_memory")

    def __init__(self, memory: SharedMemory) -> None:
        self._memory = memory
        self._holder = 1.0 + int.from_bytes(os.urandom(6), "little")

    def take(
        self, key: int, now: float, lease_s: float, failed_at: float, *, pause_s: float | None = None
    ) -> float:
        """Ask to probe the target `key`, of which this worker has last seen a failure at `failed_at`.

        0: the worker has the lease for `lease_s`. `ALIVE`: another worker has had an answer since. Else the
        time when another worker's lease ends, or the pause after the last probe that failed: the one that
        its worker has named, or `pause_s`.
        """
        with self._memory.lock as is_locked:
            cell = self._memory.cells.find(key, now) if is_locked else None
            if cell is None:
                return 0.0
            if cell[_ANSWERED_AT] > failed_at:
                return ALIVE
            is_other = cell[_HOLDER] not in {0.0, self._holder}
            pause_ends = cell[_NOT_BEFORE] if pause_s is None else cell[_FAILED_AT] + pause_s
            until = max(pause_ends, cell[_LEASED_UNTIL] if is_other else 0.0)
            if until > now:
                return until
            cell[_HOLDER], cell[_LEASED_UNTIL] = self._holder, now + lease_s
            _keep(cell, now + lease_s)
        return 0.0

    def end(self, key: int, now: float, *, not_before: float = 0.0, has_answered: bool = False) -> None:
        """A probe has ended; if it has failed, `not_before` is when the next one may be sent."""
        with self._memory.lock as is_locked:
            cell = self._memory.cells.find(key, now) if is_locked else None
            if cell is None:
                return
            if cell[_HOLDER] == self._holder:
                cell[_HOLDER] = cell[_LEASED_UNTIL] = 0.0
            if has_answered:
                cell[_ANSWERED_AT], cell[_NOT_BEFORE] = now, 0.0
                _keep(cell, now + _REMEMBERED_S)
            elif not_before:
                cell[_FAILED_AT], cell[_NOT_BEFORE] = now, max(cell[_NOT_BEFORE], not_before)
                _keep(cell, not_before)


def probe_key(provider: str, key_number: int, model: str = "", endpoint: str = "") -> int:
    """The key of a target's cell; without a model and endpoint, of a provider's key."""
    return key_of("probe", provider, str(key_number), model, endpoint)


def _keep(cell: memoryview[float], until: float) -> None:
    cell[KEPT_UNTIL] = max(cell[KEPT_UNTIL], until)
