"""Piecewise linear functions with one kink (relu, leaky relu, abs, max, min) or two (clip).

One inequality makes all lines here sound: a piecewise linear function minus a line is piecewise
linear, so it takes its extremes over a box at the ends or at a kink. A line of *any* slope is
therefore above (below) the function on the box as soon as it is above (below) it at those points.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import TypeAlias

import jax.numpy as jnp

from jaxlirpa._arrays import where
from jaxlirpa._intervals import Interval
from jaxlirpa._minmax import clip, maximum, minimum
from jaxlirpa._relax.lines import Adjustable, Lines, Point, offset_above, offset_below, secant
from jaxlirpa._relax.relaxations import Relaxations, mix
from jaxlirpa._types import Array

AlphaAtKink: TypeAlias = Callable[[Array, Array, Array], Array]


def adaptive(chord: Array, left: Array, right: Array) -> Array:
    """The steeper branch where the chord is steeper than one half, else the flatter one.

    For relu this minimises the area between the two lines (Zhang et al. 2018, section 3.3).
    """
    return where((chord > 0.5) == (left <= right), 1.0, 0.0).astype(chord.dtype)


def nearest(chord: Array, left: Array, right: Array) -> Array:
    """The branch over the longer part of a box around the kink of a symmetric function."""
    del left, right
    return where(chord > 0, 1.0, 0.0).astype(chord.dtype)


def flat(chord: Array, left: Array, right: Array) -> Array:
    """Horizontal: for a kink with a rising and a falling branch."""
    return jnp.broadcast_to(left / (left - right), chord.shape)


@dataclasses.dataclass(frozen=True)
class OneKink(Adjustable):
    """A function with slope `left` below `kink` and slope `right` above it.

    Where the box contains the kink, the chord bounds a convex function (`left <= right`) from
    above, and a line through the kink, of a slope between the two branches, from below. A concave
    function is the mirror image. To one side of the kink both lines are the branch.

    Attributes:
        function: the function, entry by entry.
        kink: where the slope changes; broadcasts to the box, may be infinite.
        left, right: the slopes.
        start: the default slope through the kink, from the chord's and the branches': 0 for that of
            the left branch, 1 for that of the right one.
    """

    function: Callable[[Array], Array]
    kink: Array
    left: Array
    right: Array
    start: AlphaAtKink = adaptive

    def image(self, box: Interval) -> Interval:
        """The extremes are at the ends or at the kink."""
        return _range(self._points(box))

    def family(self, box: Interval) -> Relaxations[Lines]:
        """The chord on one side; on the other a line through the kink, of any slope in between."""
        points = self._points(box)
        inside = (box.lower < self.kink) & (self.kink < box.upper)
        branch = where(box.lower >= self.kink, self.right, self.left)
        chord = where(inside, secant(points[0], points[-1]), branch)
        start = self.start(chord, self.left, self.right)

        def at(alpha: tuple[Array, Array]) -> Lines:
            below, above = (where(inside, mix(p, self.left, self.right), branch) for p in alpha)
            convex = self.left <= self.right
            lower, upper = where(convex, below, chord), where(convex, chord, above)
            start, kink, _ = points
            return _around(points, lower, upper, *_if(convex, (kink, start), (start, kink)))

        return Relaxations((start, start), at, nodes=2)

    def slope_range(self, box: Interval) -> Interval:
        """Those of the branches that the box has a part of."""
        left, right = box.lower < self.kink, self.kink < box.upper
        least, most = minimum(self.left, self.right), maximum(self.left, self.right)
        only = where(left, self.left, self.right)
        both = left & right
        return Interval(where(both, least, only), where(both, most, only))

    def offsets(self, slope: Array, box: Interval) -> Interval:
        """Lines of any slope through the lowest and the highest of the points."""
        points = self._points(box)
        return Interval(offset_below(slope, points), offset_above(slope, points))

    def _points(self, box: Interval) -> tuple[Point, ...]:
        kink = clip(self.kink, box.lower, box.upper)
        return tuple(Point(x, self.function(x)) for x in (box.lower, kink, box.upper))


@dataclasses.dataclass(frozen=True)
class Clip(Adjustable):
    """`min(max(x, floor), ceiling)`.

    With the floor inside the box, the lower line goes through its kink, with any slope from zero to
    that of the line to the upper end; with the ceiling inside, the upper line goes through its kink
    in the same way. The steepest is the default: with both limits inside, the lower line then leads
    to the upper end and the upper line to the lower end; with one of them, the function is a relu
    or its mirror image, and both lines have the slope of the chord.

    Attributes:
        floor, ceiling: the limits; broadcast to the box, may be infinite.
    """

    floor: Array
    ceiling: Array

    def image(self, box: Interval) -> Interval:
        """The function is monotone."""
        return _range(self._points(box))

    def family(self, box: Interval) -> Relaxations[Lines]:
        """Lines through each kink."""
        start, low, high, end = points = self._points(box)
        floor_inside, ceiling_inside = low.x > start.x, high.x < end.x
        both, chord = floor_inside & ceiling_inside, secant(start, end)
        steepest = secant(low, end), secant(start, high)
        # With one kink inside, the alphas run from a horizontal line to that along the branch.
        share = where(both, 1.0, chord).astype(chord.dtype)

        def at(alpha: tuple[Array, Array]) -> Lines:
            lower = where(floor_inside, alpha[0] * steepest[0], chord)
            upper = where(ceiling_inside, alpha[1] * steepest[1], chord)
            return _around(points, lower, upper, low, high)

        return Relaxations((share, share), at, nodes=2)

    def slope_range(self, box: Interval) -> Interval:
        """One between the limits, zero beyond them."""
        inside = (box.upper > self.floor) & (box.lower < self.ceiling)
        beyond = (box.lower < self.floor) | (box.upper > self.ceiling)
        one, zero = jnp.ones_like(box.lower), jnp.zeros_like(box.lower)
        return Interval(where(beyond | ~inside, zero, one), where(inside, one, zero))

    def offsets(self, slope: Array, box: Interval) -> Interval:
        """Lines of any slope through the lowest and the highest of the points."""
        points = self._points(box)
        return Interval(offset_below(slope, points), offset_above(slope, points))

    def _points(self, box: Interval) -> tuple[Point, ...]:
        low = clip(self.floor, box.lower, box.upper)
        high = clip(self.ceiling, box.lower, box.upper)
        xs = (box.lower, low, high, box.upper)
        return tuple(Point(x, minimum(maximum(x, self.floor), self.ceiling)) for x in xs)


def _range(points: tuple[Point, ...]) -> Interval:
    ys = [p.y for p in points]
    return Interval(functools.reduce(minimum, ys), functools.reduce(maximum, ys))


def _if(condition: Array, true: tuple[Point, Point], false: tuple[Point, Point]) -> Iterator[Point]:
    for a, b in zip(true, false, strict=True):
        yield Point(where(condition, a.x, b.x), where(condition, a.y, b.y))


def _around(
    points: tuple[Point, ...], lower: Array, upper: Array, below: Point, above: Point
) -> Lines:
    """Lines of given slopes around a function that is linear between the points.

    Args:
        points: the ends and the kinks.
        lower, upper: the slopes.
        below, above: the points that the lines go through.
    """
    return Lines(
        lower, offset_below(lower, points, below), upper, offset_above(upper, points, above)
    )
