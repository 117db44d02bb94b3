"""An entry divided by the norm of its group: `y_i = d_i / sqrt(c sum_j d_j^2 + e)`.

With `S = sum_{j != i} d_j^2`, `y_i = d_i / sqrt(c (d_i^2 + S) + e)` rises in `d_i`; it falls in `S`
where `d_i > 0` and rises in it where `d_i < 0`. So for `S` in `[S_l, S_u]`, whatever the other
entries are, `y_i` lies between two functions of `d_i` alone: above, with `S_l` for positive and
`S_u` for negative `d_i`, and the other way round below. Both are convex up to zero and concave from
there on, so their lines are those of S-shaped functions. Where the group sums to zero,
`d_i^2 = (sum_{j != i} d_j)^2 <= (n - 1) S` (Cauchy and Schwarz), so `S` is at least
`d_i^2 / (n - 1)`, which keeps both shapes. No entry can thus exceed `1 / sqrt(c)`, however wide the
box, which the factors alone do not tell.

On a narrow box the two factors, `d_i` and the reciprocal root, tell more: they keep the linear part
of what the other entries do. Of the two relaxations the one that is tighter in the middle of
the box is taken, entry by entry.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxlirpa._relax.planes import Plane, Planes
from jaxlirpa._relax.product import Product
from jaxlirpa._relax.sshaped import lower_line
from jaxlirpa._typing import Array, Interval, intersect, vacuous_where_nan


@dataclasses.dataclass(frozen=True)
class Normalised:
    """`d * r` for `r = 1 / sqrt(scale * sum(d^2) + floor)`; operands: `d`, `r`, of one shape.

    Attributes:
        axes: of the sum.
        scale: positive.
        floor: not negative.
        centred: whether `d` sums to zero over the axes.
    """

    axes: tuple[int, ...]
    scale: float
    floor: float
    centred: bool

    def image(self, boxes: Sequence[Interval]) -> Interval:
        """What entry and rest allow, and what the two factors allow."""
        d, _ = boxes
        least, most = self._others(d)
        upper = self._value(d.upper, least, most)
        lower = -self._value(-d.lower, least, most)
        room = 8 * jnp.finfo(upper.dtype).eps
        own = Interval(lower - room * jnp.abs(lower), upper + room * jnp.abs(upper))
        return intersect(vacuous_where_nan(Product().image(boxes)), vacuous_where_nan(own))

    def planes(self, boxes: Sequence[Interval]) -> Planes:
        """McCormick's planes of the factors, or lines in the entry alone."""
        d, _ = boxes
        least, most = self._others(d)
        factors = Product().planes(boxes)
        middle = [0.5 * b.lower + 0.5 * b.upper for b in boxes]
        lower = _tighter(factors.lower, *self._line(d, least, most), middle, jnp.greater)
        slope, offset = self._line(Interval(-d.upper, -d.lower), least, most)
        upper = _tighter(factors.upper, slope, -offset, middle, jnp.less)
        return Planes(lower, upper)

    def _others(self, d: Interval) -> tuple[Array, Array]:
        """The least and the largest sum of the other entries' squares."""
        most = jnp.maximum(jnp.square(d.lower), jnp.square(d.upper))
        least = jnp.square(jnp.maximum(jnp.maximum(d.lower, -d.upper), 0))
        size = math.prod(d.lower.shape[i] for i in self.axes)
        room = 4 * size * jnp.finfo(most.dtype).eps
        sums = [jnp.sum(x, self.axes, keepdims=True) for x in (least, most)]
        below = jnp.maximum(sums[0] * (1 - room) - least, 0)
        above = sums[1] * (1 + room) - most
        return jnp.where(jnp.isnan(below), 0, below), jnp.where(jnp.isnan(above), jnp.inf, above)

    def _value(self, x: Array, least: Array, most: Array) -> Array:
        """The largest `y_i` for `d_i = x`; the smallest for `-x` is the negative."""
        return x * self._root(x, least, most)

    def _root(self, x: Array, least: Array, most: Array) -> Array:
        return jax.lax.rsqrt(self.scale * (jnp.square(x) + self._rest(x, least, most)) + self.floor)

    def _rest(self, x: Array, least: Array, most: Array) -> Array:
        if self.centred:
            size = math.prod(x.shape[i] for i in self.axes)
            least = jnp.maximum(least, jnp.square(x) / max(size - 1, 1))
        return jnp.where(x > 0, least, most)

    def _line(self, d: Interval, least: Array, most: Array) -> tuple[Array, Array]:
        """A line below the smallest `y_i` as a function of `d_i`."""
        unit = jax.lax.stop_gradient(jnp.maximum(jnp.abs(d.lower), jnp.abs(d.upper)))
        unit = jnp.where(unit > 0, unit, 1)
        size = math.prod(d.lower.shape[i] for i in self.axes)

        def smallest(q: Array) -> Array:
            return -self._value(-q * unit, least, most)

        def derivative(q: Array) -> Array:
            x = -q * unit
            rest = self._rest(x, least, most)
            root = self._root(x, least, most)
            slope = root * jnp.square(root) * (self.scale * rest + self.floor)
            if self.centred:  # where the rest moves with the entry
                free = jnp.square(x) / max(size - 1, 1)
                slope = jnp.where((x > 0) & (free >= least), root**3 * self.floor, slope)
            return unit * slope

        box = Interval(d.lower / unit, d.upper / unit)
        slope, offset = lower_line(smallest, derivative, box)
        return slope / unit, offset


def _tighter(
    factors: Plane,
    slope: Array,
    offset: Array,
    middle: Sequence[Array],
    better: Callable[[Array, Array], Array],
) -> Plane:
    """The line in the first factor where it is better in the middle of the box."""
    a, b = factors.slopes
    assert a is not None and b is not None
    x, y = middle
    line = better(slope * x + offset, a * x + b * y + factors.offset)
    line = line | ~jnp.isfinite(factors.offset)
    return Plane(
        (jnp.where(line, slope, a), jnp.where(line, jnp.zeros_like(b), b)),
        jnp.where(line, offset, factors.offset),
    )
