"""The series of all metrics in memory that the workers share: who has which column, and what it is called.

A series is a family with the values of its labels. Its numbers are columns of `state_store.shared`: a worker
adds to its own without a lock, and whoever shows them sums over all workers, dead ones included. A histogram
has a column per bucket and one for the sum of its values.

The memory finds a column by a hash, so the names of series are kept beside it. They are lines of a second
piece of memory, to which every worker appends (one write with O_APPEND, which is not interleaved with those
of others) and from which every worker reads what is new.

How many series a family may have is bounded. What is beyond that counts in the series whose free labels are
`other`.
"""

from __future__ import annotations

import fcntl
import os
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import NamedTuple

from sanic_proxy.metrics.families import FAMILIES, LOST_SERIES, Family
from sanic_proxy.openai import codec
from sanic_proxy.state_store.shared import Layout, SharedMemory, key_of

LAYOUT = Layout(cells=1, gauges=1024, counters=24_576, slots=512)
MAX_SERIES = 1000  # of all families with labels, in one worker
MAX_NAMES_BYTES = 4 * 2**20
OTHER = "other"

_BY_NAME = {family.name: family for family in FAMILIES}


class Series(NamedTuple):
    """A family with the values of its labels, in the family's order."""

    family: Family
    values: tuple[str, ...]


_values = attrgetter("values")


class LocalHistogram:
    """Values counted in this process. `counts` has a bucket for each bound, and one for larger values."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    @property
    def count(self) -> int:
        return sum(self.counts)

    def observe(self, value: float) -> None:
        """Count one value; one below 0, by the clocks' inexactness, as 0."""
        self.counts[bisect_left(self._bounds, value)] += 1
        if value > 0:
            self.total += value

    def observe_all(self, values: Sequence[float]) -> None:
        """Count many values, for a third of the cost: sorted ones need one search for each bound."""
        if not values:
            return
        ordered = sorted(values)
        below = 0
        for bucket, bound in enumerate(self._bounds):
            if below == len(ordered):
                break
            upto = bisect_right(ordered, bound, below)
            self.counts[bucket] += upto - below
            below = upto
        self.counts[-1] += len(ordered) - below
        self.total += sum(ordered) if ordered[0] >= 0 else sum(value for value in ordered if value > 0)


class NameLog:
    """Lines that every process with the descriptor may append and read."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._read = 0
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)

    def append(self, line: bytes) -> None:
        """Append a line, unless there are too many."""
        if os.fstat(self._fd).st_size < MAX_NAMES_BYTES:
            os.write(self._fd, line + b"\n")

    def new_lines(self) -> list[bytes]:
        """The complete lines that have come since the last call."""
        data = os.pread(self._fd, MAX_NAMES_BYTES, self._read)
        complete = data[: data.rfind(b"\n") + 1]
        self._read += len(complete)
        return complete.splitlines()


class SeriesRegistry:
    """See the module. `memory` has LAYOUT."""

    def __init__(self, memory: SharedMemory, names: NameLog) -> None:
        self._memory = memory
        self._names = names
        self._made: set[Series] = set()
        self._made_of: Counter[Family] = Counter()
        self._known: set[Series] = set()
        self._sorted: dict[Family, list[Series]] = {family: [] for family in FAMILIES}
        self._columns: dict[Series, Sequence[int]] = {}
        self._shown: dict[Series, Sequence[int | None]] = {}
        self._lost = 0
        self._read_names()  # those of the workers before this one, while it does not serve yet

    def adder(self) -> Adder | None:
        """What adds to this worker's own numbers; None while there are none."""
        numbers = self._memory.counters.own()
        if numbers is not None and not self._lost:
            # The first columns of all: 0 is the number of no series.
            self._memory.counters.column(key_of(""))
            self._lost = self._memory.counters.column(key_of(LOST_SERIES.name)) or 0
            self._name(LOST_SERIES, ())
        return None if numbers is None else Adder(self, numbers)

    def add_to(self, series: Series) -> Sequence[int]:
        """The columns of `series` for this worker, or of the one that stands for it if there are too many."""
        columns = self._columns.get(series)
        if columns is None:
            named = self._name(series.family, series.values)
            columns = self._columns.get(named)
            if columns is None:
                found = self.columns(named)
                columns = [self._lost if column is None else column for column in found]
            self._columns[named] = columns
            if len(self._columns) < 2 * MAX_SERIES:
                self._columns[series] = columns
        return columns

    def gauge(self, family: Family, number: int, *values: str) -> None:
        """Set this worker's number of a gauge."""
        named = self._name(family, values)
        column = self._memory.gauges.column(key_of(family.name, *named.values))
        numbers = self._memory.gauges.own()
        if column is not None and numbers is not None:
            numbers[column] = number

    def series_of(self, family: Family) -> Sequence[Series]:
        """The series of a family in all workers, in the order of their values."""
        self._read_names()
        return tuple(self._sorted[family])

    def _read_names(self) -> None:
        for line in self._names.new_lines():
            name, *values = codec.loads_tolerant(line)
            if name in _BY_NAME:
                series = Series(_BY_NAME[name], tuple(values))
                if series not in self._known:
                    self._known.add(series)
                    insort(self._sorted[series.family], series, key=_values)

    def totals(self) -> Iterator[list[int]]:
        """The sums of all counters by column, in parts."""
        return self._memory.counters.parts()

    def value(self, family: Family, *values: str) -> int:
        """The value of a gauge."""
        column = self._memory.gauges.column(key_of(family.name, *values))
        return 0 if column is None else self._memory.gauges.total(column)

    def numbers(self, series: Series, totals: Sequence[int]) -> list[int]:
        """A counter, or a histogram's buckets and its sum, by what `totals` has yielded."""
        columns = self._shown.get(series)
        if columns is None:
            columns = self.columns(series)
            if None not in columns:
                self._shown[series] = columns
        return [0 if column is None or column >= len(totals) else totals[column] for column in columns]

    def columns(self, series: Series) -> Sequence[int | None]:
        """The columns of a counter, or of a histogram's buckets and its sum."""
        family = series.family
        name = family.name, *series.values
        names = [(*name, part) for part in _parts(family)] if family.bounds else [name]
        return self._memory.counters.columns([key_of(*parts) for parts in names])

    def _name(self, family: Family, values: tuple[str, ...]) -> Series:
        """The series, or the one whose values are all `other` if there is no room for it."""
        series = Series(family, values)
        is_full = len(self._made) >= MAX_SERIES or self._made_of[family] >= family.max_series
        if series not in self._made and is_full and values:
            series = Series(family, (OTHER,) * len(values))
        if series not in self._made:
            self._made.add(series)
            self._made_of[family] += 1
            self._read_names()
            if series not in self._known:  # else another worker, or the one before this, has written it
                self._names.append(codec.dumps([family.name, *series.values]))
        return series


class Adder:
    """Adds to one worker's numbers."""

    __slots__ = ("_numbers", "_registry")

    def __init__(self, registry: SeriesRegistry, numbers: memoryview[int]) -> None:
        self._registry = registry
        self._numbers = numbers

    def count(self, family: Family, number: int, *values: str) -> None:
        """Add to a counter, which begins with the first number that is not 0."""
        if number:
            self._numbers[self._registry.add_to(Series(family, values))[0]] += number

    def histogram(self, family: Family, counted: LocalHistogram, *values: str) -> None:
        """Add to a histogram."""
        if any(counted.counts):
            columns = self._registry.add_to(Series(family, values))
            for column, number in zip(columns, counted.counts, strict=False):
                self._numbers[column] += number
            self._numbers[columns[-1]] += int(counted.total * family.scale)


def _parts(family: Family) -> list[str]:
    """What the columns of a histogram are called: its buckets by number, and the sum."""
    return [*map(str, range(len(family.bounds) + 1)), "sum"]
