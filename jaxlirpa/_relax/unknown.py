"""Differentiable functions of which only intervals are known: of values, and of slopes.

The box is split into equal pieces. On a piece `[a, b]` with slopes in `[p, q]`, a line of slope `s`
leaves `g(x) = f(x) - s x` with slopes in `[p - s, q - s]`, so

    g(x) >= g(a) + (p - s) (x - a)    and    g(x) >= g(b) - (q - s) (b - x)

If the first does not fall, its least value is `g(a)`; if the second does not rise, it is `g(b)`.
Else one falls and the other rises, and the smaller of the two at *any* point is at most their value
where they meet, which is the bound that is wanted: no care is needed about where that is. The range
of `f` on the piece gives another bound, and the better one counts. The least over all pieces is a
sound offset for the slope `s`; the slope zero gives the range of the function. The best line in
the middle of the box and those along the chords of its halves, and their means, are the family.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

import jax.numpy as jnp

from jaxlirpa._arrays import where
from jaxlirpa._intervals import Interval, vacuous_where_nan
from jaxlirpa._minmax import clip, maximum
from jaxlirpa._relax.lines import Adjustable, Lines, among
from jaxlirpa._relax.relaxations import Relaxations
from jaxlirpa._relax.smooth import enclose
from jaxlirpa._types import Array

Extension: TypeAlias = Callable[[Interval], Interval]


@dataclasses.dataclass(frozen=True)
class Unknown(Adjustable):
    """A differentiable function.

    Attributes:
        values: an interval around the values of the function on a box.
        slopes: an interval around its derivatives there.
        pieces: into how many pieces a box is split; a multiple of four.
    """

    values: Extension
    slopes: Extension
    pieces: int = 16

    def image(self, box: Interval) -> Interval:
        """The range over all pieces."""
        lower, upper = self.offsets(jnp.zeros_like(box.lower), box)
        whole = self.values(box)
        return vacuous_where_nan(
            Interval(jnp.fmax(lower, whole.lower), jnp.fmin(upper, whole.upper))
        )

    def offsets(self, slope: Array, box: Interval) -> Interval:
        """The least and the most that a line of this slope leaves of the function on any piece."""
        below = _Pieces(self.values, self.slopes, self.pieces, box)
        return Interval(below.offset(slope), -self._negated(box).offset(-slope))

    def family(self, box: Interval) -> Relaxations[Lines]:
        """The best of a few chords on either side, and those of the halves."""
        image = self.image(box)
        below = _Pieces(self.values, self.slopes, self.pieces, box).lines()
        above = self._negated(box).lines()
        lines = [enclose(*pair, image) for pair in zip(below, above, strict=True)]
        return among(Lines(*map(jnp.stack, zip(*lines, strict=True))), box)

    def _negated(self, box: Interval) -> _Pieces:
        def values(x: Interval) -> Interval:
            lower, upper = self.values(x)
            return Interval(-upper, -lower)

        def slopes(x: Interval) -> Interval:
            lower, upper = self.slopes(x)
            return Interval(-upper, -lower)

        return _Pieces(values, slopes, self.pieces, box)


class _Pieces:
    """A split box, with what is known of the function at its nodes and on its pieces."""

    def __init__(self, values: Extension, slopes: Extension, count: int, box: Interval):
        weight = (jnp.arange(count + 1, dtype=box.lower.dtype) / count).reshape(
            -1, *[1] * box.lower.ndim
        )
        lower, upper = box.lower[None], box.upper[None]
        self.nodes = clip((1 - weight) * lower + weight * upper, lower, upper)
        piece = Interval(self.nodes[:-1], self.nodes[1:])
        self.count = count
        self.at = values(Interval(self.nodes, self.nodes)).lower
        self.least = values(piece).lower
        self.slopes = slopes(piece)

    def offset(self, slope: Array) -> Array:
        """A sound offset for a line of this slope below the function; minus infinity if none."""
        a, b = self.nodes[:-1], self.nodes[1:]
        left, right = self.at[:-1] - slope * a, self.at[1:] - slope * b
        fall, rise = self.slopes.lower - slope, self.slopes.upper - slope
        apart = where(rise > fall, rise - fall, 1)
        meet = clip((left - right + rise * (b - a)) / apart, 0, b - a)
        crossed = jnp.minimum(left + fall * meet, right - rise * (b - a - meet))
        bound = where(fall >= 0, left, where(rise <= 0, right, crossed))
        ranged = self.least - maximum(slope * a, slope * b)
        lowest = jnp.fmax(bound, ranged).min(0)
        return where(jnp.isfinite(lowest), lowest - self._room(slope), -jnp.inf)

    def lines(self) -> list[tuple[Array, Array]]:
        """Lines along the left half and the right half, and between them the best one."""
        n = self.count
        return [self._along(0, n // 2), self._best(), self._along(n // 2, n)]

    def _along(self, i: int, j: int) -> tuple[Array, Array]:
        """The highest line that has the slope of a chord."""
        width = self.nodes[j] - self.nodes[i]
        slope = (self.at[j] - self.at[i]) / where(width > 0, width, 1)
        slope = where(jnp.isfinite(slope) & (width > 0), slope, 0)
        offset = self.offset(slope)
        return where(offset > -jnp.inf, slope, 0), offset

    def _best(self) -> tuple[Array, Array]:
        """The highest line in the middle among chords of the nodes."""
        n, middle = self.count, self.nodes[self.count // 2]
        pairs = [(0, n), (n // 4, 3 * n // 4), (n // 2 - 1, n // 2 + 1), (0, n // 2), (n // 2, n)]
        best, height = jnp.zeros_like(middle), self.offset(jnp.zeros_like(middle))
        offset = height
        for i, j in pairs:
            slope, found = self._along(i, j)
            better = slope * middle + found > height
            best, offset = where(better, slope, best), where(better, found, offset)
            height = where(better, slope * middle + found, height)
        return best, offset

    def _room(self, slope: Array) -> Array:
        """What rounding may have done to the sums above."""
        far, width = jnp.abs(self.nodes).max(0), self.nodes[-1] - self.nodes[0]
        steep = maximum(jnp.abs(self.slopes.lower), jnp.abs(self.slopes.upper)).max(0)
        steep = where(jnp.isfinite(steep), steep, 0) + jnp.abs(slope)
        high = where(jnp.isfinite(self.at), jnp.abs(self.at), 0).max(0)
        return 16 * jnp.finfo(far.dtype).eps * (jnp.abs(slope) * far + steep * width + high)
