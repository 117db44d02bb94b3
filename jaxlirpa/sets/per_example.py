"""Extremes of functionals of independent examples: each has coefficients on one example alone.

A set of batches that knows what it leaves to each example has a method `concretize_per_example`.
Of a set without it, a batch is bounded as one vector, at the square of its size.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxlirpa._intervals import Interval
from jaxlirpa._types import Array
from jaxlirpa.sets.base import ArraySet, concretize_box


def is_per_example(s: ArraySet) -> bool:
    """Whether a set knows what it leaves to each example, as every box does."""
    return s.is_box or hasattr(s, "concretize_per_example")


def concretize_per_example(s: ArraySet, coefficients: Array, origin: Array, axis: int) -> Interval:
    """Extremes of linear forms over what a set of batches leaves to every example.

    Args:
        s: a set that is per example.
        coefficients: `[rows, *shape]`: of every example, its own.
        origin: as of `ArraySet.concretize`.
        axis: of the shape, that numbers the examples.

    Returns:
        `[rows, examples]` minima and maxima.
    """
    own = getattr(s, "concretize_per_example", None)
    if own is not None:
        found: Interval = own(coefficients, origin, axis)
        return found
    return concretize_box(s.hull(), coefficients, origin, axis)


def one_by_one(s: ArraySet, coefficients: Array, origin: Array | None, axis: int) -> Interval:
    """As `concretize_per_example`, where an example's share is a set of the same kind.

    A set may define its method by it. The share is what `batch_axes` and `expand` make of the set:
    one example, with an axis of size one in its place.
    """

    def extremes(s: ArraySet, coefficients: Array, origin: Array | None) -> Interval:
        own = s.expand(axis)
        moved = None if origin is None else jnp.expand_dims(origin, axis)
        return own.concretize(jnp.expand_dims(coefficients, axis + 1), moved)

    axes = (s.batch_axes(axis), axis + 1, None if origin is None else axis)
    found: Interval = jax.vmap(extremes, in_axes=axes, out_axes=1)(s, coefficients, origin)
    return found
