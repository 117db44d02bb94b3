"""Functions of which one can say where they have a given slope.

The best line below `f` on a box, measured in its middle `m` (the mean of a line is its value
there), has the slope `s` at which `g(s) = min over x of f(x) - s (x - m)` is largest. As a minimum
of affine functions of `s`, `g` is concave; where the minimum is attained at `x`, its derivative is
`m - x`. So bisection finds the best slope: a larger one as long as `x < m`, else a smaller one.

The minimum itself is attained at an end of the box or where `f' = s`, which is solved for. With
that, every slope has an exact offset, whatever the curvature between; that the best one was found
does not matter to soundness. A point that is off by a rounding error `e` misses the minimum by
`f'' e^2 / 2`, which is far below the error of the values that is allowed for.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxlirpa._arrays import where
from jaxlirpa._intervals import Interval
from jaxlirpa._minmax import clip
from jaxlirpa._relax.lines import Adjustable, Lines, Point
from jaxlirpa._relax.relaxations import Relaxations
from jaxlirpa._relax.smooth import Smooth, enclose, enclosing, midpoint, offsets_of
from jaxlirpa._relax.supporting import supporting
from jaxlirpa._types import Array

_STEPS = 36


@dataclasses.dataclass(frozen=True)
class Solvable(Adjustable):
    """A function that can be solved for a slope.

    Attributes:
        smooth: the function.
        where: the points at which its derivative is a number; anything in place of one there is
            not, but no NaN.
        slopes: its smallest and its largest derivative.
        turns: where it has its extrema.
    """

    smooth: Smooth
    where: Callable[[Array], Sequence[Array]]
    slopes: tuple[float, float]
    turns: Sequence[float]

    def image(self, box: Interval) -> Interval:
        """The extremes are at the ends or at a turn."""
        turns = [clip(x, box.lower, box.upper) for x in self.turns]
        return self.smooth.range([self.smooth.point(x) for x in (*box, *turns)])

    def offsets(self, slope: Array, box: Interval) -> Interval:
        """Those of the points that a line of this slope touches."""
        below, above = self._sides()
        return offsets_of(slope, _line(below, box, slope), _line(above, box, -slope), box)

    def family(self, box: Interval) -> Relaxations[Lines]:
        """Lines that are best somewhere in the box."""
        below, above = (
            supporting(
                functools.partial(_best_slope, side, box), functools.partial(_line, side, box), box
            )
            for side in self._sides()
        )
        return enclosing(below, above, self.image(box))

    def lines(self, box: Interval) -> Lines:
        """The lines that are best in the middle."""
        middle = midpoint(box)
        lower, upper = (_line(side, box, _best_slope(side, box, middle)) for side in self._sides())
        return enclose(lower, upper, self.image(box))

    def _sides(self) -> tuple[_Side, _Side]:
        """The function, and the negated function: the line above is the negated line below that."""
        low, high = self.slopes
        negated = self.smooth.negated()
        return (
            _Side(self.smooth, self.where, low, high),
            _Side(negated, lambda slope: self.where(-slope), -high, -low),
        )


class _Side(NamedTuple):
    """A function below which lines are drawn, where it has a slope, and its extreme slopes."""

    smooth: Smooth
    where: Callable[[Array], Sequence[Array]]
    low: float
    high: float


def _candidates(side: _Side, box: Interval, slope: Array) -> list[Point]:
    """The points one of which a line of this slope touches."""
    inner = [clip(x, box.lower, box.upper) for x in side.where(slope)]
    return [side.smooth.point(x) for x in (*box, *jax.lax.stop_gradient(inner))]


def _line(side: _Side, box: Interval, slope: Array) -> tuple[Array, Array]:
    return side.smooth.below(slope, midpoint(box), _candidates(side, box, slope))


def _best_slope(side: _Side, box: Interval, middle: Array) -> Array:
    """The slope of the line that is highest at a point."""

    def halve(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        slope = 0.5 * low + 0.5 * high
        points = _candidates(side, box, slope)
        heights = jnp.stack([p.y - slope * (p.x - middle) for p in points])
        places = jnp.stack([p.x for p in points])
        lowest = jnp.take_along_axis(places, jnp.argmin(heights, 0)[None], 0)[0]
        steeper = lowest < middle
        return where(steeper, slope, low), where(steeper, high, slope)

    bracket = tuple(jnp.full_like(middle, x) for x in (side.low, side.high))
    low, high = jax.lax.stop_gradient(jax.lax.fori_loop(0, _STEPS, halve, bracket))
    return 0.5 * low + 0.5 * high
