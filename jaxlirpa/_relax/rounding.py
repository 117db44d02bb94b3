"""Rounding to fewer digits: a staircase within half a step of the identity, or anything so near."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxlirpa._arrays import where
from jaxlirpa._intervals import Interval, is_finite
from jaxlirpa._minmax import maximum, minimum
from jaxlirpa._relax.lines import Lines, Point, offset_above, offset_below, secant
from jaxlirpa._types import Array


@dataclasses.dataclass(frozen=True)
class Rounding:
    """Rounding to the nearest number of a shorter format.

    A normal number moves by at most `eps / 2` of its modulus, a subnormal one by no more than the
    smallest normal number.

    Attributes:
        function: the rounding.
        eps: distance from 1 to the next number of the format.
        tiny: its smallest normal number.
    """

    function: Callable[[Array], Array]
    eps: float
    tiny: float

    def image(self, box: Interval) -> Interval:
        """Rounding keeps the order of numbers."""
        return Interval(self.function(box.lower), self.function(box.upper))

    def lines(self, box: Interval) -> Lines:
        """Two lines of slope one, half a step away; where a value overflows, none."""
        largest = maximum(jnp.abs(box.lower), jnp.abs(box.upper))
        step = largest * self.eps + self.tiny
        room = where(is_finite(self.image(box)), step, jnp.inf)
        one = jnp.ones_like(step)
        return Lines(one, -room, one, room)


def growth(dtype: Any, count: int) -> float:
    """By how much of its modulus so many roundings to a format may move a normal number.

    A little more, for the rounding of the longer format that is rounded.
    """
    unit = 0.5 * float(jnp.finfo(dtype).eps) * (1 + 2**-6)
    return (1 + unit) ** count - 1


@dataclasses.dataclass(frozen=True)
class Near:
    """Anything within some roundings to a shorter format; the number itself is among it.

    A number `x` becomes one between `x - share |x| - tiny` and `x + share |x| + tiny`, of the same
    sign. Of these limits the lower one is concave and the upper one convex, so chords enclose them.

    Attributes:
        share: by how much of its modulus a number moves at most, less than 1.
        tiny: the smallest normal number of the format; what is lost below it.
        largest: the largest number of the format, beyond which there are infinite ones.
    """

    share: float
    tiny: float
    largest: float

    def image(self, box: Interval) -> Interval:
        """From the lowest limit to the highest."""
        lower, upper = self._below(box.lower), self._above(box.upper)
        lower = where(lower < -self.largest, -jnp.inf, lower)
        upper = where(upper > self.largest, jnp.inf, upper)
        return Interval(
            where(box.lower >= 0, maximum(lower, 0), lower),
            where(box.upper <= 0, minimum(upper, 0), upper),
        )

    def lines(self, box: Interval) -> Lines:
        """The chords of both limits; where a value overflows, none."""
        ends = box.lower, box.upper
        below = [Point(x, self._below(x)) for x in ends]
        above = [Point(x, self._above(x)) for x in ends]
        slope, slope_ = secant(*below), secant(*above)
        known = is_finite(self.image(box))
        return Lines(
            slope,
            where(known, offset_below(slope, below), -jnp.inf),
            slope_,
            where(known, offset_above(slope_, above), jnp.inf),
        )

    def _below(self, x: Array) -> Array:
        return x - self.share * jnp.abs(x) - self.tiny

    def _above(self, x: Array) -> Array:
        return x + self.share * jnp.abs(x) + self.tiny
