"""A picture of a soak. The only part that knows matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

from loadtest.soak.trends import BOUNDS, Sample, warm

mpl.use("Agg")

from matplotlib import pyplot  # it looks for a display when it is imported


def draw(samples: Sequence[Sample], path: Path, title: str) -> None:
    """One small picture per figure, the warm-up in grey."""
    figure, axes = pyplot.subplots(3, 2, figsize=(12, 9), sharex=True)
    settled_s = warm(samples)[0].at_s
    for bound, axis in zip(BOUNDS, axes.flat, strict=True):
        values = [getattr(sample, bound.field) for sample in samples]
        axis.plot([sample.at_s / 60 for sample in samples], values, linewidth=0.8)
        axis.axvspan(0, settled_s / 60, color="0.9")
        axis.set_title(f"{bound.field} {bound.unit}", fontsize=10)
        axis.set_ylim(0, 1.15 * max([*values, 1]))
        axis.grid(visible=True, linewidth=0.3)
    for axis in axes[-1]:
        axis.set_xlabel("minutes")
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
