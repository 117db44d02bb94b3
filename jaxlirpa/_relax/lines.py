"""Two lines that enclose a univariate function on an interval, and how to draw them.

Soundness in floating point does not rest on slopes: a slope may carry any rounding error as long
as the offset is chosen so that the line passes on the right side of the points that matter. The
constructors below therefore take a slope as given and compute the offset.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import jax.numpy as jnp

from jaxlirpa._typing import Array, Interval, vacuous_where_nan


class Lines(NamedTuple):
    """`lower_slope * x + lower_offset <= f(x) <= upper_slope * x + upper_offset` on a box."""

    lower_slope: Array
    lower_offset: Array
    upper_slope: Array
    upper_offset: Array


class Relaxation(Protocol):
    """What a domain must know of a univariate function, entry by entry of an array."""

    def image(self, box: Interval) -> Interval:
        """The range of the function over the box."""

    def lines(self, box: Interval) -> Lines:
        """Two lines that enclose the function on a finite box."""


def relax(relaxation: Relaxation, box: Interval) -> Lines:
    """The relaxation's lines, or constant ones where the box is not finite.

    A NaN or infinite limit must not slip through a comparison into a confident line: there the
    lines are the range of the function, and minus and plus infinity where that is NaN.
    """
    finite = jnp.isfinite(box.lower) & jnp.isfinite(box.upper)
    zero = jnp.zeros_like(box.lower)
    safe = Interval(jnp.where(finite, box.lower, zero), jnp.where(finite, box.upper, zero))
    lines = relaxation.lines(safe)
    image = vacuous_where_nan(relaxation.image(box))
    return Lines(
        jnp.where(finite, lines.lower_slope, zero),
        jnp.where(finite, lines.lower_offset, image.lower),
        jnp.where(finite, lines.upper_slope, zero),
        jnp.where(finite, lines.upper_offset, image.upper),
    )


def around(lines: Lines, x: Array, y: Array) -> Lines:
    """Lines around `f` as functions of `x' - x`, with values `f(x') - y`."""
    return Lines(
        lines.lower_slope,
        lines.lower_slope * x + lines.lower_offset - y,
        lines.upper_slope,
        lines.upper_slope * x + lines.upper_offset - y,
    )


class Point(NamedTuple):
    """A point of a function's graph."""

    x: Array
    y: Array


def secant(a: Point, b: Point) -> Array:
    """Slope of the chord from `a` to `b`, where `a.x <= b.x`.

    Zero where the two coincide or the quotient is not finite; either is harmless, see the
    module's first paragraph. Both branches of the `where` have finite derivatives.
    """
    width = b.x - a.x
    proper = (width > 0) & jnp.isfinite(width)
    slope = (b.y - a.y) / jnp.where(proper, width, jnp.ones_like(width))
    return jnp.where(proper & jnp.isfinite(slope), slope, jnp.zeros_like(slope))


def offset_above(slope: Array, points: Sequence[Point]) -> Array:
    """Smallest offset whose line is on or above every point."""
    return functools.reduce(jnp.maximum, [p.y - slope * p.x for p in points])


def offset_below(slope: Array, points: Sequence[Point]) -> Array:
    """Largest offset whose line is on or below every point."""
    return functools.reduce(jnp.minimum, [p.y - slope * p.x for p in points])
