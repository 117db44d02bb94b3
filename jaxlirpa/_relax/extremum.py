"""The largest of several entries.

Below it lies every one of them, and hence every mean of them: those with the largest lower limit
are taken. From above, let `x` be the entry with the largest upper limit and `m` the largest upper
limit of the others. The maximum is at most `max(x, m)`, a convex function of `x` alone, which is
below its chord on the box of `x`. Where `m` is no larger than the lower limit of `x`, the chord is
`x` itself; where two entries share the largest upper limit, it is that limit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp

from jaxlirpa._relax.lines import Point, offset_above, secant
from jaxlirpa._relax.planes import Plane, Planes
from jaxlirpa._typing import Array, Interval


@dataclasses.dataclass(frozen=True)
class Maximum:
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

    def planes(self, boxes: Sequence[Interval]) -> Planes:
        """A mean of entries, and a chord of one."""
        (box,) = boxes
        lower, upper = map(self._counted, box)
        best = lower == jnp.max(lower, self.axes, keepdims=True)
        weights = best / jnp.sum(best, self.axes, keepdims=True, dtype=lower.dtype)
        below = Plane((weights,), jnp.zeros_like(jnp.max(lower, self.axes)))
        largest = jnp.max(upper, self.axes, keepdims=True)
        top = upper == largest
        alone = jnp.sum(top, self.axes, keepdims=True) == 1
        others = jnp.max(jnp.where(top, -jnp.inf, upper), self.axes, keepdims=True)
        start = jnp.max(jnp.where(top, lower, -jnp.inf), self.axes, keepdims=True)
        others = jnp.where(alone, jnp.maximum(others, start), largest)
        ends = Point(start, others), Point(largest, largest)
        slope = jnp.where(alone, secant(*ends), jnp.zeros_like(largest))
        slope = jnp.where(alone & (others <= start), jnp.ones_like(slope), slope)
        offset = jnp.squeeze(offset_above(slope, ends), self.axes)
        return Planes(below, Plane((jnp.where(top, slope, jnp.zeros_like(slope)),), offset))

    def _counted(self, x: Array) -> Array:
        return x if self.mask is None else jnp.where(self.mask, x, -jnp.inf)
