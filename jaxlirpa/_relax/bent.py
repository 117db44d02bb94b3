"""Functions with known bends: between two of them `f` is convex or concave, and that is all.

The slopes are those of `_relax/curved.py`, which are the best ones where the slopes of the pieces
are separated. Here nothing of the kind is assumed, so the offset is found for the slope as it is.
Below `f`, with slope `s`, that is the smallest value of `f(x) - s x`:

* on a concave piece it is at an end of the piece;
* on a convex piece `[a, b]` take any `p <= q` in it with `p = a` or `f'(p) <= s`, and with `q = b`
  or `f'(q) >= s`. Left of `p` and right of `q` the function `f - s x` is nowhere below its value at
  that point, because the tangent there is below `f`. In between it is nowhere below either of

      f(p) - s p - max(s - f'(p), 0) (q - p)    and    f(q) - s q - max(f'(q) - s, 0) (q - p).

  Bisection makes the gap between `p` and `q` small; soundness does not need it to end.

A line of slope zero gives the range. The loops are compiled once for a function and a shape.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxlirpa._arrays import where
from jaxlirpa._intervals import Interval
from jaxlirpa._minmax import clip, maximum, minimum
from jaxlirpa._relax.curved import Curve
from jaxlirpa._relax.lines import Adjustable, Lines, among
from jaxlirpa._relax.relaxations import Relaxations
from jaxlirpa._relax.smooth import Smooth, enclose, offsets_of
from jaxlirpa._types import Array

_STEPS = 40


@dataclasses.dataclass(frozen=True)
class Bent(Adjustable):
    """A continuous function that is convex and concave in turn, with slopes of any size.

    Attributes:
        smooth: the function.
        bends: where convex and concave pieces meet, from left to right.
        convex: whether the first piece is convex.
    """

    smooth: Smooth
    bends: tuple[float, ...]
    convex: bool

    @functools.partial(jax.jit, static_argnums=0)
    def image(self, box: Interval) -> Interval:
        """The range: as far as a line of slope zero may be moved."""
        return self.offsets(jnp.zeros_like(box.lower), box)

    def offsets(self, slope: Array, box: Interval) -> Interval:
        """As far as a line of any slope may be moved."""
        return offsets_of(slope, self._below(slope, box), self._above(-slope, box), box)

    @functools.partial(jax.jit, static_argnums=0)
    def lines(self, box: Interval) -> Lines:
        """The slopes of a curve whose pieces are separated, with offsets that are safe."""
        return self.family(box).default

    def family(self, box: Interval) -> Relaxations[Lines]:
        """Those lines, the ones at either end of the curve's families, and their means."""
        proposed, image = Curve(self.smooth, self.bends, self.convex).family(box), self.image(box)
        slopes = [proposed.first, proposed.default, proposed.last]

        def safe(lines: Lines) -> Lines:
            lower = self._below(lines.lower_slope, box)
            return enclose(lower, self._above(-lines.upper_slope, box), image)

        return among(jax.vmap(safe)(jax.tree.map(lambda *x: jnp.stack(x), *slopes)), box)

    def _below(self, slope: Array, box: Interval) -> tuple[Array, Array]:
        return _line_below(self.smooth, self._pieces(self.convex), slope, box)

    def _above(self, slope: Array, box: Interval) -> tuple[Array, Array]:
        """A line below `-f`, whose convex pieces are the concave ones of `f`."""
        return _line_below(self.smooth.negated(), self._pieces(not self.convex), slope, box)

    def _pieces(self, convex: bool) -> list[tuple[float, float, bool]]:
        """The limits of every piece, and whether it is convex, the first one being so or not."""
        limits = itertools.pairwise([-math.inf, *self.bends, math.inf])
        return [(low, high, (i % 2 == 0) == convex) for i, (low, high) in enumerate(limits)]


def _line_below(
    f: Smooth, pieces: Sequence[tuple[float, float, bool]], slope: Array, box: Interval
) -> tuple[Array, Array]:
    """The highest safe line of that slope below `f`, or one at minus infinity."""
    points = [f.point(x) for x in box]
    gaps = [jnp.zeros_like(slope)]
    for low, high, convex in pieces:
        a, b = (clip(limit, *box) for limit in (low, high))
        points += [f.point(a), f.point(b)]
        if not convex:
            continue
        p, q = _bracket(f, slope, a, b)
        points += [f.point(p), f.point(q)]
        below, above = f.derivative(p), f.derivative(q)
        gap = minimum(maximum(slope - below, 0), maximum(above - slope, 0)) * (q - p)
        gaps.append(gap)
    slope, offset = f.below(slope, box.lower, points)
    gap = functools.reduce(maximum, gaps)
    known = gap < jnp.inf
    return slope, where(known, offset - where(known, gap, 0), -jnp.inf)


def _bracket(f: Smooth, slope: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """Two points of a convex piece between which its derivative passes a slope."""
    slope, a, b = jax.lax.stop_gradient((slope, a, b))

    def halve(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        p, q = bracket
        middle = clip(0.5 * p + 0.5 * q, p, q)
        flat = f.derivative(middle) <= slope
        steep = f.derivative(middle) >= slope
        return where(flat, middle, p), where(steep, middle, q)

    p, q = jax.lax.fori_loop(0, _STEPS, halve, (a, b))
    return p, q
