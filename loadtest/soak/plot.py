"""A picture of a soak. The only part that knows matplotlib."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

from loadtest.soak.trends import BOUNDS, Sample, Trend, trend, warm

mpl.use("Agg")

from matplotlib import pyplot  # it looks for a display when it is imported

TITLE_COLUMNS = 110


def draw(samples: Sequence[Sample], path: Path, title: str) -> None:
    """One small picture per figure: its samples, its trend behind the warm-up, and what does not count."""
    figure, axes = pyplot.subplots(3, 2, figsize=(13, 10), sharex=True, layout="constrained")
    settled = warm(samples)
    for bound, axis in zip(BOUNDS, axes.flat, strict=True):
        values = [getattr(sample, bound.field) for sample in samples]
        axis.plot([sample.at_s / 60 for sample in samples], values, linewidth=0.8, label="samples")
        axis.axvspan(0, settled[0].at_s / 60, color="0.9", label="warm-up (does not count)")
        _draw_trend(axis, trend(settled, bound), settled)
        if bound.is_time:
            _shade_starved(axis, samples)
        axis.set_title(bound.title, fontsize=10)
        axis.set_ylabel(bound.unit)
        axis.set_ylim(min([*values, 0]), 1.4 * max([*values, 1]))
        axis.grid(visible=True, linewidth=0.3)
        axis.legend(fontsize=7, loc="upper right", ncols=2)
    for axis in axes[-1]:
        axis.set_xlabel("minutes")
    figure.suptitle(textwrap.fill(title, TITLE_COLUMNS))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _draw_trend(axis: pyplot.Axes, line: Trend, settled: Sequence[Sample]) -> None:
    minutes = [settled[0].at_s / 60, settled[-1].at_s / 60]
    unit = line.bound.unit
    label = f"trend: {line.per_minute:+.2f} {unit}/min (limit {line.bound.per_minute:g})"
    color = "tab:green" if line.is_flat else "tab:red"
    axis.plot(minutes, list(map(line.at, minutes)), linewidth=1.5, color=color, label=label)


def _shade_starved(axis: pyplot.Axes, samples: Sequence[Sample]) -> None:
    label = "soak starved (does not count)"
    for sample in samples:
        if sample.is_starved:
            axis.axvspan((sample.at_s - 1) / 60, sample.at_s / 60, color="tab:orange", alpha=0.3, label=label)
            label = "_"  # once in the legend
