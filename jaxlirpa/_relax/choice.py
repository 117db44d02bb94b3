"""One of two values, where it may be unknown which.

Where the choice is certain, the value is the chosen one. Where it is not, it lies between the
smaller and the larger of the two. With `d = a - b` in `[l, u]` and `l < 0 < u`, the chord of relu
gives `relu(d) <= s (d - l)` for `s = u / (u - l)`, and so

    max(a, b) = b + relu(d) <= s a + (1 - s) b - s l
    min(a, b) = a - relu(d) >= (1 - s) a + s b + s l

which hold for `s = 0` where `u <= 0`, and for `s = 1` with `l = 0` in its place where `l >= 0`.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxlirpa._arrays import where
from jaxlirpa._intervals import Interval
from jaxlirpa._minmax import maximum, minimum
from jaxlirpa._relax.planes import Plane, Planes
from jaxlirpa._types import Array


class Choice:
    """`b` where a truth value holds, else `a`; operands: the truth value, `a`, `b`.

    A truth value is known to be in a box of truth values: False to True where it is unknown.
    """

    def image(self, boxes: Sequence[Interval]) -> Interval:
        """The hull of what may be chosen."""
        holds, a, b = boxes
        never, always = ~holds.upper, holds.lower

        def side(x: Array, y: Array, hull: Array) -> Array:
            return where(always, y, where(never, x, hull))

        return Interval(
            side(a.lower, b.lower, minimum(a.lower, b.lower)),
            side(a.upper, b.upper, maximum(a.upper, b.upper)),
        )

    def planes(self, boxes: Sequence[Interval]) -> Planes:
        """The chosen one, or planes around both."""
        holds, a, b = boxes
        certain = holds.lower == holds.upper
        chosen = holds.lower.astype(a.lower.dtype)
        least, most = a.lower - b.upper, a.upper - b.lower
        open = (least < 0) & (most > 0)
        share = where(open, most / where(open, most - least, 1), 1.0 * (most > 0))
        share = share.astype(a.lower.dtype)
        gap = where(certain, 0, share * minimum(least, 0))
        below_b = where(certain, chosen, share)
        above_b = where(certain, chosen, 1 - share)
        return Planes(
            Plane((None, 1 - below_b, below_b), gap), Plane((None, 1 - above_b, above_b), -gap)
        )
