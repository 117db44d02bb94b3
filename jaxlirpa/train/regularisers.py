"""Regularisers that keep interval bounds tight and ReLUs balanced (Shi et al. 2021).

Both are added to the loss, with a weight that falls to zero as eps reaches its target:

    losses, boxes = train.certified(fn, with_boxes=True)(params, x, labels, eps)
    weight = 0.5 * (1 - eps / target)
    total = losses.mean() + weight * (train.tightness(boxes) + train.relu_balance(boxes))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp

from jaxlirpa._arrays import where
from jaxlirpa._errors import ArgumentError
from jaxlirpa._types import Array, Bounds


class Boxes(NamedTuple):
    """Interval bounds inside a network.

    Attributes:
        inputs: the boxes around the perturbed inputs.
        relus: the pre-activation bounds of ReLUs, by name and in order of computation; for the
            names see `jaxlirpa.intermediate_bounds`.
    """

    inputs: tuple[Bounds, ...]
    relus: dict[str, Bounds]


def tightness(boxes: Boxes, tolerance: float = 0.5) -> Array:
    """Penalises bounds that grow from the input to a layer: a nonnegative number.

    With `r` the mean radius of the input divided by that of a layer, it is the mean over layers of
    `relu(tolerance - r) / tolerance`.

    Args:
        boxes: the boxes inside the network, from a loss `with_boxes=True`.
        tolerance: the ratio above which a layer is not penalised.

    Raises:
        ArgumentError: where there are no ReLUs.

    Example:
        >>> import jax.numpy as jnp, jaxlirpa
        >>> from jaxlirpa import train
        >>> first, second = (jaxlirpa.Bounds(-r, r) for r in (jnp.ones(3), 4 * jnp.ones(5)))
        >>> print(train.tightness(train.Boxes((first,), {"dense": second})))
        0.5
    """
    layers = _layers(boxes)
    radii = jnp.concatenate([_radius(box).reshape(-1) for box in boxes.inputs])
    ratios = [_ratio(jnp.mean(radii), jnp.mean(_radius(box))) for box in layers]
    return _mean([_below(ratio, tolerance) for ratio in ratios])


def relu_balance(boxes: Boxes, tolerance: float = 0.5) -> Array:
    """Penalises layers whose active ReLUs outweigh the inactive ones, or the reverse.

    Let `c` be the centres of a layer's pre-activation bounds. The ratio `a` is the sum of `|c|`
    over active ReLUs divided by that over inactive ones; `b` is the same ratio for the squared
    deviations `(c - mean(c))^2`. The result is the mean over layers of
    `(relu(tolerance - min(a, 1/a)) + relu(tolerance - min(b, 1/b))) / tolerance`. A layer without
    active ReLUs, or without inactive ones, has no ratio and is not penalised.

    Args:
        boxes: the boxes inside the network, from a loss `with_boxes=True`.
        tolerance: the ratio above which a layer is not penalised.

    Raises:
        ArgumentError: where there are no ReLUs.

    Example:
        >>> import jax.numpy as jnp, jaxlirpa
        >>> from jaxlirpa import train
        >>> box = jaxlirpa.Bounds(jnp.array([-4.5, 0.5]), jnp.array([-3.5, 1.5]))
        >>> print(train.relu_balance(train.Boxes((box,), {"dense": box})))
        0.5
    """
    return _mean([_imbalance(box, tolerance) for box in _layers(boxes)])


def _imbalance(box: Bounds, tolerance: float) -> Array:
    """The penalty of one layer."""
    centre = 0.5 * (box.lower + box.upper)
    deviation = jnp.square(centre - jnp.mean(centre))
    active, inactive = box.lower > 0, box.upper < 0
    total = jnp.zeros((), centre.dtype)
    for part in (jnp.abs(centre), deviation):
        on, off = (jnp.sum(where(which, part, 0)) for which in (active, inactive))
        smaller, larger = jnp.minimum(on, off), jnp.maximum(on, off)
        both = jnp.any(active) & jnp.any(inactive)
        total += where(both, _below(_ratio(smaller, larger), tolerance), 0)
    return total


def _layers(boxes: Boxes) -> Sequence[Bounds]:
    if not boxes.relus:
        raise ArgumentError("the network has no ReLUs, which this regulariser is about.")
    return list(boxes.relus.values())


def _radius(box: Bounds) -> Array:
    return 0.5 * (box.upper - box.lower)


def _ratio(a: Array, b: Array) -> Array:
    """a / b, and one where b is zero."""
    some = b > 0
    return where(some, a / where(some, b, 1), 1)


def _below(ratio: Array, tolerance: float) -> Array:
    """How far a ratio is below the tolerance, as a fraction of the tolerance."""
    return jnp.maximum(tolerance - ratio, 0) / tolerance


def _mean(parts: Sequence[Array]) -> Array:
    return jnp.mean(jnp.stack(parts))
