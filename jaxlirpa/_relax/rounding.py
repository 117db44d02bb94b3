"""Rounding to fewer digits: a staircase within half a step of the identity."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp

from jaxlirpa._extrema import maximum
from jaxlirpa._relax.lines import Lines
from jaxlirpa._typing import Array, Interval, is_finite


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
        room = jnp.where(is_finite(self.image(box)), step, jnp.inf)
        one = jnp.ones_like(step)
        return Lines(one, -room, one, room)
