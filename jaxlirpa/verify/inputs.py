"""The inputs of a function as one vector: their deviations from the points of their sets.

Parts of the set, linear forms and members are all spoken of in these deviations, `[..., n]`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxlirpa._intervals import Interval
from jaxlirpa._types import Array
from jaxlirpa.sets import ArraySet, Box


def size(sets: Sequence[ArraySet]) -> int:
    """How many numbers the inputs are."""
    return sum(math.prod(own.aval.shape) for own in sets)


def apart(sets: Sequence[ArraySet], flat: Array) -> list[Array]:
    """Vectors `[..., n]` as one array an input, `[..., *shape]` each."""
    found, at = [], 0
    for own in sets:
        shape = own.aval.shape
        count = math.prod(shape)
        found.append(flat[..., at : at + count].reshape(*flat.shape[:-1], *shape))
        at += count
    return found


def joined(sets: Sequence[ArraySet], arrays: Sequence[Array]) -> Array:
    """Arrays `[..., *shape]`, one an input, as vectors `[..., n]`."""
    pairs = zip(sets, arrays, strict=True)
    return jnp.concatenate(
        [x.reshape(*x.shape[: x.ndim - len(own.aval.shape)], -1) for own, x in pairs], -1
    )


def limits(sets: Sequence[ArraySet]) -> Interval:
    """The limits of the deviations by the sets' hulls, `[n]` each."""
    hulls = [own.hull() for own in sets]
    pairs = [(hull, own.point()) for hull, own in zip(hulls, sets, strict=True)]
    return Interval(
        *(joined(sets, [hull[side] - point for hull, point in pairs]) for side in (0, 1))
    )


def members(sets: Sequence[ArraySet], deviations: Array) -> list[Array]:
    """The inputs at some deviations."""
    pairs = zip(sets, apart(sets, deviations), strict=True)
    return [own.point() + part for own, part in pairs]


def parts(sets: Sequence[ArraySet], limits: Interval) -> tuple[ArraySet, ...]:
    """The boxes of the inputs whose deviations have some limits, no wider than the sets' hulls."""
    found = []
    for own, *pair in zip(sets, *(members(sets, limit) for limit in limits), strict=True):
        (lower, upper), hull, point = pair, own.hull(), own.point()
        # Rounded deviations may end inside of the part by a last place; they step outwards.
        room = 4 * jnp.finfo(point.dtype).eps * (jnp.abs(lower) + jnp.abs(upper) + jnp.abs(point))
        lower, upper = jnp.maximum(lower - room, hull[0]), jnp.minimum(upper + room, hull[1])
        found.append(Box.of((lower, upper)))
    return tuple(found)


def minima(sets: Sequence[ArraySet], coefficients: Array) -> Array:
    """The minima of linear forms of the deviations, `[count]`; their coefficients `[count, n]`."""
    total = jnp.zeros(len(coefficients), coefficients.dtype)
    for own, rows in zip(sets, apart(sets, coefficients), strict=True):
        total = total + own.concretize(rows, from_point=True).lower
    return total


def minimisers(sets: Sequence[ArraySet], coefficients: Array) -> Array:
    """The deviations at which linear forms are least, `[count, n]`.

    The minimum of a linear form over a set has the minimiser as its derivative by the coefficients.
    """
    least, pull = jax.vjp(lambda rows: minima(sets, rows), jax.lax.stop_gradient(coefficients))
    (found,) = pull(jnp.ones_like(least))
    return found
