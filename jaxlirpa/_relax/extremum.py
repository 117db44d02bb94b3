"""The largest of several entries, or of several values entry by entry.

Below it lies every one of them, and hence every weighted mean of them: by default that of those
with the largest lower limit. From above, let `x` be the entry with the largest upper limit and `m`
the largest upper limit of the others. The maximum is at most `max(x, m)`, a convex function of `x`
alone, which is below its chord on the box of `x`. Where `m` is no larger than the lower limit of
`x`, the chord is `x` itself; where two entries share the largest upper limit, it is that limit.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import jax.numpy as jnp

from jaxlirpa._arrays import where
from jaxlirpa._intervals import Interval
from jaxlirpa._minmax import maximum
from jaxlirpa._relax.lines import Point, offset_above, secant
from jaxlirpa._relax.planes import AdjustableJointly, Plane, Planes
from jaxlirpa._relax.relaxations import Relaxations
from jaxlirpa._types import Array


@dataclasses.dataclass(frozen=True)
class Maximum(AdjustableJointly):
    """The maximum over some axes.

    Attributes:
        axes: over which it is taken.
        mask: False where an entry does not count; at least one entry of each group does.
    """

    axes: tuple[int, ...]
    mask: Array | None = None

    def image(self, boxes: Sequence[Interval]) -> Interval:
        """The maximum of the limits."""
        (box,) = boxes
        return Interval(*(jnp.max(self._counted(x), self.axes) for x in box))

    def family(self, boxes: Sequence[Interval]) -> Relaxations[Planes]:
        """A mean of entries, whose weights are the freedom, and a chord of one."""
        (box,) = boxes
        lower, upper = map(self._counted, box)
        best = (lower == jnp.max(lower, self.axes, keepdims=True)).astype(lower.dtype)
        nothing = jnp.zeros_like(jnp.max(lower, self.axes))
        above = self._above(lower, upper)

        def at(alpha: Array) -> Planes:
            counted = alpha if self.mask is None else where(self.mask, alpha, 0)
            total = jnp.sum(counted, self.axes, keepdims=True)
            enough = total > 0.5
            weights = where(enough, counted, best)
            weights = weights / where(enough, total, jnp.sum(best, self.axes, keepdims=True))
            return Planes(Plane((weights,), nothing), above)

        return Relaxations(best, at)

    def _above(self, lower: Array, upper: Array) -> Plane:
        """A chord of the entry with the largest upper limit."""
        largest = jnp.max(upper, self.axes, keepdims=True)
        top = upper == largest
        alone = jnp.sum(top, self.axes, keepdims=True) == 1
        others = jnp.max(where(top, -jnp.inf, upper), self.axes, keepdims=True)
        start = jnp.max(where(top, lower, -jnp.inf), self.axes, keepdims=True)
        others = where(alone, maximum(others, start), largest)
        ends = Point(start, others), Point(largest, largest)
        slope = where(alone, secant(*ends), jnp.zeros_like(largest))
        slope = where(alone & (others <= start), jnp.ones_like(slope), slope)
        offset = jnp.squeeze(offset_above(slope, ends), self.axes)
        return Plane((where(top, slope, jnp.zeros_like(slope)),), offset)

    def _counted(self, x: Array) -> Array:
        return x if self.mask is None else where(self.mask, x, -jnp.inf)


@dataclasses.dataclass(frozen=True)
class LargestOf(AdjustableJointly):
    """The largest of several values of one shape, entry by entry.

    Attributes:
        mask: `[values, *shape]`, False where an entry does not count; None if all count.
    """

    mask: Array | None = None

    def image(self, boxes: Sequence[Interval]) -> Interval:
        """The maximum of the limits."""
        counted = self._counted(boxes)
        return Interval(
            *(functools.reduce(jnp.maximum, side) for side in zip(*counted, strict=True))
        )

    def family(self, boxes: Sequence[Interval]) -> Relaxations[Planes]:
        """That of the maximum over an axis along which the values are stacked."""
        stacked = Interval(*(jnp.stack(side) for side in zip(*boxes, strict=True)))
        found = Maximum((0,), self.mask).family([stacked])

        def at(alpha: Sequence[Array]) -> Planes:
            return Planes(*(_unstacked(plane) for plane in found.at(jnp.stack(alpha))))

        return Relaxations(tuple(found.start), at)

    def _counted(self, boxes: Sequence[Interval]) -> Sequence[Interval]:
        if self.mask is None:
            return boxes
        pairs = zip(self.mask, boxes, strict=True)
        return [Interval(*(where(own, x, -jnp.inf) for x in box)) for own, box in pairs]


def _unstacked(plane: Plane) -> Plane:
    """A plane whose one operand stands for several, with a slope for each of these."""
    (slopes,) = plane.slopes
    assert slopes is not None
    return plane._replace(slopes=tuple(slopes))
