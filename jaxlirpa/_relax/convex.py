"""Convex and concave functions: a tangent on one side, the chord on the other.

Let `f` be convex on `[l, u]`, and `s` any number. `f(x) - s x` is convex, so it is largest at an
end: a line of slope `s` that is above `f` at both ends is above it everywhere. A tangent is below
`f` everywhere, and below at `l`, `u` and its own point in particular, so one offset serves for
both lines: the extreme one over these three points. A concave function is the mirror image.

Of all tangents the one at the midpoint leaves the smallest area, because the mean of a line over
the box is its value in the middle. It stays away from poles at the ends. Powers take the tangent
nearest to zero instead: below a square it is nowhere negative, so that a sum of squares has a
bound that is not, and the least value of the function is also that of the line.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from jaxlirpa._arrays import where
from jaxlirpa._intervals import Interval
from jaxlirpa._minmax import clip, maximum, minimum
from jaxlirpa._relax.lines import Adjustable, Lines, secant
from jaxlirpa._relax.relaxations import Relaxations, alpha_of, mix
from jaxlirpa._relax.smooth import Smooth, enclose, midpoint
from jaxlirpa._types import Array


def _never(box: Interval) -> bool:
    del box
    return False


def always(box: Interval) -> bool:
    """Concave on every box."""
    del box
    return True


def nearest_to_zero(box: Interval) -> Array:
    """The number of least magnitude in the box."""
    return clip(0.0, box.lower, box.upper)


@dataclasses.dataclass(frozen=True)
class Convex(Adjustable):
    """A function that is convex, or concave, on every box it is asked for.

    Attributes:
        smooth: the function.
        concave: on which boxes it is concave.
        turn: where it has its least or largest value, if that is inside its domain.
        touch: where the tangent is taken by default; it may be taken anywhere in the box.
    """

    smooth: Smooth
    concave: Callable[[Interval], Array | bool] = _never
    turn: float | None = None
    touch: Callable[[Interval], Array] = midpoint

    def image(self, box: Interval) -> Interval:
        """The extremes are at the ends or at the turn."""
        ends = [self.smooth.point(x) for x in box]
        if self.turn is None:
            return self.smooth.range(ends)
        return self.smooth.range([*ends, self.smooth.point(clip(self.turn, *box))])

    def slope_range(self, box: Interval) -> Interval:
        """The derivative is monotone, so its extremes are at the ends."""
        ends = [self.smooth.slopes(x) for x in box]
        return Interval(
            minimum(*(end.lower for end in ends)), maximum(*(end.upper for end in ends))
        )

    def family(self, box: Interval) -> Relaxations[Lines]:
        """The tangent at a point of the box, and the chord."""
        image = self.image(box)

        def at(alpha: tuple[Array, Array]) -> Lines:
            concave = self.concave(box)
            touch = clip(mix(where(concave, *alpha[::-1]), *box), *box)
            start, _, end = points = [self.smooth.point(x) for x in (box.lower, touch, box.upper)]
            chord, tangent = secant(start, end), self.smooth.derivative(touch)
            lower = self.smooth.below(where(concave, chord, tangent), touch, points)
            mirrored = [p._replace(y=-p.y) for p in points]
            upper = self.smooth.below(where(concave, -tangent, -chord), touch, mirrored)
            return enclose(lower, upper, image)

        start = alpha_of(self.touch(box), *box)
        return Relaxations((start, start), at)
