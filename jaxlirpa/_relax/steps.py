"""Staircases: floor, ceil, round, sign.

On `[l, u]` the function rises from `a = f(l)` to `b = f(u)` in equal steps. A line of slope
`s >= 0` is below it as soon as it is below the lower corners, where a step ends. Of these the
distance to the line changes by equal amounts from step to step, so the first and the last one
matter, and the two ends. The same holds above for the upper corners.

With the corners `(l, a), (first, a), (last, b - height), (u, b)` the best lower line, measured in
the middle of the box, is the edge of their convex hull that is under the middle: flat, then of
slope one step a step width, then up to the end. The means of neighbouring edges are the family.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import jax.numpy as jnp

from jaxlirpa._arrays import where
from jaxlirpa._intervals import Interval
from jaxlirpa._minmax import clip, maximum
from jaxlirpa._relax.lines import Adjustable, Lines, Point, offset_above, offset_below, secant
from jaxlirpa._relax.relaxations import Relaxations, between
from jaxlirpa._relax.smooth import midpoint
from jaxlirpa._types import Array


@dataclasses.dataclass(frozen=True)
class Staircase(Adjustable):
    """A nondecreasing step function.

    Attributes:
        function: the function.
        rise: where it leaves a value upwards.
        single: whether there is one step only, of whatever height; else every step has height one.
    """

    function: Callable[[Array], Array]
    rise: Callable[[Array], Array]
    single: bool = False

    def image(self, box: Interval) -> Interval:
        """The function does not fall."""
        return Interval(self.function(box.lower), self.function(box.upper))

    def family(self, box: Interval) -> Relaxations[Lines]:
        """Constant on one step; else edges of the hulls of the corners."""
        a, b = self.image(box)
        constant = a == b
        before = a if self.single else b - 1
        after = b if self.single else a + 1
        first = clip(self.rise(a), *box)
        last = clip(self.rise(before), *box)
        start, end = Point(box.lower, a), Point(box.upper, b)
        below = [start, Point(first, a), Point(last, before), end]
        above = [start, Point(first, after), Point(last, b), end]
        middle, zero = midpoint(box), jnp.zeros_like(a)
        far = maximum(jnp.abs(box.lower), jnp.abs(box.upper))

        def at(alpha: tuple[Array, Array]) -> Lines:
            lower = where(constant, zero, between(_edges(below), alpha[0]))
            upper = where(constant, zero, between(_edges(above), alpha[1]))
            size = maximum(jnp.abs(a), jnp.abs(b)) + far * maximum(lower, upper)
            room = 2 * jnp.finfo(far.dtype).eps * size
            low, high = offset_below(lower, below) - room, offset_above(upper, above) + room
            return Lines(lower, where(constant, a, low), upper, where(constant, a, high))

        return Relaxations((_under(below, middle), _under(above, middle)), at, nodes=3)


def _edges(corners: Sequence[Point]) -> Array:
    """The slopes of a chain of corners."""
    return jnp.stack([secant(left, right) for left, right in itertools.pairwise(corners)])


def _under(corners: Sequence[Point], middle: Array) -> Array:
    """The alpha of the edge that is over or under the middle."""
    later = [(middle > corner.x).astype(middle.dtype) for corner in corners[1:-1]]
    return 0.5 * (later[0] + later[1])
