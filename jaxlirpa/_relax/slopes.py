"""What else may be asked of a relaxation: which slopes its function has, and lines of given slopes.

A relaxation may know more than its lines. One with a method `slope_range(box)` tells the range of
the function's slopes on a finite box, as Lipschitz bounds want it. One with a method
`offsets(slope, box)` places a line of any slope there. Of any other one, slopes may be anything,
and offsets follow from its two lines.
"""

from __future__ import annotations

import jax.numpy as jnp

from jaxlirpa._arrays import where
from jaxlirpa._intervals import Interval, is_finite, vacuous_where_nan
from jaxlirpa._minmax import maximum, minimum
from jaxlirpa._relax.lines import Relaxation, relax
from jaxlirpa._types import Array


def slope_range(relaxation: Relaxation, box: Interval) -> Interval:
    """Limits of `(f(y) - f(x)) / (y - x)` for all `x < y` in a box, entry by entry.

    Infinite where the box is not finite, or nothing is known.
    """
    known = getattr(relaxation, "slope_range", None)
    if known is None:
        return Interval(jnp.full_like(box.lower, -jnp.inf), jnp.full_like(box.lower, jnp.inf))
    finite = is_finite(box)
    safe = Interval(*(where(finite, limit, 0) for limit in box))
    lower, upper = vacuous_where_nan(Interval(*map(jnp.asarray, known(safe))))
    return Interval(where(finite, lower, -jnp.inf), where(finite, upper, jnp.inf))


def offsets(relaxation: Relaxation, slope: Array, box: Interval) -> Interval:
    """The highest known line of a slope below a function, and the lowest one above it.

    For all `x` in the box, `slope * x + lower <= f(x) <= slope * x + upper`. With a relaxation that
    has no method `offsets`, a line below the function's lower line is below the function: the
    smallest difference of the two lines is at an end of the box.

    Args:
        relaxation: of the function.
        slope: entry by entry.
        box: where the lines are to hold.

    Returns:
        Offsets; infinite where the box is not finite.
    """
    known = getattr(relaxation, "offsets", None)
    finite = is_finite(box)
    safe = Interval(*(where(finite, limit, 0) for limit in box))
    if known is not None:
        lower, upper = known(slope, safe)
    else:
        lines = relax(relaxation, safe)
        below = [(lines.lower_slope - slope) * x for x in safe]
        above = [(lines.upper_slope - slope) * x for x in safe]
        info = jnp.finfo(safe.lower.dtype)
        far = maximum(jnp.abs(safe.lower), jnp.abs(safe.upper))
        steep = jnp.abs(slope) + maximum(jnp.abs(lines.lower_slope), jnp.abs(lines.upper_slope))
        size = maximum(jnp.abs(lines.lower_offset), jnp.abs(lines.upper_offset)) + steep * far
        room = 8 * (info.eps * size + info.tiny)
        lower = lines.lower_offset + minimum(*below) - room
        upper = lines.upper_offset + maximum(*above) + room
    lower, upper = vacuous_where_nan(Interval(lower, upper))
    return Interval(where(finite, lower, -jnp.inf), where(finite, upper, jnp.inf))
