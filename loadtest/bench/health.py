"""Whether the machine was quiet enough for a verdict on times. Pure.

Other work on the machine shows in two places: the upstream and the load client alone reach far less than
they did for the baseline, and the runs of one load differ. A slow machine looks like a busy one in the first
respect; its ratios are not those of the baseline's machine either, so no verdict is due in both cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

from loadtest.bench.rows import number

LEAST_CEILING = 0.6  # of the baseline's
MOST_SPREAD = 0.2
RATES: Mapping[str, str] = {"requests_per_s": "requests/s", "frames_per_s": "frames/s"}
Samples = Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]]


def low_ceilings(ceiling: Mapping[str, float], baseline: Mapping[str, Any]) -> list[str]:
    """A line for each ceiling that is far below the one of `baseline`."""
    lines = []
    for metric, value in ceiling.items():
        reference = baseline.get("ceiling", {}).get(metric)
        if reference and value < LEAST_CEILING * reference:
            cpu = baseline.get("machine", {}).get("cpu", "unknown CPU")
            lines.append(
                f"- upstream and load client alone: {number(value)} {RATES[metric]}; the baseline has"
                f" {number(reference)} ({cpu}), and at least {100 * LEAST_CEILING:.0f} % of that is needed"
            )
    return lines


def spread(values: Sequence[float]) -> float:
    """The range of the values over their middle; 0 for a single one."""
    ordered = sorted(values)
    middle = ordered[len(ordered) // 2] if ordered else 0.0
    return (ordered[-1] - ordered[0]) / middle if middle else 0.0


def wide_spreads(samples: Samples, ignored: Set[str]) -> list[str]:
    """A line for each load and gateway, `ignored` ones apart, whose runs differ too much in their rate."""
    lines = []
    for case, gateways in samples.items():
        for name, runs in gateways.items():
            for metric, unit in RATES.items():
                rates = [run[metric] for run in runs if metric in run]
                if name not in ignored and spread(rates) > MOST_SPREAD:
                    lines.append(
                        f"- {case}, {name}: {number(min(rates))} to {number(max(rates))} {unit}, a spread of"
                        f" {100 * spread(rates):.0f} %; at most {100 * MOST_SPREAD:.0f} % is allowed"
                    )
    return lines
