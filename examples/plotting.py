"""The plots of the examples: accuracy over the radius, and errors over epochs and radii."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator, NullLocator

COLOURS = ("#444444", "#d1495b", "#edae49", "#00798c")  # the attack, then the methods
GREY = "#8a8a8a"
CLEAN, ATTACKED, PROVED, TIGHTER = GREY, COLOURS[1], COLOURS[3], COLOURS[2]
GAP = 0.05  # the smallest distance between two labels, as a part of the height


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
    if gap.max() > 14:
        centre = np.average(radius, weights=gap)
        middle = np.interp(centre, radius, (upper + lower) / 2)
        axes.text(centre, middle, "undecided", color=GREY, ha="center", va="center")
    axes.set(xlabel="radius eps of the perturbation of each pixel", ylabel="test images (%)")
    axes.set(xlim=(0, radius[-1]), ylim=(-2, 102))
    _label_ends(axes, ends)
    axes.set_title(title, loc="left")
    _tidy(axes)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def plot_training(
    path: Path,
    title: str,
    rows: Sequence[Mapping[str, float]],
    radii: np.ndarray,
    errors: Mapping[str, np.ndarray],
    eps: float,
) -> None:
    """Draws the errors over the epochs, and those at the end over the radius, side by side.

    Args:
      path: where to save; the suffix chooses the format.
      title: one line above both.
      rows: one an epoch: its number, `eps` of training, and clean, PGD and verified error.
      radii: ascending, from 0.
      errors: shares of images at every radius, by name: under attack (PGD), by CROWN-IBP, by IBP.
      eps: the radius that was to be certified, at which the rows' errors are.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    figure.suptitle(title, x=0.005, ha="left")
    epochs = [row["epoch"] for row in rows]
    kinds = (("clean_error", "clean", CLEAN), ("pgd_error", "PGD", ATTACKED))
    lines = {
        name: (np.array([100 * row[key] for row in rows]), colour)
        for key, name, colour in (*kinds, ("verified_error", "verified", PROVED))
    }
    marker = "o" if len(rows) < 3 else None
    ramp = [row["eps"] for row in rows]
    if ramp[-1] > ramp[0]:
        last = epochs[int(np.argmax(np.array(ramp) >= 0.999 * max(ramp)))]
        left.axvspan(epochs[0], last, color=GREY, alpha=0.1, linewidth=0)
        left.annotate(
            "eps rises",
            ((epochs[0] + last) / 2, 0.03),
            xycoords=("data", "axes fraction"),
            color=GREY,
            ha="center",
        )
    left.set_yscale("log")
    left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    left.yaxis.set_major_formatter("{x:g}")
    left.yaxis.set_minor_locator(NullLocator())
    lowest = min(y[y > 0].min(initial=50) for y, _ in lines.values())
    left.set(xlabel="epoch", xlim=(epochs[0], max(epochs[-1], epochs[0] + 1)))
    left.set(ylim=(0.7 * lowest, 110))
    lines = {name: (np.maximum(y, 0.7 * lowest), colour) for name, (y, colour) in lines.items()}
    _draw(left, epochs, lines, marker, "{name} {last:.3g}%")
    left.set_title(f"while training, at eps {eps:.3g}", loc="left", fontsize="medium")
    colours = {"PGD": ATTACKED, "CROWN-IBP": TIGHTER, "IBP": PROVED}
    right.set(ylim=(0, min(102, 110 * max(x.max() for x in errors.values()) + 1)))
    _draw(right, radii, {n: (100 * x, colours[n]) for n, x in errors.items()}, "o", "{name}")
    right.axvline(eps, color=GREY, linestyle=(0, (4, 3)), linewidth=1.3)
    right.annotate(
        f" eps {eps:.3g}", (eps, 0.97), xycoords=("data", "axes fraction"), color=GREY, va="top"
    )
    right.set(xlabel="radius eps of the perturbation of each pixel", xlim=(0, radii[-1]))
    right.set_title("after the last epoch", loc="left", fontsize="medium")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _draw(
    axes: plt.Axes,
    x: Sequence[float],
    lines: Mapping[str, tuple[np.ndarray, str]],
    marker: str | None,
    label: str,
) -> None:
    """Errors in per cent, each with its name, and what else the label says, at the right end."""
    for y, colour in lines.values():
        axes.plot(x, y, color=colour, ms=4, marker=marker, linewidth=2, clip_on=False)
    ends = [(y[-1], label.format(name=n, last=y[-1]), colour) for n, (y, colour) in lines.items()]
    _label_ends(axes, ends)
    axes.set(ylabel="test images with an error (%)")
    _tidy(axes)


def _label_ends(axes: plt.Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Writes (height, text, colour) beside the right ends of lines; limits are set already."""
    places = axes.transData.transform([(axes.get_xlim()[0], end[0]) for end in ends])
    heights = _spread(axes.transAxes.inverted().transform(places)[:, 1])
    for height, (_, text, colour) in zip(heights, ends, strict=True):
        axes.annotate(
            text,
            (1.015, height),
            xycoords="axes fraction",
            color=colour,
            fontweight="bold",
            va="center",
            annotation_clip=False,
        )


def _tidy(axes: plt.Axes) -> None:
    """Only what carries information."""
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _spread(heights: Sequence[float]) -> np.ndarray:
    """Heights for the labels: as given, moved up where two would come closer than the gap."""
    spread = np.array(heights, dtype=float)
    floor = -np.inf
    for i in np.argsort(spread, kind="stable"):
        spread[i] = floor = max(spread[i], floor)
        floor += GAP
    return spread
