"""Functions of which nothing but ranges is known: of the function and of its derivative.

The box is cut into pieces `[a, b]`. Let `s` be any slope, `D` an interval that contains the
derivative on a piece, and `p` a point of it. By the mean value theorem

    f(x) - s x  >=  f(p) - s p + (d - s) (x - p)    for some d in D,

so `f - s x` is nowhere on the piece below

    f(p) - s p + min(0, (min D - s) (b - p), (max D - s) (a - p)),

nor, if `F` contains the range of `f` on the piece, below `min F - max(s a, s b)`. The better of
these bounds is taken on each piece, with `p` the left end, the middle and the right end, and the
smallest over the pieces is the offset of a line of slope `s` below `f`. The error of the first
kind shrinks with the square of the pieces where `s` is about the slope of `f`; where the derivative
is unknown, the second kind is left. The line above is the negated line below `-f`; a line of slope
zero gives the range.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from jaxlirpa._relax.lines import Lines, Point
from jaxlirpa._relax.sampled import supporting_slope
from jaxlirpa._typing import Array, Interval

Range: TypeAlias = Callable[[Interval], Interval]

# Rounding of a handful of products and sums, in units of the last place of the largest.
_ULPS = 8


@dataclasses.dataclass(frozen=True)
class Pieces:
    """What is known of a function on the pieces of a box.

    Attributes:
        boxes: `[count, *shape]`, from left to right.
        points: the left end, the middle and the right end of every piece.
        values: the range of the function at these points.
        image: its range on the pieces.
        slopes: the range of its derivative there.
    """

    boxes: Interval
    points: tuple[Array, Array, Array]
    values: tuple[Interval, Interval, Interval]
    image: Interval
    slopes: Interval

    def negated(self) -> Pieces:
        """The same of `-f`."""
        left, middle, right = map(_negated, self.values)
        return dataclasses.replace(
            self,
            values=(left, middle, right),
            image=_negated(self.image),
            slopes=_negated(self.slopes),
        )

    def offset_below(self, slope: Array) -> Array:
        """A safe offset of a line of that slope below the function."""
        a, b = self.boxes
        lowest = _sure(self.image.lower - jnp.maximum(slope * a, slope * b))
        for p, value in zip(self.points, self.values, strict=True):
            falls = jnp.minimum((self.slopes.lower - slope) * (b - p), 0)
            rises = jnp.minimum((self.slopes.upper - slope) * (a - p), 0)
            least = value.lower - slope * p + jnp.minimum(falls, rises)
            lowest = jnp.maximum(lowest, _sure(least))
        far = jnp.maximum(jnp.abs(a), jnp.abs(b)) * jnp.abs(slope)
        size = jnp.where(jnp.isfinite(lowest), jnp.maximum(jnp.abs(lowest), far), 0)
        return jnp.min(lowest - _ULPS * jnp.finfo(size.dtype).eps * size, axis=0)

    def slope_below(self) -> Array:
        """A slope for a line below the function."""
        joined = [jnp.concatenate([z, z[-1:]]) for z in (self.boxes.lower, self.values[0].lower)]
        xs = joined[0].at[-1].set(self.boxes.upper[-1])
        return supporting_slope(Point(xs, joined[1].at[-1].set(self.values[2].lower[-1])))


@dataclasses.dataclass(frozen=True)
class Unknown:
    """A function, given by the ranges of it and of its derivative over boxes.

    Attributes:
        image_of: encloses the function.
        slopes_of: encloses its derivative, or None where the function may jump.
        count: the number of pieces.
    """

    image_of: Range
    slopes_of: Range | None
    count: int = 32

    @functools.partial(jax.jit, static_argnums=0)
    def image(self, box: Interval) -> Interval:
        """The range, as lines of slope zero."""
        pieces, zero = self._cut(box), jnp.zeros_like(box.lower)
        return Interval(pieces.offset_below(zero), -pieces.negated().offset_below(zero))

    @functools.partial(jax.jit, static_argnums=0)
    def lines(self, box: Interval) -> Lines:
        """Lines of the slopes of the envelopes, with safe offsets."""
        pieces = self._cut(box)
        negated = pieces.negated()
        slope, slope_ = pieces.slope_below(), negated.slope_below()
        offset, offset_ = pieces.offset_below(slope), negated.offset_below(slope_)
        return Lines(slope, offset, -slope_, -offset_)

    def _cut(self, box: Interval) -> Pieces:
        part = (jnp.arange(1, self.count) / self.count).astype(box.lower.dtype)
        part = part.reshape(-1, *[1] * box.lower.ndim)
        inner = jnp.clip(box.lower * (1 - part) + box.upper * part, box.lower, box.upper)
        inner = jax.lax.cummax(inner, 0)  # the same order after rounding
        a = jnp.concatenate([box.lower[None], inner])
        b = jnp.concatenate([inner, box.upper[None]])
        boxes = Interval(a, b)
        points = a, jnp.clip(0.5 * a + 0.5 * b, a, b), b
        together = [jnp.stack([limit, *points]) for limit in boxes]
        lower, upper = self.image_of(Interval(*together))
        whole, left, middle, right = map(Interval, lower, upper)
        everything = Interval(jnp.full_like(a, -jnp.inf), jnp.full_like(a, jnp.inf))
        slopes = self.slopes_of(boxes) if self.slopes_of else everything
        return Pieces(boxes, points, (left, middle, right), whole, slopes)


def _negated(box: Interval) -> Interval:
    return Interval(-box.upper, -box.lower)


def _sure(x: Array) -> Array:
    """A lower bound, or minus infinity where it is no number or an overflow."""
    return jnp.where(x < jnp.inf, x, -jnp.inf)
