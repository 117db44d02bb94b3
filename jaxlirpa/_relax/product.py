"""The product of two values that both vary: McCormick's planes (1976).

From `(x - x_l) (y - y_l) >= 0` and `(x_u - x) (y_u - y) >= 0` follow two planes below `x y`, and
from the mixed products two above it:

    x y >= y_l x + x_l y - x_l y_l        x y <= y_u x + x_l y - x_l y_u
    x y >= y_u x + x_u y - x_u y_u        x y <= y_l x + x_u y - x_u y_l

The two of a side have the same value in the middle of the box. The first of each pair is taken,
unless the second varies much less over the box, entry by entry.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax.numpy as jnp

from jaxlirpa._relax.planes import Plane, Planes
from jaxlirpa._typing import Array, Interval

# Found best on networks with gates, quotients and attention; no choice is best for all of them.
_MUCH_LESS = 0.6


class Product:
    """`x * y`, entry by entry."""

    def image(self, boxes: Sequence[Interval]) -> Interval:
        """The extremes are at the corners."""
        x, y = boxes
        corners = [a * b for a in x for b in y]
        return Interval(
            functools.reduce(jnp.minimum, corners), functools.reduce(jnp.maximum, corners)
        )

    def planes(self, boxes: Sequence[Interval]) -> Planes:
        """McCormick's planes."""
        x, y = boxes
        lower = _flatter(boxes, (x.lower, y.lower), (x.upper, y.upper))
        upper = _flatter(boxes, (x.lower, y.upper), (x.upper, y.lower))
        return Planes(lower, upper)


def _flatter(
    boxes: Sequence[Interval], first: tuple[Array, Array], second: tuple[Array, Array]
) -> Plane:
    """The plane through one of two corners, whose slopes are the corner's entries."""
    x, y = boxes
    x_width, y_width = x.upper - x.lower, y.upper - y.lower

    def variation(corner: tuple[Array, Array]) -> Array:
        return jnp.abs(corner[1]) * x_width + jnp.abs(corner[0]) * y_width

    second_is_flatter = variation(second) < _MUCH_LESS * variation(first)
    a, b = (jnp.where(second_is_flatter, t, s) for s, t in zip(first, second, strict=True))
    return Plane((b, a), -a * b)
