"""An inner product with a value from a norm ball.

For `w` in a ball around `c` and `x` in a box around `m`, with `d = w - c`,

    w . x  =  c . x + d . m + d . (x - m)

The first two terms are planes. By Hölder's inequality the last one is no larger than the norm of
`r (x - m)`, entry by entry with the ball's radius `r`, dual to the ball's; that norm is largest at
the corners of the box. Entry by entry (McCormick) the remainder would be a sum of absolute values
in the place of a norm.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from jaxlirpa._relax.planes import Plane, Planes
from jaxlirpa._typing import Array, Interval, dual, norm, summed_product


@dataclasses.dataclass(frozen=True)
class Inner:
    """`sum(w * x)` over the last axis, for `w` in a ball.

    The operands broadcast: in the product of a matrix and a ball of matrices, each repeats the
    other's entries along an axis of length one.

    Attributes:
        center: of the ball, of the first operand's shape.
        radius: the same, or one number; an entry of the ball is read once at most by an entry of
            the output.
        ord: of the ball's norm.
    """

    center: Array
    radius: Array
    ord: float

    def image(self, boxes: Sequence[Interval]) -> Interval:
        """The range around the centre, and what the ball adds to it."""
        _, x = boxes
        middle, reach = _middle(x)
        value = self._inner(self.center, middle)
        spread = self._inner(jnp.abs(self.center), reach)
        spread = spread + self.largest(jnp.maximum(*map(jnp.abs, x)))
        return Interval(value - spread, value + spread)

    def planes(self, boxes: Sequence[Interval]) -> Planes:
        """As above."""
        _, x = boxes
        middle, reach = _middle(x)
        gap = self.largest(reach)
        slopes = middle, self.center
        offset = -self._inner(self.center, middle)
        return Planes(Plane(slopes, offset - gap), Plane(slopes, offset + gap))

    def largest(self, x: Array) -> Array:
        """The largest inner product of a member of the ball around zero and `x >= 0`."""
        return norm(self.radius * x, dual(self.ord))

    def _inner(self, a: Array, b: Array) -> Array:
        shape = np.broadcast_shapes(a.shape, b.shape)
        return summed_product(a, b, (*shape[:-1], 1))[..., 0]


def _middle(x: Interval) -> tuple[Array, Array]:
    """The middle of a box, and how far its limits are from it."""
    middle = x.lower / 2 + x.upper / 2
    return middle, jnp.maximum(x.upper - middle, middle - x.lower)
