"""Functions that are defined on a part of the line only."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeAlias

import jax.numpy as jnp

from jaxlirpa._arrays import where
from jaxlirpa._intervals import Interval
from jaxlirpa._relax.lines import Adjustable, Lines, Relaxation, family
from jaxlirpa._relax.relaxations import Relaxations
from jaxlirpa._types import Array

Inside: TypeAlias = Callable[[Interval], Array]


@dataclasses.dataclass(frozen=True)
class Restricted(Adjustable):
    """A relaxation that promises nothing of boxes that leave the domain.

    Attributes:
        relaxation: of the function on its domain.
        inside: whether a whole box lies in the domain.
        home: a number in the domain, put in the place of boxes that leave it.
    """

    relaxation: Relaxation
    inside: Inside
    home: float

    def image(self, box: Interval) -> Interval:
        """The range, or everything."""
        inside = self.inside(box)
        image = self.relaxation.image(self._sheltered(box, inside))
        return Interval(where(inside, image.lower, -jnp.inf), where(inside, image.upper, jnp.inf))

    def family(self, box: Interval) -> Relaxations[Lines]:
        """The lines, or constant ones at minus and plus infinity."""
        inside = self.inside(box)

        def defined(lines: Lines) -> Lines:
            return Lines(
                where(inside, lines.lower_slope, 0),
                where(inside, lines.lower_offset, -jnp.inf),
                where(inside, lines.upper_slope, 0),
                where(inside, lines.upper_offset, jnp.inf),
            )

        return family(self.relaxation, self._sheltered(box, inside)).map(defined)

    def _sheltered(self, box: Interval, inside: Array) -> Interval:
        return Interval(*(where(inside, x, self.home) for x in box))
