"""The product of two values that both vary: McCormick's planes (1976).

From `(x - x_l) (y - y_l) >= 0` and `(x_u - x) (y_u - y) >= 0` follow two planes below `x y`, and
from the mixed products two above it:

    x y >= y_l x + x_l y - x_l y_l        x y <= y_u x + x_l y - x_l y_u
    x y >= y_u x + x_u y - x_u y_u        x y <= y_l x + x_u y - x_u y_l

The two of a side have the same value in the middle of the box; every mean of them is sound. By
default the first of each pair is taken, unless the second varies much less over the box, entry by
entry. An inner product is a sum of products: the sums of their planes are planes around it, and its
slopes are no more than theirs.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import jax.numpy as jnp

from jaxlirpa._intervals import Interval, vacuous_where_overflown
from jaxlirpa._minmax import maximum, minimum
from jaxlirpa._relax.planes import AdjustableJointly, Plane, Planes, mean
from jaxlirpa._relax.relaxations import Relaxations
from jaxlirpa._types import Array

# Found best on networks with gates, quotients and attention; no choice is best for all of them.
_MUCH_LESS = 0.6


@dataclasses.dataclass(frozen=True)
class Product(AdjustableJointly):
    """`x * y`, entry by entry, or summed over axes.

    Attributes:
        axes: over which inner products are taken; none where entries are multiplied alone.
    """

    axes: tuple[int, ...] = ()

    def image(self, boxes: Sequence[Interval]) -> Interval:
        """The extremes of a product are at the corners, and products vary on their own."""
        x, y = boxes
        corners = [a * b for a in x for b in y]
        extremes = functools.reduce(minimum, corners), functools.reduce(maximum, corners)
        return vacuous_where_overflown(Interval(*(jnp.sum(e, self.axes) for e in extremes)))

    def family(self, boxes: Sequence[Interval]) -> Relaxations[Planes]:
        """McCormick's planes."""
        x, y = boxes
        below = (x.lower, y.lower), (x.upper, y.upper)
        above = (x.lower, y.upper), (x.upper, y.lower)

        def at(alpha: tuple[Array, Array]) -> Planes:
            pairs = zip(alpha, (below, above), strict=True)
            planes = (mean(p, _plane(a), _plane(b), ()) for p, (a, b) in pairs)
            return Planes(*(Plane(p.slopes, jnp.sum(p.offset, self.axes)) for p in planes))

        return Relaxations((_flatter(boxes, *below), _flatter(boxes, *above)), at)


def _plane(corner: tuple[Array, Array]) -> Plane:
    """The plane through a corner, whose slopes are the corner's entries."""
    a, b = corner
    return Plane((b, a), -a * b)


def _flatter(
    boxes: Sequence[Interval], first: tuple[Array, Array], second: tuple[Array, Array]
) -> Array:
    """The alpha of the plane to start from."""
    x, y = boxes
    x_width, y_width = x.upper - x.lower, y.upper - y.lower

    def variation(corner: tuple[Array, Array]) -> Array:
        return jnp.abs(corner[1]) * x_width + jnp.abs(corner[0]) * y_width

    second_is_flatter = variation(second) < _MUCH_LESS * variation(first)
    return second_is_flatter.astype(x_width.dtype)
