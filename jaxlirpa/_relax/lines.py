"""Two lines that enclose a univariate function on an interval, and how to draw them.

Soundness in floating point does not rest on slopes: a slope may carry any rounding error as long
as the offset is chosen so that the line passes on the right side of the points that matter. The
constructors below therefore take a slope as given and compute the offset.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxlirpa._arrays import traced_once, where
from jaxlirpa._intervals import Interval, is_finite, vacuous_where_nan
from jaxlirpa._minmax import maximum
from jaxlirpa._relax.relaxations import Relaxations, between, single
from jaxlirpa._types import Array


class Lines(NamedTuple):
    """`lower_slope * x + lower_offset <= f(x) <= upper_slope * x + upper_offset` on a box."""

    lower_slope: Array
    lower_offset: Array
    upper_slope: Array
    upper_offset: Array


def is_straight(lines: Lines) -> Array:
    """Where both lines are one, so that the function is affine on its box."""
    same = lines.lower_slope == lines.upper_slope
    return same & (lines.lower_offset == lines.upper_offset)


class Relaxation(Protocol):
    """What a domain must know of a univariate function, entry by entry of an array."""

    def image(self, box: Interval) -> Interval:
        """The range of the function over the box."""

    def lines(self, box: Interval) -> Lines:
        """Two lines that enclose the function on a finite box."""


class Adjustable:
    """A relaxation with freedom; a class of its own defines `family`."""

    def family(self, box: Interval) -> Relaxations[Lines]:
        """The lines that enclose the function on a finite box."""
        raise NotImplementedError

    def lines(self, box: Interval) -> Lines:
        """The family's default."""
        return self.family(box).default


def among(candidates: Lines, box: Interval) -> Relaxations[Lines]:
    """A family of some pairs of lines and the means of neighbours; starts in the middle.

    Args:
        candidates: along a leading axis, an odd number.
        box: on which they enclose a function.
    """
    half = jnp.full_like(candidates.lower_slope[0], 0.5)
    nodes = len(candidates.lower_slope)
    return Relaxations((half, half), lambda alpha: _means(candidates, alpha, box), nodes)


def _means(table: Lines, alpha: tuple[Array, Array], box: Interval) -> Lines:
    """Pairs of lines from a table, see `between`; each of the two has a alpha of its own.

    Slope and offset are rounded apart, and numbers below the normal ones may be lost, so the lines
    step out by what that may make on the box.
    """
    (slope, offset), (slope_, offset_) = (
        between(lines, p) for lines, p in zip((table[:2], table[2:]), alpha, strict=True)
    )
    far = maximum(jnp.abs(box.lower), jnp.abs(box.upper))
    far = where(jnp.isfinite(far), far, 0)  # else the lines are constant
    info = jnp.finfo(far.dtype)
    room, room_ = (
        4 * (info.eps * jnp.max(jnp.abs(s) * far + jnp.abs(o), 0) + info.tiny * (1 + far))
        for s, o in (table[:2], table[2:])
    )
    return Lines(slope, offset - room, slope_, offset_ + room_)


def tabulated(family: Relaxations[Lines], box: Interval) -> Relaxations[Lines]:
    """A family as means of a few of its members, which take no time to compute.

    Where a line of the table is missing, because a value overflows, there is none at all.
    """
    if not family.start:
        return family
    shape = family.start[0].shape
    shares = jnp.linspace(0, 1, family.nodes, dtype=family.start[0].dtype)
    shares = jnp.broadcast_to(shares.reshape(-1, *[1] * len(shape)), (family.nodes, *shape))
    members = jax.vmap(family.at)((shares, shares))
    known = [
        jnp.all(jnp.isfinite(slope) & jnp.isfinite(offset), 0)
        for slope, offset in (members[:2], members[2:])
    ]
    table = Lines(*(where(known[i // 2], x, 0) for i, x in enumerate(members)))

    def at(alpha: tuple[Array, Array]) -> Lines:
        lines = _means(table, alpha, box)
        return lines._replace(
            lower_offset=where(known[0], lines.lower_offset, -jnp.inf),
            upper_offset=where(known[1], lines.upper_offset, jnp.inf),
        )

    return family._replace(at=at)


def family(relaxation: Relaxation, box: Interval) -> Relaxations[Lines]:
    """A relaxation's family of lines, of a single member where it has no freedom."""
    if isinstance(relaxation, Adjustable):
        return relaxation.family(box)
    return single(relaxation.lines(box))


def relax(relaxation: Relaxation, box: Interval) -> Lines:
    """The relaxation's lines, or constant ones where the box is not finite.

    A NaN or infinite limit must not slip through a comparison into a confident line: there the
    lines are the range of the function, and minus and plus infinity where that is NaN.
    """
    safe, guarded = _guard(relaxation, box)
    return guarded(relaxation.lines(safe))


def relax_family(relaxation: Relaxation, box: Interval) -> Relaxations[Lines]:
    """As `relax`, all members of the relaxation's family."""
    safe, guarded = _guard(relaxation, box)
    return family(relaxation, safe).map(guarded)


def _guard(relaxation: Relaxation, box: Interval) -> tuple[Interval, Callable[[Lines], Lines]]:
    """A finite box, and what puts constant lines where the given one is not."""
    finite = is_finite(box)
    zero = jnp.zeros_like(box.lower)
    image = vacuous_where_nan(relaxation.image(box))
    otherwise = Lines(zero, image.lower, zero, image.upper)

    def guarded(lines: Lines) -> Lines:
        return Lines(*(where(finite, x, y) for x, y in zip(lines, otherwise, strict=True)))

    return Interval(*(where(finite, limit, zero) for limit in box)), guarded


@traced_once()
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


@traced_once()
def secant(a: Point, b: Point) -> Array:
    """Slope of the chord between two points.

    Zero where the two coincide or the quotient is not finite; either is harmless, see the
    module's first paragraph. Both branches of the `where` have finite derivatives.
    """
    width = b.x - a.x
    proper = (width != 0) & jnp.isfinite(width)
    slope = (b.y - a.y) / where(proper, width, jnp.ones_like(width))
    return where(proper & jnp.isfinite(slope), slope, jnp.zeros_like(slope))


def offset_above(slope: Array, points: Sequence[Point], touched: Point | None = None) -> Array:
    """Smallest offset whose line is on or above every point.

    Args:
        slope: of the line.
        points: of the function.
        touched: where the line is known to touch the function but for rounding, if it is. Its
            offset is what is derived then, whichever of equal offsets rounding prefers.
    """
    offset = functools.reduce(jnp.maximum, [p.y - slope * p.x for p in points])
    return offset if touched is None else with_derivative(offset, touched.y - slope * touched.x)


def offset_below(slope: Array, points: Sequence[Point], touched: Point | None = None) -> Array:
    """Largest offset whose line is on or below every point; see `offset_above`."""
    offset = functools.reduce(jnp.minimum, [p.y - slope * p.x for p in points])
    return offset if touched is None else with_derivative(offset, touched.y - slope * touched.x)


@jax.custom_jvp
def with_derivative(value: Array, of: Array) -> Array:
    """A value, with the derivative of another one."""
    del of
    return value


@with_derivative.defjvp
def _(values: tuple[Array, Array], moves: tuple[Array, Array]) -> tuple[Array, Array]:
    return values[0], moves[1]
