"""An inner product with a value from a norm ball around zero.

For `d` in the ball and `x` in a box around `m`,

    d . x  =  d . m + d . (x - m)

The first term is a plane. By Hölder's inequality the other one is no larger than the norm of
`r (x - m)`, entry by entry with the ball's radius `r`, dual to the ball's; that norm is largest at
the corners of the box. Entry by entry (McCormick) the remainder would be a sum of absolute values
in the place of a norm.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from jaxlirpa._arrays import dual, norm
from jaxlirpa._intervals import Interval
from jaxlirpa._minmax import maximum
from jaxlirpa._relax.planes import Plane, Planes
from jaxlirpa._types import Array


@dataclasses.dataclass(frozen=True)
class Inner:
    """`sum(d * x)` over the last axis, for `d` in a ball around zero.

    The operands broadcast: in the product of a matrix and a ball of matrices, each repeats the
    other's entries along an axis of length one.

    Attributes:
        radius: of the ball, of the first operand's shape, or one number; an entry of the ball is
            read once at most by an entry of the output.
        ord: of the ball's norm.
    """

    radius: Array
    ord: float

    def image(self, boxes: Sequence[Interval]) -> Interval:
        """As far to either side as the largest `x` allows."""
        _, x = boxes
        spread = self._shaped(self.largest(maximum(*map(jnp.abs, x))), boxes)
        return Interval(-spread, spread)

    def planes(self, boxes: Sequence[Interval]) -> Planes:
        """As above."""
        _, x = boxes
        middle, reach = _middle(x)
        gap = self._shaped(self.largest(reach), boxes)
        return Planes(Plane((middle, None), -gap), Plane((middle, None), gap))

    def largest(self, x: Array) -> Array:
        """The largest inner product of a member of the ball around zero and `x >= 0`."""
        return norm(self.radius * x, dual(self.ord))

    def _shaped(self, x: Array, boxes: Sequence[Interval]) -> Array:
        shape = np.broadcast_shapes(*(box.lower.shape for box in boxes))
        return jnp.broadcast_to(x, shape[:-1])


def _middle(x: Interval) -> tuple[Array, Array]:
    """The middle of a box, and how far its limits are from it."""
    middle = x.lower / 2 + x.upper / 2
    return middle, jnp.maximum(x.upper - middle, middle - x.lower)
