"""Extrema of functionals of independent examples: each has coefficients on one example alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxlirpa._typing import Array, Interval, sums
from jaxlirpa.sets.ball import LpBall
from jaxlirpa.sets.base import ArraySet, concretize_box


def concretize_per_example(s: ArraySet, coefficients: Array, origin: Array, axis: int) -> Interval:
    """Extrema of linear forms over what a set of batches leaves to every example.

    Args:
        s: a box or a norm ball of batches.
        coefficients: `[rows, *shape]`: of every example, its own.
        origin: as of `ArraySet.concretize`.
        axis: of the shape, that numbers the examples.

    Returns:
        `[rows, examples]` minima and maxima.
    """
    centred = origin is s.point()
    if isinstance(s, LpBall) and s.is_box and centred:
        radius = jnp.broadcast_to(s.radius, s.center.shape)[None]
        spread = sums(jnp.abs(coefficients) * radius, axis)
        return Interval(-spread, spread)
    if s.is_box:
        return concretize_box(s.hull(), coefficients, origin, axis)

    def extrema(s: ArraySet, coefficients: Array, origin: Array) -> Interval:
        own = s.expand(axis)
        origin = own.point() if centred else jnp.expand_dims(origin, axis)
        return own.concretize(jnp.expand_dims(coefficients, axis + 1), origin)

    mapped = jax.vmap(extrema, in_axes=(s.batch_axes(axis), axis + 1, axis), out_axes=1)
    return mapped(s, coefficients, origin)
