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
the box is taken by default, entry by entry; every mean of the two is sound.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxlirpa._arrays import where
from jaxlirpa._intervals import Interval, intersect, vacuous_where_nan
from jaxlirpa._minmax import maximum
from jaxlirpa._relax.planes import AdjustableJointly, Plane, Planes, mean
from jaxlirpa._relax.product import Product
from jaxlirpa._relax.relaxations import Relaxations
from jaxlirpa._relax.sshaped import lower_lines
from jaxlirpa._types import Array, PyTree


@dataclasses.dataclass(frozen=True)
class Normalised(AdjustableJointly):
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

    def family(self, boxes: Sequence[Interval]) -> Relaxations[Planes]:
        """McCormick's planes of the factors, and lines in the entry alone."""
        d, _ = boxes
        least, most = self._others(d)
        factors = Product().family(boxes)
        below = self._lines(d, least, most)
        above = self._lines(Interval(-d.upper, -d.lower), least, most)

        def lines(alpha: tuple[Array, Array]) -> Planes:
            slope, offset = below.at(alpha[0])
            slope_, offset_ = above.at(alpha[1])
            return Planes(Plane((slope, None), offset), Plane((slope_, None), -offset_))

        start = factors.start, (below.start, above.start)
        pair = factors.default, lines(start[1])
        middle = [0.5 * b.lower + 0.5 * b.upper for b in boxes]
        better = (
            _better(pair[0].lower, pair[1].lower, middle, jnp.greater),
            _better(pair[0].upper, pair[1].upper, middle, jnp.less),
        )

        def at(alpha: tuple[PyTree, PyTree, tuple[Array, Array]]) -> Planes:
            first, second, share = alpha
            sides = zip(share, factors.at(first), lines(second), strict=True)
            return Planes(*(_mean(p, a, b) for p, a, b in sides))

        return Relaxations((*start, better), at)

    def _others(self, d: Interval) -> tuple[Array, Array]:
        """The least and the largest sum of the other entries' squares."""
        most = maximum(jnp.square(d.lower), jnp.square(d.upper))
        least = jnp.square(maximum(maximum(d.lower, -d.upper), 0))
        size = math.prod(d.lower.shape[i] for i in self.axes)
        room = 4 * size * jnp.finfo(most.dtype).eps
        sums = [jnp.sum(x, self.axes, keepdims=True) for x in (least, most)]
        below = maximum(sums[0] * (1 - room) - least, 0)
        above = sums[1] * (1 + room) - most
        return where(jnp.isnan(below), 0, below), where(jnp.isnan(above), jnp.inf, above)

    def _value(self, x: Array, least: Array, most: Array) -> Array:
        """The largest `y_i` for `d_i = x`; the smallest for `-x` is the negative."""
        return x * self._root(x, least, most)

    def _root(self, x: Array, least: Array, most: Array) -> Array:
        return jax.lax.rsqrt(self.scale * (jnp.square(x) + self._rest(x, least, most)) + self.floor)

    def _rest(self, x: Array, least: Array, most: Array) -> Array:
        if self.centred:
            size = math.prod(x.shape[i] for i in self.axes)
            least = maximum(least, jnp.square(x) / max(size - 1, 1))
        # At zero, where the slope jumps, the convex side's counts: tangents are drawn on that one.
        return where(x >= 0, least, most)

    def _lines(self, d: Interval, least: Array, most: Array) -> Relaxations[tuple[Array, Array]]:
        """Lines below the smallest `y_i` as a function of `d_i`."""
        unit = jax.lax.stop_gradient(maximum(jnp.abs(d.lower), jnp.abs(d.upper)))
        unit = where(unit > 0, unit, 1)
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
                slope = where((x >= 0) & (free >= least), root**3 * self.floor, slope)
            return unit * slope

        box = Interval(d.lower / unit, d.upper / unit)
        return lower_lines(smallest, derivative, box).map(lambda line: (line[0] / unit, line[1]))


def _better(
    factors: Plane,
    line: Plane,
    middle: Sequence[Array],
    better: Callable[[Array, Array], Array],
) -> Array:
    """The alpha of the line where it is better in the middle of the box, else of the factors."""
    a, b = factors.slopes
    slope, _ = line.slopes
    assert a is not None and b is not None and slope is not None
    x, y = middle
    chosen = better(slope * x + line.offset, a * x + b * y + factors.offset)
    chosen = chosen | ~jnp.isfinite(factors.offset)
    return chosen.astype(x.dtype)


def _mean(alpha: Array, factors: Plane, line: Plane) -> Plane:
    """The line alone where the factors' plane is not finite."""
    lost = ~jnp.isfinite(factors.offset)
    factors = jax.tree.map(lambda x: where(lost, 0, x), factors)
    return mean(where(lost, 1, alpha), factors, line, ())
