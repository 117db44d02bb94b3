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
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxlirpa._relax.lines import Lines, Point
from jaxlirpa._relax.smooth import Smooth, enclose, midpoint
from jaxlirpa._typing import Array, Interval

_STEPS = 36


@dataclasses.dataclass(frozen=True)
class Solvable:
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
        turns = [jnp.clip(x, box.lower, box.upper) for x in self.turns]
        return self.smooth.range([self.smooth.point(x) for x in (*box, *turns)])

    def lines(self, box: Interval) -> Lines:
        """The line below, and the negated line below the negated function."""
        low, high = self.slopes
        lower = _line_below(self.smooth, self.where, (low, high), box)
        negated = self.smooth.negated()
        upper = _line_below(negated, lambda slope: self.where(-slope), (-high, -low), box)
        return enclose(lower, upper, self.image(box))


def _line_below(
    f: Smooth,
    where: Callable[[Array], Sequence[Array]],
    slopes: tuple[float, float],
    box: Interval,
) -> tuple[Array, Array]:
    middle = midpoint(box)
    ends = [f.point(box.lower), f.point(box.upper)]

    def candidates(slope: Array) -> list[Point]:
        inner = [jnp.clip(x, box.lower, box.upper) for x in where(slope)]
        return [*ends, *map(f.point, jax.lax.stop_gradient(inner))]

    def halve(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        slope = 0.5 * low + 0.5 * high
        points = candidates(slope)
        heights = jnp.stack([p.y - slope * (p.x - middle) for p in points])
        places = jnp.stack([p.x for p in points])
        lowest = jnp.take_along_axis(places, jnp.argmin(heights, 0)[None], 0)[0]
        steeper = lowest < middle
        return jnp.where(steeper, slope, low), jnp.where(steeper, high, slope)

    bracket = tuple(jnp.full_like(middle, x) for x in slopes)
    low, high = jax.lax.stop_gradient(jax.lax.fori_loop(0, _STEPS, halve, bracket))
    slope = 0.5 * low + 0.5 * high
    return f.below(slope, middle, candidates(slope))
