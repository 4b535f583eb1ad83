"""The metrics as text: Prometheus' format 0.0.4, or OpenMetrics 1.0 for those who ask for it.

Both are made of the same lines. OpenMetrics names a counter's family without `_total` and ends with `# EOF`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import add

from sanic_proxy.metrics.families import Alias, Family
from sanic_proxy.metrics.series import Series, SeriesRegistry

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
# How many series are written before the event loop has its turn: about a millisecond.
SLICE = 20

_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


async def exposition(registry: SeriesRegistry, aliases: Sequence[Alias], *, is_openmetrics: bool) -> bytes:
    """All metrics of all workers. Lets the event loop run in between."""
    totals = registry.totals()
    lines: list[str] = []
    written = 0
    for family, members in groupby(registry.all_series(), key=lambda series: series.family):
        found: list[tuple[Series, list[int]]] = []
        for series in members:
            found.append((series, _numbers(registry, series, totals)))
            written += 1
            if written % SLICE == 0:
                await asyncio.sleep(0)
        lines.extend(_head(family.name, family, is_openmetrics=is_openmetrics))
        for start in range(0, len(found), SLICE):
            for series, numbers in found[start : start + SLICE]:
                lines.extend(_lines(family.name, family, _text(_values(series)), numbers))
            await asyncio.sleep(0)
        for alias in aliases:
            if alias.family is family:
                lines.extend(_head(alias.name, family, is_openmetrics=is_openmetrics))
                lines.extend(_aliased(alias, found))
                await asyncio.sleep(0)
    if is_openmetrics:
        lines.append("# EOF")
    return ("\n".join(lines) + "\n").encode()


def _numbers(registry: SeriesRegistry, series: Series, totals: Sequence[int]) -> list[int]:
    if series.family.kind == "gauge":
        return [registry.value(series)]
    columns = registry.columns(series)
    return [0 if column is None or column >= len(totals) else totals[column] for column in columns]


def _head(name: str, family: Family, *, is_openmetrics: bool) -> Iterator[str]:
    shown = f"{name}_total" if family.kind == "counter" and not is_openmetrics else name
    yield f"# HELP {shown} {family.help}"
    yield f"# TYPE {shown} {family.kind}"


def _lines(name: str, family: Family, labels: str, numbers: Sequence[int]) -> Iterator[str]:
    if family.kind != "histogram":
        suffix = "_total" if family.kind == "counter" else ""
        yield f"{name}{suffix}{_braces(labels)} {_number(numbers[0], family.scale)}"
        return
    count = 0
    for bound, number in zip((*map(repr, family.bounds), "+Inf"), numbers, strict=False):
        count += number
        le = f'le="{bound}"'
        yield f"{name}_bucket{_braces(f'{labels},{le}' if labels else le)} {count}"
    yield f"{name}_count{_braces(labels)} {count}"
    yield f"{name}_sum{_braces(labels)} {_number(numbers[-1], family.scale)}"


def _aliased(alias: Alias, found: Sequence[tuple[Series, list[int]]]) -> Iterator[str]:
    """The lines of an alias. Series that differ only in labels that it has not are added up."""
    sums: dict[str, list[int]] = {}
    for series, numbers in found:
        values = _values(series)
        if any(values[name] not in wanted for name, wanted in alias.among.items()):
            continue
        if any(values[name] in unwanted for name, unwanted in alias.unlike.items()):
            continue
        provider, _, model = values.get("target", "").partition("/")
        values |= {"provider": provider.partition("#")[0], "target_model": model}
        labels = _text({name: _resolved(source, values) for name, source in alias.labels.items()})
        before = sums.get(labels)
        sums[labels] = numbers if before is None else list(map(add, before, numbers))
    for labels, numbers in sums.items():
        yield from _lines(alias.name, alias.family, labels, numbers)


def _values(series: Series) -> dict[str, str]:
    return dict(zip(series.family.labels, series.values, strict=True))


def _resolved(source: str, values: Mapping[str, str]) -> str:
    return source[1:] if source.startswith("=") else values.get(source, "")


def _text(values: Mapping[str, str]) -> str:
    return ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in values.items())


def _braces(labels: str) -> str:
    return f"{{{labels}}}" if labels else ""


def _number(value: int, scale: int) -> str:
    return str(value) if scale == 1 else repr(value / scale)
