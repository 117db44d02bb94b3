"""The plot of the certification example: accuracy against the radius, one labelled line each."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

COLOURS = ("#444444", "#d1495b", "#edae49", "#00798c")  # the attack, then the methods
GREY = "#8a8a8a"
GAP = 4.5  # the smallest distance between two labels, in per cent of accuracy


def plot_accuracy(
    path: Path,
    title: str,
    eps: Sequence[float],
    clean: float,
    curves: dict[str, Sequence[float]],
) -> None:
    """Draws one line per curve, with its name at the right end, and saves the figure.

    Args:
      path: where to save; the suffix chooses the format.
      title: one line above the axes.
      eps: the radii, ascending.
      clean: the accuracy at radius 0, a fraction.
      curves: name to accuracy at every radius, a fraction; the attack first, as upper limit.
    """
    radius = np.concatenate([[0.0], eps])
    figure, axes = plt.subplots(figsize=(8, 4.8), layout="constrained")
    axes.axhline(100 * clean, color=GREY, linestyle=(0, (4, 3)), linewidth=1.3)
    ends = [(100 * clean, f"clean {100 * clean:.0f}%", GREY)]
    heights = {}
    for (name, accuracy), colour in zip(curves.items(), COLOURS, strict=True):
        heights[name] = 100 * np.concatenate([[clean], accuracy])
        axes.plot(radius, heights[name], color=colour, ms=4, marker="o", linewidth=2, clip_on=False)
        ends.append((heights[name][-1], name, colour))
    upper, *_, lower = heights.values()
    axes.fill_between(radius, lower, upper, color=GREY, alpha=0.13, linewidth=0)
    gap = upper - lower
    if gap.max() > 3 * GAP:
        centre = np.average(radius, weights=gap)
        middle = np.interp(centre, radius, (upper + lower) / 2)
        axes.text(centre, middle, "undecided", color=GREY, ha="center", va="center")
    for height, (_, name, colour) in zip(_spread([end[0] for end in ends]), ends, strict=True):
        axes.annotate(
            name,
            (1.015, height),
            xycoords=("axes fraction", "data"),
            color=colour,
            fontweight="bold",
            va="center",
            annotation_clip=False,
        )
    axes.set(xlabel="radius eps of the perturbation of each pixel", ylabel="test images (%)")
    axes.set(xlim=(0, radius[-1]), ylim=(-2, 102))
    axes.set_title(title, loc="left")
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _spread(heights: Sequence[float]) -> np.ndarray:
    """Heights for the labels: as given, moved up where two would come closer than the gap."""
    spread = np.array(heights, dtype=float)
    floor = -np.inf
    for i in np.argsort(spread, kind="stable"):
        spread[i] = floor = max(spread[i], floor)
        floor += GAP
    return spread
