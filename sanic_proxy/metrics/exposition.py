"""The metrics as text: Prometheus' format 0.0.4, or OpenMetrics 1.0 for those who ask for it.

Both are made of the same lines. OpenMetrics names a counter's family without `_total` and ends with `# EOF`.

A scrape may have thousands of series, so the text is made in steps of some microseconds, a series each;
`in_turns` gives the event loop its turn between them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import add
from typing import TypeVar

from sanic_proxy.metrics import families as f
from sanic_proxy.metrics.families import FAMILIES, Alias, Family
from sanic_proxy.metrics.series import SeriesRegistry

T = TypeVar("T")

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
# How long the event loop is held at a time.
TURN_S = 0.001

_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_MERGE: Mapping[str, Callable[[int, int], int]] = {"sum": add, "min": min, "max": max}

# Gauges that are no worker's own: the values of their labels, and the number.
Computed = Mapping[Family, Iterable[tuple[tuple[str, ...], int]]]


async def in_turns(steps: Iterator[T]) -> list[T]:
    """What `steps` yields. Lets the event loop run in between, `TURN_S` after it has had its last turn."""
    found: list[T] = []
    until = time.monotonic() + TURN_S
    for step in steps:
        found.append(step)
        if time.monotonic() >= until:
            await asyncio.sleep(0)
            until = time.monotonic() + TURN_S
    return found


async def exposition(
    registry: SeriesRegistry, aliases: Sequence[Alias], computed: Computed, *, is_openmetrics: bool
) -> bytes:
    """All metrics of all workers."""
    totals: list[int] = []
    for part in await in_turns(registry.totals()):
        totals += part
    known = {f.CIRCUIT_STATE: _circuits(registry), **computed}
    text = await in_turns(_text(registry, totals, aliases, known, is_openmetrics=is_openmetrics))
    return "".join(text).encode()


def _text(
    registry: SeriesRegistry,
    totals: Sequence[int],
    aliases: Sequence[Alias],
    computed: Computed,
    *,
    is_openmetrics: bool,
) -> Iterator[str]:
    for family in FAMILIES:
        found: list[tuple[Mapping[str, str], list[int]]] = []
        for values, numbers in _members(registry, family, totals, computed):
            if not found:
                yield _head(family.name, family, is_openmetrics=is_openmetrics)
            labels = dict(zip(family.labels, values, strict=True))
            found.append((labels, numbers))
            yield _lines(family.name, family, _labels(labels), numbers)
        if found:
            for alias in aliases:
                if alias.family is family:
                    yield _head(alias.name, family, is_openmetrics=is_openmetrics)
                    yield from _aliased(alias, found)
    if is_openmetrics:
        yield "# EOF\n"


def _members(
    registry: SeriesRegistry, family: Family, totals: Sequence[int], computed: Computed
) -> Iterator[tuple[tuple[str, ...], list[int]]]:
    """The series of a family: the values of their labels, and their numbers."""
    for values, number in computed.get(family, ()):
        yield values, [number]
    for series in registry.series_of(family):
        is_gauge = family.kind == "gauge"
        yield (
            series.values,
            [registry.value(family, *series.values)] if is_gauge else registry.numbers(series, totals),
        )


def _circuits(registry: SeriesRegistry) -> Iterator[tuple[tuple[str, ...], int]]:
    """The state of the circuit of each target that has been asked."""
    workers = registry.value(f.WORKERS)
    targets = {series.values[0] for series in registry.series_of(f.ATTEMPTS)}
    targets.update(series.values[0] for series in registry.series_of(f.OPEN_CIRCUITS))
    for target in sorted(targets):
        count = registry.value(f.OPEN_CIRCUITS, target)
        yield (target,), 0 if not count else 1 if count < workers else 2


def _head(name: str, family: Family, *, is_openmetrics: bool) -> str:
    shown = f"{name}_total" if family.kind == "counter" and not is_openmetrics else name
    return f"# HELP {shown} {family.help}\n# TYPE {shown} {family.kind}\n"


def _lines(name: str, family: Family, labels: str, numbers: Sequence[int]) -> str:
    if family.kind != "histogram":
        suffix = "_total" if family.kind == "counter" else ""
        return f"{name}{suffix}{_braces(labels)} {_number(numbers[0], family.scale)}\n"
    lines, count = [], 0
    before = f"{labels}," if labels else ""
    for bound, number in zip((*map(repr, family.bounds), "+Inf"), numbers, strict=False):
        count += number
        lines.append(f'{name}_bucket{{{before}le="{bound}"}} {count}\n')
    lines.append(f"{name}_count{_braces(labels)} {count}\n")
    lines.append(f"{name}_sum{_braces(labels)} {_number(numbers[-1], family.scale)}\n")
    return "".join(lines)


def _aliased(alias: Alias, found: Iterable[tuple[Mapping[str, str], list[int]]]) -> Iterator[str]:
    """The lines of an alias. Series that differ only in labels that it has not are put together."""
    merge = _MERGE[alias.merge]
    merged: dict[str, list[int]] = {}
    for values, numbers in found:
        yield ""  # a step
        if any(values[name] not in wanted for name, wanted in alias.among.items()):
            continue
        if any(values[name] in unwanted for name, unwanted in alias.unlike.items()):
            continue
        provider, _, model = values.get("target", "").partition("/")
        more = {"provider": provider.partition("#")[0], "target_model": model}
        labels = _labels({name: _resolved(source, values, more) for name, source in alias.labels.items()})
        before = merged.get(labels)
        merged[labels] = numbers if before is None else list(map(merge, before, numbers))
    for labels, numbers in merged.items():
        yield _lines(alias.name, alias.family, labels, numbers)


def _resolved(source: str, values: Mapping[str, str], more: Mapping[str, str]) -> str:
    if source.startswith("="):
        return source[1:]
    return more.get(source) or values.get(source, "")


def _labels(values: Mapping[str, str]) -> str:
    return ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in values.items())


def _braces(labels: str) -> str:
    return f"{{{labels}}}" if labels else ""


def _number(value: int, scale: int) -> str:
    return str(value) if scale == 1 else repr(value / scale)
