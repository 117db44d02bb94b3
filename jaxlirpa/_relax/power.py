"""Powers `x**p` of a perturbed base, with a known exponent per entry.

For `x > 0` the sign of `p (p - 1)` decides: convex, or concave for `0 < p < 1`. A whole exponent
admits negative bases. There an even power is convex, and an odd one the point reflection of its
positive branch: concave where that is convex. A box around zero on which an odd power bends takes
the lines of a function with a bend at 0.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from jaxlirpa._arrays import where
from jaxlirpa._intervals import Interval
from jaxlirpa._relax.convex import Convex
from jaxlirpa._relax.curved import Curve
from jaxlirpa._relax.lines import Adjustable, Lines
from jaxlirpa._relax.relaxations import Relaxations
from jaxlirpa._relax.smooth import Smooth
from jaxlirpa._types import Array


@dataclasses.dataclass(frozen=True)
class Power(Adjustable):
    """`x**p`, on boxes on which it is defined.

    Attributes:
        exponent: `p`, of the box's precision; broadcasts to the box.
    """

    exponent: Array

    def defined(self, box: Interval) -> Array:
        """No pole in the box, and no negative number under a power that is not whole."""
        p, right, left = self.exponent, box.lower > 0, box.upper < 0
        whole, fraction = (p >= 0) | right | left, right | ((p >= 0) & (box.lower >= 0))
        return where(self._whole(), whole, fraction) & (box.lower <= box.upper)

    def image(self, box: Interval) -> Interval:
        """The extremes are at the ends, and at zero for even powers."""
        # A box with a pole at zero is not defined, so that the turn is never that pole.
        return Convex(self._smooth(), turn=0.0).image(box)

    def family(self, box: Interval) -> Relaxations[Lines]:
        """Chord and tangent, or the lines around a bend at 0."""
        smooth, odd = self._smooth(), self._odd()
        falling = (self.exponent > 0) & (self.exponent < 1)
        straight = Convex(smooth, lambda b: falling | (odd & (b.upper <= 0)), 0.0).family(box)
        across = odd & (box.lower < 0) & (box.upper > 0)
        bent = Curve(smooth, (0.0,), convex=False).family(box)

        def at(alpha: tuple[Array, Array]) -> Lines:
            pairs = zip(bent.at(alpha), straight.at(alpha), strict=True)
            return Lines(*(where(across, b, s) for b, s in pairs))

        starts = zip(bent.start, straight.start, strict=True)
        return Relaxations(tuple(where(across, b, s) for b, s in starts), at)

    def _whole(self) -> Array:
        return self.exponent == jnp.floor(self.exponent)

    def _odd(self) -> Array:
        return self._whole() & (2 * jnp.floor(self.exponent / 2) != self.exponent)

    def _smooth(self) -> Smooth:
        p = self.exponent

        def power(x: Array, p: Array) -> Array:
            return jax.lax.pow(x, jnp.broadcast_to(p, x.shape))

        def derivative(x: Array) -> Array:
            return p * power(x, where(p == 0, 1, p - 1))

        return Smooth(lambda x: power(x, p), derivative)
