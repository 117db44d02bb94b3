"""Sine and cosine: the best line of any box, by bisection on its slope.

Let `h(s)` be the largest offset of a line of slope `s` below `f` on `[l, u]`, written around the
middle `m`: `h(s) = min f(x) - s (x - m)` over the box. As a minimum of linear functions of `s` it
is concave, and `m - x` is a slope of it where `x` attains the minimum. So bisection finds its
largest value, which is the height in the middle of the best line below `f`. The slopes are between
minus one and one: steeper lines are no better than these, as `f` is nowhere steeper.

What makes it sound is that `h` is known in closed form. The minimum is at an end of the box or at
a local minimum of `f(x) - s x`, where `f' = s` and `f` is convex. For the sine these are the points
`2 pi k - arccos(s)`, with the value `-sqrt(1 - s^2)`; along them `-s x` is monotone in `k`, so only
the first and the last one in the box matter. Those just outside are counted as well, which can
only lower the line.

Every slope has a sound line, so the family is that of `_relax/supporting.py`.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxlirpa._arrays import where
from jaxlirpa._intervals import Interval, is_finite
from jaxlirpa._minmax import clip, maximum, minimum
from jaxlirpa._relax.lines import Adjustable, Lines, Point, secant
from jaxlirpa._relax.relaxations import Relaxations
from jaxlirpa._relax.smooth import Smooth, enclose, enclosing, midpoint, offsets_of
from jaxlirpa._relax.supporting import supporting
from jaxlirpa._types import Array

_STEPS = 40
_PERIOD = 2 * np.pi


@dataclasses.dataclass(frozen=True)
class Wave(Adjustable):
    """`sin(x + phase)`.

    Attributes:
        smooth: the function.
        phase: how far its zero with a rising slope is to the left of 0.
    """

    smooth: Smooth
    phase: float = 0.0

    def image(self, box: Interval) -> Interval:
        """Minus or plus one where a trough or a crest is in the box, else an end's value."""
        crest, trough = (_nearby(box, x - self.phase)[2] for x in (np.pi / 2, -np.pi / 2))
        ends = self.smooth.range([self.smooth.point(x) for x in box])
        known = is_finite(box)
        trough, crest = trough | ~known, crest | ~known
        return Interval(
            where(trough, -1, maximum(ends.lower, -1)),
            where(crest, 1, minimum(ends.upper, 1)),
        )

    def offsets(self, slope: Array, box: Interval) -> Interval:
        """Those of the ends, and of the troughs or crests of the wave minus the line."""
        lower, upper = (
            _line_below(f, phase, box, s)
            for (f, phase), s in zip(self._sides(), (slope, -slope), strict=True)
        )
        return offsets_of(slope, lower, upper, box)

    def family(self, box: Interval) -> Relaxations[Lines]:
        """The lines that are best somewhere in the box; they are numbered by their slopes."""
        below, above = (
            supporting(
                functools.partial(_best_slope, f, phase, box),
                functools.partial(_line_below, f, phase, box),
                box,
            )
            for f, phase in self._sides()
        )
        return enclosing(below, above, self.image(box))

    def lines(self, box: Interval) -> Lines:
        """The best lines in the middle, see the module's derivation."""
        lower, upper = (
            _line_below(f, phase, box, _best_slope(f, phase, box, midpoint(box)))
            for f, phase in self._sides()
        )
        return enclose(lower, upper, self.image(box))

    def _sides(self) -> tuple[tuple[Smooth, float], tuple[Smooth, float]]:
        """The wave and the negated wave, which is a shifted one."""
        return (self.smooth, self.phase), (self.smooth.negated(), self.phase + np.pi)


def _touching(f: Smooth, phase: float, box: Interval, slope: Array) -> list[Point]:
    """The points one of which a line of this slope below `f` touches."""
    start, end = (f.point(x) for x in box)
    slope = clip(slope, -1, 1)  # of a steeper one, the ends alone matter
    first, last, found = _nearby(box, -jnp.arccos(slope) - phase)
    least = -jnp.sqrt((1 - slope) * (1 + slope))
    troughs = [Point(where(found, x, start.x), where(found, least, start.y)) for x in (first, last)]
    return [start, *troughs, end]


def _best_slope(f: Smooth, phase: float, box: Interval, middle: Array) -> Array:
    """The slope of the line below `f`, which is `sin(x + phase)`, that is highest at a point."""
    start, end = (f.point(x) for x in box)

    def touched(slope: Array) -> Array:
        """Where a line of this slope touches."""
        at, least = start.x, jnp.full_like(slope, jnp.inf)
        for p in _touching(f, phase, box, slope):
            value = p.y - slope * (p.x - middle)
            at, least = where(value < least, p.x, at), minimum(value, least)
        return at

    def halve(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        slope = 0.5 * (low + high)
        left = touched(slope) < middle
        return where(left, slope, low), where(left, high, slope)

    one = jnp.ones_like(middle)
    low, high = jax.lax.stop_gradient(jax.lax.fori_loop(0, _STEPS, halve, (-one, one)))
    # The best line touches on the left and on the right of the middle, where one of the two is an
    # end of the box or both are troughs; or it is the tangent at the middle.
    left, right = (jax.lax.stop_gradient(touched(s)) for s in (low, high))
    a = f.point(where(left == start.x, start.x, left))
    b = f.point(where(right == end.x, end.x, right))
    width = box.upper - box.lower
    slope = where(right - left > 0.25 * width, secant(a, b), f.derivative(middle))
    steep = (width < 2 * _PERIOD) & (_blur(box) < 0.1)
    return where(steep, clip(slope, -1, 1), 0)


def _line_below(f: Smooth, phase: float, box: Interval, slope: Array) -> tuple[Array, Array]:
    """The highest line of a slope below `f`."""
    start, end = (f.point(x) for x in box)
    # A trough's alpha is wrong by some units of its size and of a period. On the function
    # itself that error counts by its square only, which covers the second; the line's allowance
    # for numbers of this size covers the first.
    _, *troughs, _ = jax.lax.stop_gradient(_touching(f, phase, box, slope))
    lowest = []
    for p in troughs:
        absent, y = p.x == start.x, jax.lax.stop_gradient(minimum(p.y, f.function(p.x)))
        lowest.append(Point(where(absent, start.x, p.x), where(absent, start.y, y)))
    return f.below(slope, box.lower, [start, end, *lowest])


def _nearby(box: Interval, place: Array | float) -> tuple[Array, Array, Array]:
    """The first and the last point at this place of the period in a box, and if there is any.

    The box is made larger by what rounding may have moved the points.
    """
    blur = (
        8 * jnp.finfo(box.lower.dtype).eps * (1 + maximum(jnp.abs(box.lower), jnp.abs(box.upper)))
    )
    first = place + _PERIOD * jnp.ceil((box.lower - blur - place) / _PERIOD)
    last = place + _PERIOD * jnp.floor((box.upper + blur - place) / _PERIOD)
    return first, last, last >= box.lower - blur


def _blur(box: Interval) -> Array:
    """By how much rounding may move a point in the box."""
    size = maximum(jnp.abs(box.lower), jnp.abs(box.upper))
    return 8 * jnp.finfo(size.dtype).eps * (_PERIOD + size)
