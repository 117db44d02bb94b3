"""Functions that bend both ways at known places: S-shapes, bells, silu and its kin.

The line below `f` on `[l, u]` is derived here; the line above is the negated line below `-f`. The
bends split the box into pieces on which `f` is convex or concave. The best line, measured in the
middle `m` of the box (the mean of a line is its value there), touches the convex envelope of `f`
over `m`. It is one of these:

* the tangent at `t` in a convex piece. It is below `f` on that piece. On a concave piece `f` minus
  the line is smallest at an end of the piece, so there only the bends and the ends of the box
  matter. Let `t` move right: the tangent's value at `l` falls and at `u` rises (its derivative is
  `f''(t) (x - t)`). So the tangents that pass below `f(l)` are those from some `first` on, and
  those below `f(u)` the ones up to some `last`; the best `t` is the one nearest to `m` among them.
  The others are no worse elsewhere: they are the family's freedom.
* If no tangent passes below both ends, the chord. Were it above `f` somewhere, then somewhere in a
  convex piece, and a tangent there parallel to it would pass below both ends.

Another convex piece does not come in the way as long as slopes are *separated*: all slopes of `f`
in a convex piece are at least those in the convex pieces to the right of it, and all slopes in a
concave piece at most those in the concave pieces to the right. Then `f` minus a tangent falls
(rises) on every convex piece to the right (left) of it, down to a bend or an end of the box. This
holds for all functions of the package, and for every function with at most three pieces that is
linear, or bounded, far out on both sides; a test holds it against samples.

Where a piece ends in a kink, the line through it may be as steep as the far end allows.

`first` and `last` come from bisection, and soundness does not need them: whatever `t` is, the
offset is the one with which the line passes below `f` at `t`, at all bends and at both ends.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlirpa._arrays import where
from jaxlirpa._intervals import Interval
from jaxlirpa._minmax import clip, maximum, minimum
from jaxlirpa._relax.lines import Adjustable, Lines, Point, secant, with_derivative
from jaxlirpa._relax.relaxations import Relaxations, alpha_of, mix
from jaxlirpa._relax.smooth import Smooth, enclosing, midpoint
from jaxlirpa._types import Array

_STEPS = 36


@dataclasses.dataclass(frozen=True)
class Curve(Adjustable):
    """A function that is convex and concave in turn.

    Attributes:
        smooth: the function; slopes of its pieces are separated, see the module.
        bends: where convex and concave pieces meet, from left to right.
        convex: whether the first piece is convex.
        turns: where it has its interior extrema.
    """

    smooth: Smooth
    bends: Sequence[Array | float]
    convex: bool
    turns: Sequence[float] = ()

    def image(self, box: Interval) -> Interval:
        """The extremes are at the ends or at a turn."""
        turns = [clip(x, box.lower, box.upper) for x in self.turns]
        return self.smooth.range([self.smooth.point(x) for x in (*box, *turns)])

    def family(self, box: Interval) -> Relaxations[Lines]:
        """Tangents and chords, see the module's derivation."""
        limits = [-math.inf, *self.bends, math.inf]
        pieces = list(itertools.pairwise(limits))
        first, second = pieces[::2], pieces[1::2]
        convex, concave = (first, second) if self.convex else (second, first)
        bends = [clip(x, box.lower, box.upper) for x in self.bends]
        below = _lines_below(self.smooth, convex, bends, box)
        above = _lines_below(self.smooth.negated(), concave, bends, box)
        return enclosing(below, above, self.image(box))


Piece = tuple[Array | float, Array | float]


class _Tangents(NamedTuple):
    """The sound tangents of one convex piece: where the first and the last one touch, if any."""

    piece: Piece
    first: Array
    last: Array
    sound: Array


def _lines_below(
    f: Smooth, convex: Sequence[Piece], bends: Sequence[Array], box: Interval
) -> Relaxations[tuple[Array, Array]]:
    """Lines below `f`, given its convex pieces and its bends in the box.

    They are the sound tangents of one piece: of that which has the best one.
    """
    middle = midpoint(box)
    ends = f.point(box.lower), f.point(box.upper)
    pieces = [_tangents(f, piece, ends) for piece in convex]
    start, height = jnp.zeros_like(middle), jnp.full_like(middle, -jnp.inf)
    chosen: list[Array] = []
    for tangents in pieces:
        nearest = alpha_of(middle, tangents.first, tangents.last)
        touch, slope = _tangent(f, tangents, ends, nearest)
        value = touch.y + slope * (middle - touch.x)
        better = tangents.sound & (value > height)
        start, height = where(better, nearest, start), where(better, value, height)
        chosen = [c & ~better for c in chosen] + [better]

    def line(alpha: Array) -> tuple[Array, Array]:
        best, slope = box.lower, secant(*ends)
        touched = []
        for tangents, choose in zip(pieces, chosen, strict=True):
            touch, tangent = _tangent(f, tangents, ends, alpha)
            best, slope = where(choose, touch.x, best), where(choose, tangent, slope)
            touched.append(touch)
        return f.below(slope, best, [*ends, *map(f.point, bends), *touched])

    return Relaxations(start, line)


def _tangents(f: Smooth, piece: Piece, ends: tuple[Point, Point]) -> _Tangents:
    """Which tangents of a convex piece are below the function at both ends of the box."""
    start, end = ends
    left, right = piece
    inside = (start.x < right) & (end.x > left)
    low, high = clip(left, start.x, end.x), clip(right, start.x, end.x)
    first, last, sound = low, high, inside
    if not _outer(left):
        free = start.x >= left
        first = where(free, low, _nearest_sound(f, piece, low, high, start))
        sound &= free | _passes(f, piece, high, start)
    if not _outer(right):
        free = end.x <= right
        last = where(free, high, _nearest_sound(f, piece, high, low, end))
        sound &= free | _passes(f, piece, low, end)
    return _Tangents(piece, first, last, sound & (first <= last))


def _tangent(
    f: Smooth, tangents: _Tangents, ends: tuple[Point, Point], alpha: Array
) -> tuple[Point, Array]:
    """One of the tangents: where it touches, and how steep it is."""
    start, end = ends
    piece, first, last, _ = tangents
    low, high = (clip(limit, start.x, end.x) for limit in piece)
    at = clip(mix(alpha, first, last), minimum(first, last), maximum(first, last))
    # At an end of the box it moves with that end: of equal offsets either may be derived.
    at = where(at == start.x, start.x, where(at == end.x, end.x, at))
    slope, touch = _slope(f, at, piece), f.point(at)
    moved = _slope(f, mix(alpha, *jax.lax.stop_gradient((first, last))), piece)
    # A tangent through an end of the box is also the chord from there to the point where it
    # touches: the slope's derivative is the chord's, as the chord does not change to first order
    # when that point moves with the end. By its alpha it moves as any other.
    for bound, end_, limited in ((low, start, alpha <= 0), (high, end, alpha >= 1)):
        chord = secant(end_, touch)
        kink = limited & (at == bound) & (at != end_.x)
        steeper = jnp.maximum(slope, chord) if end_ is end else jnp.minimum(slope, chord)
        through = with_derivative(slope, chord + moved)
        slope = where(kink, steeper, where(limited & (at != end_.x), through, slope))
    return touch, slope


def _outer(limit: Array | float) -> bool:
    """Whether a piece reaches to infinity."""
    return isinstance(limit, float) and math.isinf(limit)


def _slope(f: Smooth, at: Array, piece: Piece) -> Array:
    """The derivative from within a piece, where the slope may jump at its ends."""
    dtype = at.dtype
    for limit, inwards in zip(piece, (math.inf, -math.inf), strict=True):
        if isinstance(limit, float) and not math.isinf(limit):
            tiny = jnp.finfo(dtype).tiny * math.copysign(1, inwards)
            inside = np.nextafter(np.asarray(limit, dtype), np.asarray(inwards, dtype))
            at = where(at == limit, inside if limit else tiny, at)
    return f.derivative(at)


def _passes(f: Smooth, piece: Piece, at: Array, end: Point) -> Array:
    """Whether the tangent at `at` is below the function at an end of the box."""
    return f.function(at) + _slope(f, at, piece) * (end.x - at) <= end.y


def _nearest_sound(f: Smooth, piece: Piece, near: Array, far: Array, end: Point) -> Array:
    """The point between `near` and `far` that is nearest to `near` and whose tangent passes `end`.

    By bisection; `far` where there is none. It is a constant for differentiation.
    """
    near, far, end = jax.lax.stop_gradient((near, far, end))

    def halve(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        beyond, sound = bracket
        middle = _between(beyond, sound)
        ok = _passes(f, piece, middle, end)
        return where(ok, beyond, middle), where(ok, middle, sound)

    beyond, sound = jax.lax.fori_loop(0, _STEPS, halve, (near, far))
    del beyond
    return where(_passes(f, piece, near, end), near, sound)


def _between(a: Array, b: Array) -> Array:
    """A number between two: the middle, or where they are far apart that of the magnitudes."""
    small, large = minimum(jnp.abs(a), jnp.abs(b)), maximum(jnp.abs(a), jnp.abs(b))
    geometric = jnp.sqrt(1 + small) * jnp.sqrt(1 + large) - 1
    geometric = where(maximum(a, b) > 0, geometric, -geometric)
    one_side = (minimum(a, b) >= 0) | (maximum(a, b) <= 0)
    far_apart = one_side & (large > 2 * (1 + small))
    return where(far_apart, geometric, 0.5 * a + 0.5 * b)
