"""An entry of softmax: `p_i = exp(x_i) / sum_j exp(x_j) = 1 / sum_j exp(x_j - x_i)`.

The planes are those of Wei et al. 2023, with `L = log(sum_j exp(x_j - x_i))`: `p_i = exp(-L)`.

* Above. `L` is at least its tangent plane `T`, and lies in a box `[L_l, L_u]`. The chord of
  `exp(-L)` over that box is above `p_i`, and as it falls, it may be taken at `T <= L`. The same is
  true of the chord over the smaller box that ends at the largest `T`: where `T` is below `L_l`, the
  chord is above `exp(-L_l)`.
* Below, by logits. `sum_j exp(x_j)` lies below the plane `C(x)` of chords, and `exp(x_i) / C(x)` is
  convex, as its logarithm `x_i - log C(x)` is: it lies above its tangent plane.
* Below, by differences. In the same way `1 / sum_j exp(d_j)`, for `d_j = x_j - x_i`, is at least
  the tangent plane of `1 / C(d)`. This is tighter where the differences are known better than the
  logits.

Of two planes for one side the one is taken, by default, that is better in the middle of the box;
every mean of the two is sound.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from jaxlirpa._relax.family import Family
from jaxlirpa._relax.planes import AdjustableJointly, Plane, Planes, mean
from jaxlirpa._relax.sumexp import LogSumExp
from jaxlirpa._typing import Array, Interval, intersect


@dataclasses.dataclass(frozen=True)
class Softmax(AdjustableJointly):
    """Operands, both `[..., i, j]`: the logits `x_j`, and the differences `x_j - x_i`.

    Attributes:
        axis: of `j`, the last one.
    """

    axis: int

    def image(self, boxes: Sequence[Interval]) -> Interval:
        """It falls in every difference."""
        inner = self._level(self._differences(boxes))
        info = jnp.finfo(inner.lower.dtype)
        room = 1 + 8 * info.eps
        return Interval(jnp.exp(-inner.upper) / room, jnp.exp(-inner.lower) * room + info.tiny)

    def family(self, boxes: Sequence[Interval]) -> Family[Planes]:
        """See the module's derivation."""
        known = [boxes[0], self._differences(boxes)]
        level = self._level(known[1])
        tangent, secant, height = LogSumExp((self.axis,)).parts(known[1], _middle(known[1]))
        (slopes,) = tangent.slopes
        assert slopes is not None
        highest = tangent.offset + jnp.sum(slopes * known[1].upper, self.axis)
        above = [
            self._chord(slopes, tangent.offset, level.lower, end)
            for end in (level.upper, jnp.maximum(jnp.minimum(highest, level.upper), level.lower))
        ]
        (rise,) = secant.slopes
        assert rise is not None
        below = [
            self._by_logits(boxes[0]),
            self._by_differences(rise, secant.offset, height, known[1]),
        ]

        def at(position: tuple[Array, Array]) -> Planes:
            pairs = zip(position, (below, above), strict=True)
            lower, upper = (mean(p, a, b, (self.axis,)) for p, (a, b) in pairs)
            # Shares are so small where logits are far apart that their terms may underflow.
            room = 16 * jnp.finfo(lower.offset.dtype).tiny
            return Planes(
                lower._replace(offset=lower.offset - room),
                upper._replace(offset=upper.offset + room),
            )

        return Family((self._best(below, known, 1), self._best(above, known, -1)), at)

    def _differences(self, boxes: Sequence[Interval]) -> Interval:
        """The differences, by themselves and from the logits."""
        logits, differences = boxes
        entry = [jnp.swapaxes(x, -1, -2) for x in logits]
        apart = 1 - np.eye(logits.lower.shape[-1], dtype=logits.lower.dtype)
        own = Interval((logits.lower - entry[1]) * apart, (logits.upper - entry[0]) * apart)
        return intersect(differences, own)

    def _level(self, differences: Interval) -> Interval:
        return LogSumExp((self.axis,)).image([differences])

    def _chord(self, slopes: Array, offset: Array, start: Array, end: Array) -> Plane:
        """A plane of the differences above `exp(-L)`, for `L` between two numbers."""
        wide = end > start
        high = jnp.exp(-start)
        fall = high * jnp.where(wide, jnp.expm1(start - end) / jnp.where(wide, end - start, 1), -1)
        # Above a convex function between two points once it is above it at both.
        top = jnp.maximum(high - fall * start, jnp.exp(-end) - fall * end)
        # An exponential is known to as many units in the last place as its argument is large.
        info = jnp.finfo(top.dtype)
        room = 8 * info.eps * (high - fall) * (1 + jnp.abs(start) + jnp.abs(offset)) + info.tiny
        return Plane((None, jnp.expand_dims(fall, self.axis) * slopes), top + fall * offset + room)

    def _by_differences(self, rise: Array, offset: Array, at: Array, box: Interval) -> Plane:
        """The tangent of `exp(-z) >= exp(-a) (1 + a - z)` at the plane above `L`."""
        height = jnp.exp(-at)
        slopes = -jnp.expand_dims(height, self.axis) * rise
        size = 1 + jnp.square(at) + jnp.abs(offset)
        size = size + jnp.sum(rise * (box.upper - box.lower), self.axis) * (1 + jnp.abs(at))
        room = 8 * jnp.finfo(height.dtype).eps * height * size
        return Plane((None, slopes), height * (1 + at - offset) - room)

    def _by_logits(self, box: Interval) -> Plane:
        """The tangent of `exp(x_i) / C(x)` in the middle of the box."""
        middle = _middle(box)
        _, ((rise,), _), at = LogSumExp((self.axis,)).parts(box, middle)
        assert rise is not None
        own = jnp.diagonal(middle, 0, self.axis - 1, self.axis)
        height = jnp.exp(own - at)
        unit = np.eye(middle.shape[-1], dtype=middle.dtype)
        slopes = jnp.expand_dims(height, self.axis) * (unit - rise)
        offset = height - jnp.sum(slopes * middle, self.axis)
        size = 1 + jnp.abs(own) + jnp.abs(at)
        reach = jnp.sum(jnp.abs(slopes) * (jnp.abs(middle) + box.upper - box.lower), self.axis)
        room = 8 * jnp.finfo(height.dtype).eps * size * (height + reach)
        return Plane((slopes, None), offset - room)

    def _best(self, planes: Sequence[Plane], boxes: Sequence[Interval], sign: int) -> Array:
        """Of two planes below (sign 1) or above (-1), the position of the better one."""
        scores = [sign * self._in_the_middle(plane, boxes) for plane in planes]
        return (~(scores[0] >= scores[1])).astype(scores[0].dtype)

    def _in_the_middle(self, plane: Plane, boxes: Sequence[Interval]) -> Array:
        height = plane.offset
        for slope, box in zip(plane.slopes, boxes, strict=True):
            if slope is not None:
                height = height + jnp.sum(slope * _middle(box), self.axis)
        return height


def _middle(box: Interval) -> Array:
    return 0.5 * box.lower + 0.5 * box.upper
