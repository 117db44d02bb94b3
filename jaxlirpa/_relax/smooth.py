"""What is known of a differentiable function, and how far its rounding errors reach.

A line is drawn in three steps: choose a slope, find the offset with which it passes the points of
the function that matter, and step outwards by what the computed values may be wrong. The last two
are here; which points matter follows from curvature and is proved where the slope is chosen.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax.numpy as jnp

from jaxlirpa._arrays import where
from jaxlirpa._intervals import Interval, vacuous_where_overflown
from jaxlirpa._minmax import clip, maximum, minimum
from jaxlirpa._relax.lines import Lines, Point, offset_below
from jaxlirpa._relax.relaxations import Relaxations
from jaxlirpa._types import Array


def _few(x: Array) -> float:
    """What most functions are known to, and some reserve."""
    del x
    return 4.0


@dataclasses.dataclass(frozen=True)
class Smooth:
    """A function, its derivative and the accuracy of both.

    Attributes:
        function: the function, entry by entry.
        derivative: its derivative; beside a jump of the slope, that on either side.
        ulps: by how many units in the last place a computed value may be wrong, at a point.
        floor: below this size the error of a value is absolute: `ulps` units of the floor.
        terms: size of the terms whose sum the derivative is; its own size where it is no sum.
    """

    function: Callable[[Array], Array]
    derivative: Callable[[Array], Array]
    ulps: Callable[[Array], Array | float] = _few
    floor: float = 0.0
    terms: Callable[[Array], Array] | None = None

    def point(self, x: Array) -> Point:
        """The point of the graph at `x`."""
        return Point(x, self.function(x))

    def slopes(self, x: Array) -> Interval:
        """An interval around the computed derivative that contains the true one."""
        slope = self.derivative(x)
        size = jnp.abs(slope) if self.terms is None else maximum(jnp.abs(slope), self.terms(x))
        info = jnp.finfo(slope.dtype)
        error = self.ulps(x) * info.eps * size + info.tiny
        return Interval(slope - error, slope + error)

    def negated(self) -> Smooth:
        """`-f`, whose lower lines are the negated upper lines of `f`."""
        return dataclasses.replace(
            self, function=lambda x: -self.function(x), derivative=lambda x: -self.derivative(x)
        )

    def range(self, points: Sequence[Point]) -> Interval:
        """An interval around the computed values that contains the true ones.

        An infinite value may be a large one that overflowed, which bounds nothing on its far side.
        """
        errors = [self._error(p) for p in points]
        lower = [p.y - e for p, e in zip(points, errors, strict=True)]
        upper = [p.y + e for p, e in zip(points, errors, strict=True)]
        return vacuous_where_overflown(
            Interval(functools.reduce(minimum, lower), functools.reduce(maximum, upper))
        )

    def below(self, slope: Array, at: Array, points: Sequence[Point]) -> tuple[Array, Array]:
        """The highest line of this slope that is surely below the true values at `points`.

        Where `slope` is the derivative at `at`, the line also stays below a convex function that
        has the true derivative there: over the box the two slopes part by no more than their
        error times the largest number of the box, which is taken off as well.

        Args:
            slope: of the line.
            at: where the derivative was taken.
            points: of the function, the ends of the box among them.

        Returns:
            Slope and offset; the slope is zero and the offset minus infinity where there is none.
        """
        far = functools.reduce(maximum, [jnp.abs(p.x) for p in points])
        # Below the normal numbers a slope has few digits, if any: its error is not relative.
        slope = where(jnp.abs(slope) < jnp.finfo(far.dtype).tiny, 0, slope)
        # A point too high for the line to reach may as well be a little lower. What could still
        # overflow is sorted out beforehand, by products alone: a sum of products may be rounded
        # differently wherever the compiler repeats it, and so decide differently.
        big = 0.125 * jnp.finfo(far.dtype).max
        errors = [where(p.y < big, self._error(p), 0) for p in points]
        points = [p._replace(y=minimum(p.y, big)) for p in points]
        lowest = functools.reduce(minimum, [p.y for p in points])
        steep = jnp.abs(slope)
        if self.terms is not None:
            steep = maximum(steep, self.terms(at))
        unit = self.ulps(at) * jnp.finfo(far.dtype).eps
        reach = functools.reduce(maximum, [unit * (far * steep), *errors])
        ok = (steep * far < big) & (steep < big) & (reach < big) & (lowest > -big)
        slope, reach = where(ok, slope, 0), where(ok, reach, 0)
        return slope, where(ok, offset_below(slope, points) - reach, -jnp.inf)

    def _error(self, point: Point) -> Array:
        size = where(jnp.isfinite(point.y), maximum(jnp.abs(point.y), self.floor), 0)
        return self.ulps(point.x) * jnp.finfo(size.dtype).eps * size


def enclose(
    lower: tuple[Array, Array], negated_upper: tuple[Array, Array], image: Interval
) -> Lines:
    """A line below `f`, and one below `-f`, as lines around `f`.

    Where no line was found (values overflow, or have a pole), the end of the image is as good.
    """
    (slope, offset), (slope_, offset_) = lower, negated_upper
    return Lines(
        slope,
        where(offset > -jnp.inf, offset, image.lower),
        -slope_,
        where(offset_ > -jnp.inf, -offset_, image.upper),
    )


def offsets_of(
    slope: Array, lower: tuple[Array, Array], negated_upper: tuple[Array, Array], box: Interval
) -> Interval:
    """The offsets of lines of one slope below `f` and above it, see `_relax/slopes.py`.

    Args:
        slope: that was asked for.
        lower: the line that `Smooth.below` drew for it, which is flat if the slope is below the
            normal numbers: the line asked for then keeps below that one.
        negated_upper: that of `-slope` below `-f`.
        box: where the lines are to hold.
    """
    far = maximum(jnp.abs(box.lower), jnp.abs(box.upper))
    room = 2 * jnp.finfo(far.dtype).tiny * far
    (drawn, low), (drawn_, high) = lower, negated_upper
    return Interval(low - where(drawn == slope, 0, room), where(drawn_ == -slope, 0, room) - high)


def enclosing(
    below: Relaxations[tuple[Array, Array]],
    above: Relaxations[tuple[Array, Array]],
    image: Interval,
) -> Relaxations[Lines]:
    """A family of lines below `f`, and one of lines below `-f`, as a family around `f`."""

    def at(alpha: tuple[Array, Array]) -> Lines:
        return enclose(below.at(alpha[0]), above.at(alpha[1]), image)

    return Relaxations((below.start, above.start), at)


def midpoint(box: Interval) -> Array:
    """The middle of the box: the tangent there has the largest mean of all tangents."""
    return clip(0.5 * box.lower + 0.5 * box.upper, box.lower, box.upper)
