"""Extrema of functionals of independent examples: each has coefficients on one example alone.

A set that can be restricted to one example has a method `concretize_per_example`. Without it, a
batch is bounded as one vector, at a cost that is quadratic in the number of examples.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxlirpa._intervals import Interval
from jaxlirpa._types import Array
from jaxlirpa.sets.base import ArraySet, concretize_box


def is_per_example(s: ArraySet) -> bool:
    """Whether a set can be restricted to one example, as every box can."""
    return s.is_box or hasattr(s, "concretize_per_example")


def concretize_per_example(s: ArraySet, coefficients: Array, axis: int) -> Interval:
    """Extrema of linear forms of each example's deviation from `point()`.

    Args:
        s: a set with `is_per_example(s)`.
        coefficients: `[rows, *shape]`; each form uses the coefficients of one example.
        axis: the axis of the shape that indexes the examples.

    Returns:
        `[rows, examples]` minima and maxima.
    """
    own = getattr(s, "concretize_per_example", None)
    if own is not None:
        found: Interval = own(coefficients, axis)
        return found
    return concretize_box(s.hull(), coefficients, s.point(), axis)


def one_by_one(s: ArraySet, coefficients: Array, axis: int) -> Interval:
    """`concretize_per_example` for sets whose restriction to an example is of the same kind.

    A set may define its method by it. The restriction is what `batch_axes` and `expand` make of the
    set: one example, with an axis of size one in its place.
    """

    def extrema(s: ArraySet, coefficients: Array) -> Interval:
        return s.expand(axis).concretize(jnp.expand_dims(coefficients, axis + 1), True)

    axes = s.batch_axes(axis), axis + 1
    found: Interval = jax.vmap(extrema, in_axes=axes, out_axes=1)(s, coefficients)
    return found
