"""How often the truth lies where the stated uncertainty says that it does.

Owns the intervals and the counts. A standard deviation of standardised errors of 1 can hide many
errors that are too small and a few that are far too large; the shares within intervals cannot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STATED_PERCENT = (50, 68, 95)
"""Of the pixels that an interval is to hold."""
REACH = np.array([NormalDist().inv_cdf(0.5 + percent / 200) for percent in STATED_PERCENT])
"""Half widths of the intervals in standard deviations: errors are stated as normal ones."""


@dataclass(eq=False)
class Coverage:
    """Counts over frames of the pixels whose error lies within each interval."""

    within: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(REACH), np.int64))
    pixels: int = 0

    def add(self, error: NDArray[np.float64], variance: NDArray[np.float64]) -> None:
        """Take a frame: error and variance stated (and of the truth itself), (Y, X) each.

        Pixels of which nothing is stated (variance 0) are left out.
        """
        stated = variance > 0
        z = np.abs(error[stated]) / np.sqrt(variance[stated])
        self.within += [int((z <= reach).sum()) for reach in REACH]
        self.pixels += z.size

    def result(self) -> dict[str, float] | None:
        """Return the share found, 0 to 1, by the percent stated; None where none is."""
        if not self.pixels:
            return None
        shares = (self.within / self.pixels).tolist()
        return {str(stated): share for stated, share in zip(STATED_PERCENT, shares, strict=True)}


def in_words(coverage: Mapping[str, float]) -> str:
    """Return a coverage as a line of text."""
    found = ", ".join(f"{100 * share:.0f} %" for share in coverage.values())
    return f"of the pixels {found} lie within what is stated for {', '.join(coverage)} %"


def draw_coverage(found: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draw the share found over the share stated, a line for each name."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.plot((0, 100), (0, 100), color="#7a8699", linewidth=1, linestyle="--", label="honest")
    for name, coverage in found.items():
        stated = [float(percent) for percent in coverage]
        shares = [100 * share for share in coverage.values()]
        axes.plot(stated, shares, marker="o", markersize=4, linewidth=1.2, label=name)
    axes.set(
        xlim=(0, 100), ylim=(0, 100), xlabel="share stated, %", ylabel="share found, %", aspect=1
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, loc="outside right upper", fontsize=8)
    return figure
