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

from jaxlirpa._arrays import where
from jaxlirpa._intervals import Interval, intersect
from jaxlirpa._minmax import maximum, minimum
from jaxlirpa._relax.planes import AdjustableJointly, Plane, Planes, mean
from jaxlirpa._relax.relaxations import Relaxations
from jaxlirpa._relax.sumexp import LogSumExp
from jaxlirpa._types import Array


@dataclasses.dataclass(frozen=True)
class Softmax(AdjustableJointly):
    """Operands: logits `x_j`, `[..., 1, j]`, and `x_i`, `[..., i, 1]`, and `x_j - x_i`.

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

    def family(self, boxes: Sequence[Interval]) -> Relaxations[Planes]:
        """See the module's derivation."""
        differences = self._differences(boxes)
        known = [*boxes[:2], differences]
        level = self._level(differences)
        tangent, secant, height = LogSumExp((self.axis,)).parts(differences, _middle(differences))
        (slopes,) = tangent.slopes
        assert slopes is not None
        highest = tangent.offset + jnp.sum(slopes * differences.upper, self.axis)
        above = [
            self._chord(slopes, tangent.offset, level.lower, end)
            for end in (level.upper, maximum(minimum(highest, level.upper), level.lower))
        ]
        (rise,) = secant.slopes
        assert rise is not None
        below = [
            self._by_logits(boxes[0], boxes[1]),
            self._by_differences(rise, secant.offset, height, differences),
        ]

        def at(alpha: tuple[Array, Array]) -> Planes:
            pairs = zip(alpha, (below, above), strict=True)
            lower, upper = (mean(p, a, b, (self.axis,)) for p, (a, b) in pairs)
            # Shares are so small where logits are far apart that their terms may underflow.
            room = 16 * jnp.finfo(lower.offset.dtype).tiny
            return Planes(
                lower._replace(offset=lower.offset - room),
                upper._replace(offset=upper.offset + room),
            )

        return Relaxations((self._best(below, known, 1), self._best(above, known, -1)), at)

    def _differences(self, boxes: Sequence[Interval]) -> Interval:
        """The differences, by themselves and from the logits."""
        logits, entry, differences = boxes
        apart = 1 - _unit(logits.lower)
        own = (logits.lower - entry.upper) * apart, (logits.upper - entry.lower) * apart
        return intersect(differences, Interval(*own))

    def _level(self, differences: Interval) -> Interval:
        return LogSumExp((self.axis,)).image([differences])

    def _chord(self, slopes: Array, offset: Array, start: Array, end: Array) -> Plane:
        """A plane of the differences above `exp(-L)`, for `L` between two numbers."""
        wide = end > start
        high = jnp.exp(-start)
        fall = high * where(wide, jnp.expm1(start - end) / where(wide, end - start, 1), -1)
        # Above a convex function between two points once it is above it at both.
        top = jnp.maximum(high - fall * start, jnp.exp(-end) - fall * end)
        # An exponential is known to as many units in the last place as its argument is large.
        info = jnp.finfo(top.dtype)
        room = 8 * info.eps * (high - fall) * (1 + jnp.abs(start) + jnp.abs(offset)) + info.tiny
        fall_by = jnp.expand_dims(fall, self.axis) * slopes
        return Plane((None, None, fall_by), top + fall * offset + room)

    def _by_differences(self, rise: Array, offset: Array, at: Array, box: Interval) -> Plane:
        """The tangent of `exp(-z) >= exp(-a) (1 + a - z)` at the plane above `L`."""
        height = jnp.exp(-at)
        slopes = -jnp.expand_dims(height, self.axis) * rise
        size = 1 + jnp.square(at) + jnp.abs(offset)
        size = size + jnp.sum(rise * (box.upper - box.lower), self.axis) * (1 + jnp.abs(at))
        room = 8 * jnp.finfo(height.dtype).eps * height * size
        return Plane((None, None, slopes), height * (1 + at - offset) - room)

    def _by_logits(self, box: Interval, entry: Interval) -> Plane:
        """The tangent of `exp(x_i) / C(x)` in the middle of the box."""
        middle = _middle(box)
        _, ((rise,), _), at = LogSumExp((self.axis,)).parts(box, middle)
        assert rise is not None
        own = jnp.squeeze(_middle(entry), self.axis)
        height = jnp.exp(own - at)
        slopes = jnp.expand_dims(height, self.axis) * (_unit(middle) - rise)
        offset = height - jnp.sum(slopes * middle, self.axis)
        size = 1 + jnp.abs(own) + jnp.abs(at)
        reach = jnp.sum(jnp.abs(slopes) * (jnp.abs(middle) + box.upper - box.lower), self.axis)
        room = 8 * jnp.finfo(height.dtype).eps * size * (height + reach)
        return Plane((slopes, None, None), offset - room)

    def _best(self, planes: Sequence[Plane], boxes: Sequence[Interval], sign: int) -> Array:
        """Of two planes below (sign 1) or above (-1), the alpha of the better one."""
        scores = [sign * self._in_the_middle(plane, boxes) for plane in planes]
        return (~(scores[0] >= scores[1])).astype(scores[0].dtype)

    def _in_the_middle(self, plane: Plane, boxes: Sequence[Interval]) -> Array:
        height = plane.offset
        for slope, box in zip(plane.slopes, boxes, strict=True):
            if slope is not None:
                height = height + jnp.sum(slope * _middle(box), self.axis)
        return height


def of_logits(plane: Plane) -> Plane:
    """One of `Softmax`'s planes, with the slopes on the differences as slopes on the logits.

    The difference of an entry from itself is zero, whatever its slope.
    """
    logits, _, differences = plane.slopes
    assert differences is not None
    moved = differences * (1 - _unit(differences))
    entry = -jnp.sum(moved, -1, keepdims=True)
    return plane._replace(slopes=(moved if logits is None else logits + moved, entry, None))


def _middle(box: Interval) -> Array:
    return 0.5 * box.lower + 0.5 * box.upper


def _unit(logits: Array) -> np.ndarray:
    return np.eye(logits.shape[-1], dtype=logits.dtype)
