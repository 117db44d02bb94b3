"""Linear interpolation in a known table: piecewise linear, and constant or linear beyond the table.

A piecewise linear function minus a line takes its extremes over a box at the ends or at a knot, so
a line of *any* slope is sound with the offset that these points ask for. Where two knots share a
place the function jumps there; then both count, unless the box ends at the jump on the other side.

The line below that is best in the middle of the box is an edge of the lower hull of these points.
Its slope is found by bisection: a line of too small a slope touches to the left of the middle.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxlirpa._arrays import where
from jaxlirpa._intervals import Interval
from jaxlirpa._minmax import maximum
from jaxlirpa._relax.lines import Lines, Point, secant
from jaxlirpa._relax.smooth import enclose, midpoint
from jaxlirpa._types import Array

_STEPS = 32
_ULPS = 8


@dataclasses.dataclass(frozen=True)
class Interpolated:
    """A function that is linear between knots and beyond them.

    Attributes:
        function: the function.
        xs: places of the knots, `[n]`, in order.
        ys: its values there, `[n]`; at a jump those on either side.
    """

    function: Callable[[Array], Array]
    xs: Array
    ys: Array

    def image(self, box: Interval) -> Interval:
        """The extremes are at the ends or at a knot."""
        return self.offsets(jnp.zeros_like(box.lower), box)

    def offsets(self, slope: Array, box: Interval) -> Interval:
        """Lines of any slope through the lowest and the highest of the corners."""
        corners = self._corners(box)
        return Interval(corners.offset(slope), -corners.negated().offset(-slope))

    def lines(self, box: Interval) -> Lines:
        """Edges of the hulls of the corners."""
        corners, middle = self._corners(box), midpoint(box)
        below, above = (side.best_line(middle) for side in (corners, corners.negated()))
        return enclose(below, above, self.image(box))

    def _corners(self, box: Interval) -> _Corners:
        axes = tuple(range(1, 1 + box.lower.ndim))
        xs, ys = (jnp.expand_dims(v, axes) for v in (self.xs, self.ys))
        twice = self.xs[1:] == self.xs[:-1]
        first, second = (jnp.expand_dims(jnp.pad(twice, pad), axes) for pad in ((0, 1), (1, 0)))
        inside = (box.lower <= xs) & (xs <= box.upper)
        inside &= ~(first & (box.lower == xs)) & ~(second & (xs == box.upper))
        ends = jnp.stack(box)
        values = self.function(ends)
        corners = Point(
            jnp.concatenate([jnp.broadcast_to(xs, inside.shape), ends]),
            jnp.concatenate([jnp.broadcast_to(ys, inside.shape), values]),
        )
        counts = jnp.concatenate([inside, jnp.ones_like(ends, bool)])
        # What is between two knots is computed from both, one of which may be outside.
        start = jnp.searchsorted(self.xs, box.lower) - 1
        end = jnp.searchsorted(self.xs, box.upper, side="right")
        number = jnp.expand_dims(jnp.arange(len(self.xs)), axes)
        near = where((start <= number) & (number <= end), jnp.abs(ys), 0)
        size = maximum(near.max(0), jnp.abs(values).max(0))
        table = jnp.diff(self.ys) / where(twice, 1, jnp.diff(self.xs))
        steepest = where(twice, 0, jnp.abs(table)).max(initial=0)
        return _Corners(corners, counts, size, steepest)


class _Corners(NamedTuple):
    """The points of a function on a box between which it is linear.

    Attributes:
        points: `[count, *shape]`.
        counts: which of them are in the box.
        size: of what the values there are computed from.
        steepest: the largest slope between two of them, but for those that share a place.
    """

    points: Point
    counts: Array
    size: Array
    steepest: Array

    def negated(self) -> _Corners:
        """Those of the negative function, whose lower lines are the negated upper ones."""
        return self._replace(points=self.points._replace(y=-self.points.y))

    def offset(self, slope: Array) -> Array:
        """The largest offset with which a line of some slope is below the function."""
        x, y = self.points
        product = where(slope == 0, 0, slope * x)
        far = where(self.counts, jnp.abs(product), 0).max(0)
        room = _ULPS * jnp.finfo(y.dtype).eps * (self.size + far)
        return where(self.counts, y - product, jnp.inf).min(0) - room

    def best_line(self, at: Array) -> tuple[Array, Array]:
        """The line below that is highest at a point of the box; offset minus infinity if none."""
        low, high = jax.lax.stop_gradient(self._bracket(at))
        left, right = self._touched(low, at), self._touched(high, at)
        middle = 0.5 * low + 0.5 * high
        slope = where(left.x < right.x, secant(left, right), middle)
        offset = self.offset(slope)
        proper = jnp.isfinite(offset)
        return where(proper, slope, 0), where(proper, offset, -jnp.inf)

    def _bracket(self, at: Array) -> tuple[Array, Array]:
        """Two slopes beside each other, between which that of the best line is."""

        def halve(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = bracket
            slope = 0.5 * low + 0.5 * high
            left = self._touched(slope, at).x < at
            return where(left, slope, low), where(left, high, slope)

        x, y = self.points
        rise = where(self.counts, y, -jnp.inf).max(0) - where(self.counts, y, jnp.inf).min(0)
        width = x[-1] - x[-2]
        # Steeper lines than the pieces there are only at jumps, where these are steep enough.
        coarse = 4 * rise / where(width > 0, width, 1)
        steep = maximum(coarse, jnp.broadcast_to(self.steepest, coarse.shape))
        steep = where(jnp.isfinite(steep), steep, 0)
        return jax.lax.fori_loop(0, _STEPS, halve, (-steep, steep))

    def _touched(self, slope: Array, at: Array) -> Point:
        """The corner that the highest line of some slope goes through."""
        x, y = self.points
        which = where(self.counts, y - slope * (x - at), jnp.inf).argmin(0)[None]
        return Point(*(jnp.take_along_axis(v, which, 0)[0] for v in self.points))
