"""Families of lines that are numbered by their slopes.

The line below a function that is highest at a point of the box touches the convex envelope there,
and its slope grows with that point. So all lines that are best somewhere have slopes between that
of the line for a point near one end of the box and that for a point near the other.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from jaxlirpa._intervals import Interval
from jaxlirpa._minmax import clip
from jaxlirpa._relax.relaxations import Relaxations, alpha_of, mix
from jaxlirpa._types import Array

# Where in the box the first, the default and the last line are best.
_AIMS = (1 / 64, 1 / 2, 63 / 64)

Line = tuple[Array, Array]


def supporting(
    best: Callable[[Array], Array], line: Callable[[Array], Line], box: Interval
) -> Relaxations[Line]:
    """The lines on one side of a function; the default is the best in the middle of the box.

    Args:
        best: the slope of the line that is best at a point.
        line: a sound line from its slope, of any size.
        box: where the lines are sound.
    """
    aims = (clip(mix(jnp.full_like(box.lower, x), *box), *box) for x in _AIMS)
    first, middle, last = map(best, aims)
    return Relaxations(alpha_of(middle, first, last), lambda p: line(mix(p, first, last)))
