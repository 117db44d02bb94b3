"""Piecewise linear functions with one kink (relu, leaky relu, abs, max, min) or two (clip).

One inequality makes all lines here sound: a piecewise linear function minus a line is piecewise
linear, so it takes its extremes over a box at the ends or at a kink. A line of *any* slope is
therefore above (below) the function on the box as soon as it is above (below) it at those points.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TypeAlias

import jax.numpy as jnp

from jaxlirpa._relax.lines import Lines, Point, offset_above, offset_below, secant
from jaxlirpa._typing import Array, Interval

SlopeAtKink: TypeAlias = Callable[[Array, Array, Array], Array]


def adaptive(chord: Array, left: Array, right: Array) -> Array:
    """The steeper branch where the chord is steeper than one half, else the flatter one.

    For relu this minimises the area between the two lines (Zhang et al. 2018, section 3.3).
    """
    steep = chord > 0.5
    return jnp.where(steep, jnp.maximum(left, right), jnp.minimum(left, right))


def nearest(chord: Array, left: Array, right: Array) -> Array:
    """The branch over the longer part of a box around the kink of a symmetric function."""
    return jnp.where(chord > 0, right, left)


def flat(chord: Array, left: Array, right: Array) -> Array:
    """Horizontal: for a kink with a rising and a falling branch."""
    del left, right
    return jnp.zeros_like(chord)


@dataclasses.dataclass(frozen=True)
class OneKink:
    """A function with slope `left` below `kink` and slope `right` above it.

    Where the box contains the kink, the chord bounds a convex function (`left <= right`) from
    above, and a line through the kink, of a slope between the two branches, from below. A concave
    function is the mirror image. To one side of the kink both lines are the branch.

    Attributes:
        function: the function, entry by entry.
        kink: where the slope changes; broadcasts to the box, may be infinite.
        left, right: the slopes.
        slope_at_kink: chooses the slope through the kink from the chord's and the branches'.
    """

    function: Callable[[Array], Array]
    kink: Array
    left: Array
    right: Array
    slope_at_kink: SlopeAtKink = adaptive

    def image(self, box: Interval) -> Interval:
        """The extremes are at the ends or at the kink."""
        return _range(self._points(box))

    def lines(self, box: Interval) -> Lines:
        """The chord on one side, a line through the kink on the other."""
        points = self._points(box)
        inside = (box.lower < self.kink) & (self.kink < box.upper)
        branch = jnp.where(box.lower >= self.kink, self.right, self.left)
        chord = jnp.where(inside, secant(points[0], points[-1]), branch)
        kinked = jnp.where(inside, self.slope_at_kink(chord, self.left, self.right), branch)
        convex = self.left <= self.right
        lower, upper = jnp.where(convex, kinked, chord), jnp.where(convex, chord, kinked)
        return _around(points, lower, upper)

    def _points(self, box: Interval) -> tuple[Point, ...]:
        kink = jnp.clip(self.kink, box.lower, box.upper)
        return tuple(Point(x, self.function(x)) for x in (box.lower, kink, box.upper))


@dataclasses.dataclass(frozen=True)
class Clip:
    """`min(max(x, floor), ceiling)`.

    With both limits inside the box, the lower line leads from the floor's kink to the upper end
    and the upper line from the lower end to the ceiling's kink. With one limit inside, the
    function is a relu or its mirror image, and both lines have the slope of the chord.

    Attributes:
        floor, ceiling: the limits; broadcast to the box, may be infinite.
    """

    floor: Array
    ceiling: Array

    def image(self, box: Interval) -> Interval:
        """The function is monotone."""
        return _range(self._points(box))

    def lines(self, box: Interval) -> Lines:
        """Lines from each end to the opposite kink."""
        start, low, high, end = points = self._points(box)
        floor_inside, ceiling_inside = low.x > start.x, high.x < end.x
        chord = secant(start, end)
        lower = jnp.where(floor_inside & ~ceiling_inside, chord, secant(low, end))
        upper = jnp.where(ceiling_inside & ~floor_inside, chord, secant(start, high))
        return _around(points, lower, upper)

    def _points(self, box: Interval) -> tuple[Point, ...]:
        low = jnp.clip(self.floor, box.lower, box.upper)
        high = jnp.clip(self.ceiling, box.lower, box.upper)
        xs = (box.lower, low, high, box.upper)
        return tuple(Point(x, jnp.minimum(jnp.maximum(x, self.floor), self.ceiling)) for x in xs)


def _range(points: tuple[Point, ...]) -> Interval:
    ys = [p.y for p in points]
    return Interval(functools.reduce(jnp.minimum, ys), functools.reduce(jnp.maximum, ys))


def _around(points: tuple[Point, ...], lower: Array, upper: Array) -> Lines:
    """Lines of given slopes around a function that is linear between the points."""
    return Lines(lower, offset_below(lower, points), upper, offset_above(upper, points))
