"""Counted instructions as ratios, as a table, and compared with the committed reference. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loadtest.bench.report import table

Figures = Mapping[str, Mapping[str, float]]  # by gateway and kind
REFERENCE = "constant"  # the stock Sanic app that answers a constant
JUDGED = "proxy"
ROUTED = "proxy-routed"  # with everything that decides about a request's target
GOVERNED = "proxy-governed"  # with a key, rates, budgets and the ledger
METERED = "proxy-metrics"  # with metrics
TOLERANCE = 0.03
# What is counted of a chat, and of the stock Sanic app.
TITLES: Mapping[str, str] = {
    "whole": "whole answer",
    "back_to_back": "back-to-back frame",
    "paced": "paced frame",
}
# The same of other dialects, as kinds such as `messages/paced`.
DIALECT_TITLES: Mapping[str, str] = {
    "messages": "of Messages",
    "messages-from-chat": "of Messages, translated from a chat",
    "responses": "of Responses",
    "responses-from-chat": "of Responses, translated from a chat",
    "gemini": "of Gemini",
    "gemini-from-chat": "of Gemini, translated from a chat",
}


def title(kind: str) -> str:
    """What a kind counts, in words."""
    dialect, _, unit = kind.rpartition("/")
    return f"{TITLES[unit]} {DIALECT_TITLES[dialect]}" if dialect else TITLES[unit]


def reference_kind(kind: str) -> str:
    """The kind of the stock Sanic app that `kind` is compared with."""
    return kind.rpartition("/")[2]


def ratios(counts: Figures) -> dict[str, dict[str, float]]:
    """Each count over that of the stock Sanic app in the same run."""
    reference = counts[REFERENCE]
    return {
        name: {kind: count / reference[reference_kind(kind)] for kind, count in each.items()}
        for name, each in counts.items()
        if name != REFERENCE
    }


def extra_ratio(counts: Figures, name: str) -> float | None:
    """What a whole answer costs in another set-up of the proxy, over the plain one; None if not counted."""
    other = counts.get(name, {}).get("whole")
    return None if other is None else other / counts[JUDGED]["whole"]


def extra(counts: Figures, name: str) -> dict[str, float]:
    """The instructions by kind that another set-up of the proxy takes more than the plain one."""
    plain = counts[JUDGED]
    return {kind: count - plain[kind] for kind, count in counts.get(name, {}).items() if kind in plain}


def excesses(measured: Figures, committed: Figures) -> list[str]:
    """A line for each ratio of the proxy, plain or routed, that exceeds the committed one by more than the
    tolerance.

    A kind that was not counted exceeds nothing.
    """
    lines = []
    limits = [(name, *each) for name in (JUDGED, ROUTED) for each in committed.get(name, {}).items()]
    for name, kind, limit in limits:
        ratio = measured.get(name, {}).get(kind, 0.0)
        if ratio > limit * (1 + TOLERANCE):
            what = title(kind) if name == JUDGED else f"{title(kind)} ({name})"
            lines.append(
                f"{what}: {ratio:.3f} x the stock Sanic app, the baseline is {limit:.3f}:"
                f" {100 * (ratio / limit - 1):.1f} % more, {100 * TOLERANCE:.0f} % are allowed"
            )
    return lines


def savings(measured: Figures, committed: Figures) -> list[str]:
    """The titles of the kinds whose ratio fell below the committed one by more than the tolerance."""
    limits = committed.get(JUDGED, {})
    return [
        title(kind)
        for kind, ratio in measured[JUDGED].items()
        if kind in limits and ratio < limits[kind] * (1 - TOLERANCE)
    ]


def count_table(counts: Figures, committed: Figures) -> str:
    """A line for each gateway and kind: instructions, ratio to the stock Sanic app, the committed ratio."""
    measured = ratios(counts)
    lines = [
        [
            name,
            title(kind),
            f"{count:,.0f}",
            _ratio(measured, name, kind),
            _ratio(committed, name, kind),
        ]
        for name, each in counts.items()
        for kind, count in each.items()
    ]
    return table(["gateway", "per", "instructions", "x stock Sanic", "baseline"], lines, left=2)


def _ratio(figures: Figures, name: str, kind: str) -> str:
    value = figures.get(name, {}).get(kind)
    return "-" if value is None else f"{value:.3f}"


def section(counts: Figures, about: Mapping[str, Any]) -> dict[str, Any]:
    """What is written to files: the machine, whole instructions, and ratios to four places."""
    return {
        **about,
        "counts": {name: {kind: round(n) for kind, n in each.items()} for name, each in counts.items()},
        "ratios": {
            name: {kind: round(ratio, 4) for kind, ratio in each.items()}
            for name, each in ratios(counts).items()
        },
    }
