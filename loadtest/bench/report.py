"""Figures as tables and as JSON. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from loadtest.bench.rows import Check, number

Samples = Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]]
Medians = dict[str, dict[str, dict[str, float]]]
# Faults are not averaged away.
WORST = frozenset({"errors", "lost"})
# Counts that depend on the length of the run only, and extremes, which differ between runs.
PASSING = frozenset(
    {
        "comments",
        "cpu_s",
        "frames",
        "held",
        "max_ms",
        "repeated",
        "requests",
        "seconds",
        "streams",
        "total_max_ms",
    }
)
# The table of gateways: heading, case, metric.
COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("req/s", "whole", "requests_per_s"),
    ("CPU s/1k answers", "whole", "cpu_s_per_1000"),
    ("1 conn. p50 ms", "single", "p50_ms"),
    ("p99 ms", "single", "p99_ms"),
    ("frames/s", "back_to_back", "frames_per_s"),
    ("CPU s/1k frames", "back_to_back", "cpu_s_per_1000"),
    ("CPU s/1k at 20 ms", "paced", "cpu_s_per_1000"),
)


def medians(samples: Samples) -> Medians:
    """The median of each metric over the runs; of faults, the most."""
    return {
        case: {gateway: _median(runs) for gateway, runs in gateways.items() if runs}
        for case, gateways in samples.items()
    }


def _median(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {
        metric: (max if metric in WORST else statistics.median)([run[metric] for run in runs])
        for metric in runs[0]
    }


def table(heading: Sequence[str], lines: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """A Markdown table with aligned columns; the first `left` are flush left, the others right."""
    widths = [max(len(line[i]) for line in (heading, *lines)) for i in range(len(heading))]

    def joined(cells: Sequence[str]) -> str:
        aligned = (
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join(aligned)} |"

    rule = "|".join(f"{'-' * (width + 1)}{'-' if i < left else ':'}" for i, width in enumerate(widths))
    return "\n".join((joined(heading), f"|{rule}|", *map(joined, lines)))


def gateway_table(samples: Samples) -> str:
    """A line for each gateway: medians, and for the first column the spread of the runs."""
    middle = medians(samples)
    cases = list(dict.fromkeys(case for _, case, _ in COLUMNS))
    names = list(dict.fromkeys(name for case in cases for name in middle.get(case, {})))
    lines = []
    for name in names:
        cells = [_cell(middle, case, name, metric) for _, case, metric in COLUMNS]
        spread = _spread([run["requests_per_s"] for run in samples.get("whole", {}).get(name, ())])
        rss = max(middle.get(case, {}).get(name, {}).get("rss_mib", 0) for case in cases)
        lines.append([name, cells[0], spread, *cells[1:], f"{rss:.0f}" if rss else "-"])
    heading = ["gateway", COLUMNS[0][0], "spread", *(title for title, _, _ in COLUMNS[1:]), "RSS MiB"]
    return table(heading, lines)


def _cell(middle: Medians, case: str, name: str, metric: str) -> str:
    value = middle.get(case, {}).get(name, {}).get(metric)
    return "-" if value is None else number(value)


def _spread(values: Sequence[float]) -> str:
    return f"{number(min(values))}-{number(max(values))}" if len(values) > 1 else "-"


def check_table(checks: Sequence[Check]) -> str:
    """A line for each check of the rows."""
    lines = [
        [
            str(check.row),
            check.what,
            check.target,
            check.measured.splitlines()[0],
            "-" if check.ratio is None else f"{check.ratio:.2f}",
            {True: "met", False: "NOT MET", None: "-"}[check.is_met],
        ]
        for check in checks
    ]
    return table(["row", "what", "target", "measured", "ratio", ""], lines, left=4)


def results(samples: Samples, checks: Sequence[Check], about: Mapping[str, Any]) -> dict[str, Any]:
    """Everything: each run, the medians, the verdict, and `about` the machine."""
    return {**about, "runs": samples, "medians": medians(samples), "rows": _verdict(checks)}


def baseline(samples: Samples, checks: Sequence[Check], about: Mapping[str, Any]) -> dict[str, Any]:
    """What is worth keeping beside the code: medians, ratios and the machine, rounded."""
    kept = {
        case: {
            name: {metric: rounded(value) for metric, value in each.items() if metric not in PASSING}
            for name, each in gateways.items()
        }
        for case, gateways in medians(samples).items()
    }
    return {**about, "medians": kept, "rows": _verdict(checks)}


def _verdict(checks: Sequence[Check]) -> list[dict[str, Any]]:
    return [
        {
            "row": check.row,
            "what": check.what,
            "target": check.target,
            "measured": check.measured.splitlines()[0],
            "ratio": None if check.ratio is None else rounded(check.ratio),
            "is_met": check.is_met,
        }
        for check in checks
    ]


def rounded(value: float) -> float:
    """Three significant digits; more would be noise."""
    return float(f"{value:.3g}")
