"""Relaxations that are compiled once, and not operation by operation at every call."""

from __future__ import annotations

import jax

from jaxlirpa._intervals import Interval
from jaxlirpa._relax.lines import Adjustable, Lines, Relaxation, family
from jaxlirpa._relax.relaxations import Relaxations
from jaxlirpa._relax.slopes import offsets, slope_range
from jaxlirpa._types import Array


class Compiled(Adjustable):
    """A relaxation that no parameter enters, so that one compilation serves all nodes of a shape.

    Outside of `jax.jit` a loop is compiled anew whenever it is met, which takes longer than all
    the rest of a small network's bounds; inside of it, a repeated function is traced once.
    """

    def __init__(self, relaxation: Relaxation):
        self.relaxation = relaxation
        self._image, self._lines = jax.jit(relaxation.image), jax.jit(relaxation.lines)

    def image(self, box: Interval) -> Interval:
        """As the relaxation's own."""
        return self._image(box)

    def slope_range(self, box: Interval) -> Interval:
        """As the relaxation's own, not compiled."""
        return slope_range(self.relaxation, box)

    def offsets(self, slope: Array, box: Interval) -> Interval:
        """As the relaxation's own, not compiled."""
        return offsets(self.relaxation, slope, box)

    def family(self, box: Interval) -> Relaxations[Lines]:
        """As the relaxation's own, not compiled."""
        return family(self.relaxation, box)

    def lines(self, box: Interval) -> Lines:
        """As the relaxation's own."""
        return self._lines(box)
