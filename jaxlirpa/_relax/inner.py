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

from jaxlirpa._relax.planes import Plane, Planes
from jaxlirpa._typing import Array, Interval, dual, norm


@dataclasses.dataclass(frozen=True)
class Inner:
    """`sum(w * x)` over the last axis, for `w` in a ball.

    Attributes:
        center: of the ball, of the operands' shape.
        radius: the same; an entry of the ball is read once at most by an entry of the output.
        ord: of the ball's norm.
    """

    center: Array
    radius: Array
    ord: float

    def image(self, boxes: Sequence[Interval]) -> Interval:
        """The range around the centre, and what the ball adds to it."""
        _, x = boxes
        ends = [self.center * limit for limit in x]
        spread = self._largest(jnp.maximum(*map(jnp.abs, x)))
        lower, upper = (jnp.sum(f(*ends), -1) for f in (jnp.minimum, jnp.maximum))
        return Interval(lower - spread, upper + spread)

    def planes(self, boxes: Sequence[Interval]) -> Planes:
        """As above."""
        _, x = boxes
        middle = x.lower / 2 + x.upper / 2
        gap = self._largest(jnp.maximum(x.upper - middle, middle - x.lower))
        slopes = middle, self.center
        offset = -jnp.sum(self.center * middle, -1)
        return Planes(Plane(slopes, offset - gap), Plane(slopes, offset + gap))

    def _largest(self, x: Array) -> Array:
        """The largest inner product of a member of the ball around zero and `x >= 0`."""
        return norm(self.radius * x, dual(self.ord))
