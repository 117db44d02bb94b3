"""What keeps interval bounds tight and ReLUs balanced while training (Shi et al. 2021).

Both are added to the loss, with a weight that falls to zero as eps reaches its target:

    losses, boxes = train.certified(fn, with_boxes=True)(params, x, labels, eps)
    weight = 0.5 * (1 - eps / target)
    total = losses.mean() + weight * (train.tightness(boxes) + train.relu_balance(boxes))
"""

from __future__ import annotations

from typing import NamedTuple

from jaxlirpa._typing import Array, Bounds


class Boxes(NamedTuple):
    """Interval bounds inside a network.

    Attributes:
        inputs: of what is perturbed.
        relus: of what ReLUs read, by name and in order of computation; for the names see
            `jaxlirpa.intermediate_bounds`.
    """

    inputs: tuple[Bounds, ...]
    relus: dict[str, Bounds]


def tightness(boxes: Boxes, tolerance: float = 0.5) -> Array:
    """How much wider boxes become from the input on: a number, not negative.

    `mean over layers of relu(tolerance - mean radius of the input / mean radius of the layer)`,
    divided by the tolerance.

    Args:
        boxes: inside the network.
        tolerance: the ratio above which a layer is fine.
    """
    raise NotImplementedError


def relu_balance(boxes: Boxes, tolerance: float = 0.5) -> Array:
    """How unevenly active and inactive ReLUs contribute to the centres' mean and variance.

    With `a` the ratio of the active and the inactive part of the mean of a layer's centres, and `b`
    that of their variance, the mean over layers of `relu(tolerance - min(a, 1/a))
    + relu(tolerance - min(b, 1/b))`, divided by the tolerance. A layer without active, or without
    inactive ReLUs has no ratio, and counts as balanced.

    Args:
        boxes: inside the network.
        tolerance: the ratio above which a layer is fine.
    """
    raise NotImplementedError
