"""Whether two contenders computed the same, and which of the two is tighter."""

import numpy as np

from .measure import Measurement


def compare(ours: Measurement, theirs: Measurement) -> dict[str, float]:
    """How far our results are from theirs.

    A result's *distance* is the mean of what lies between its bounds and the value where nothing is
    perturbed, of both sides together (the width) or of the one that was asked for. A certified loss
    is a bound like any other.

    Returns:
        ``width``: our distance over theirs; ``looser``, ``tighter``: by how much one of our bounds
        is, at most, relative to their distance; ``gradient``, of a training step: the largest
        difference of an entry, relative to the largest entry.
    """
    mine, other, centre = ours.arrays, theirs.arrays, ours.arrays.get("centre", np.zeros(()))
    sides = [(name, sign) for name, sign in SIGNS.items() if name in mine]
    distance = sum(float(np.mean(sign * (mine[name] - centre))) for name, sign in sides)
    reference = sum(float(np.mean(sign * (other[name] - centre))) for name, sign in sides)
    gains = np.stack([sign * (other[name] - mine[name]) for name, sign in sides]) / reference
    found = {
        "width": distance / reference,
        "looser": float(max(0, -gains.min())),
        "tighter": float(max(0, gains.max())),
    }
    if "gradient" in mine:
        error = np.abs(mine["gradient"] - other["gradient"]).max()
        found["gradient"] = float(error / np.abs(other["gradient"]).max())
    return found


SIGNS = {"lower": -1, "upper": 1, "loss": 1}
