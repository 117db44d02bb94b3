"""Staircases: floor, ceil, round, sign.

On `[l, u]` the function rises from `a = f(l)` to `b = f(u)` in equal steps. A line of slope
`s >= 0` is below it as soon as it is below the lower corners, where a step ends. Of these the
distance to the line changes by equal amounts from step to step, so the first and the last one
matter, and the two ends. The same holds above for the upper corners.

With the corners `(l, a), (first, a), (last, b - height), (u, b)` the best lower line, measured in
the middle of the box, is the edge of their convex hull that is under the middle: flat, then of
slope one step a step width, then up to the end.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import jax.numpy as jnp

from jaxlirpa._relax.lines import Lines, Point, offset_above, offset_below, secant
from jaxlirpa._relax.smooth import midpoint
from jaxlirpa._typing import Array, Interval


@dataclasses.dataclass(frozen=True)
class Staircase:
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

    def lines(self, box: Interval) -> Lines:
        """Constant on one step; else edges of the hulls of the corners."""
        a, b = self.image(box)
        constant = a == b
        before = a if self.single else b - 1
        after = b if self.single else a + 1
        first = jnp.clip(self.rise(a), *box)
        last = jnp.clip(self.rise(before), *box)
        start, end = Point(box.lower, a), Point(box.upper, b)
        below = [start, Point(first, a), Point(last, before), end]
        above = [start, Point(first, after), Point(last, b), end]
        middle, zero = midpoint(box), jnp.zeros_like(a)
        lower = jnp.where(constant, zero, _edge(below, middle))
        upper = jnp.where(constant, zero, _edge(above, middle))
        far = jnp.maximum(jnp.abs(box.lower), jnp.abs(box.upper))
        size = jnp.maximum(jnp.abs(a), jnp.abs(b)) + far * jnp.maximum(lower, upper)
        room = 2 * jnp.finfo(far.dtype).eps * size
        low, high = offset_below(lower, below) - room, offset_above(upper, above) + room
        return Lines(lower, jnp.where(constant, a, low), upper, jnp.where(constant, a, high))


def _edge(corners: Sequence[Point], middle: Array) -> Array:
    """The slope of the edge of a chain of corners that is over or under the middle."""
    slope = secant(corners[0], corners[1])
    for left, right in itertools.pairwise(corners[1:]):
        slope = jnp.where(middle > left.x, secant(left, right), slope)
    return slope
