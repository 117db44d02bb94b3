"""Ranges of integers, whose arithmetic wraps around where it overflows.

Of reals, the limits of a sum are the sums of limits. Of integers that holds as long as nothing
overflows: beyond, the result may be any integer of its format, and no limit is taken at its word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from jaxlirpa._arrays import where
from jaxlirpa._intervals import Interval
from jaxlirpa._types import Array, Shaped

# How far limits may be off that were computed in floating point, in units of their last digit.
_ROUNDING = 8


def is_integer(x: Array | Shaped) -> bool:
    """Whether an array holds integers, and no truth values."""
    return bool(jnp.issubdtype(x.dtype, jnp.integer))


def real(x: Any) -> Array:
    """Integers in the default floating-point format."""
    return jnp.asarray(x, jnp.result_type(float))


def unless(overflows: Array, box: Interval) -> Interval:
    """A box of integers, or all integers of its format where something overflows."""
    info = jnp.iinfo(box.lower.dtype)
    first, last = (jnp.asarray(x, box.lower.dtype) for x in (info.min, info.max))
    return Interval(where(overflows, first, box.lower), where(overflows, last, box.upper))


def by_reals(
    image: Callable[[Sequence[Interval]], Interval], boxes: Sequence[Interval], dtype: Any
) -> Interval:
    """The range of a function of integers to integers, from that of the same function of reals.

    That is computed in floating point. An integer above a limit that is off by some slack is no
    less than the first integer above the limit minus the slack.
    """
    box = image([Interval(*map(real, box)) for box in boxes])
    slack = [_ROUNDING * jnp.finfo(limit.dtype).eps * jnp.abs(limit) for limit in box]
    lower, upper = jnp.ceil(box.lower - slack[0]), jnp.floor(box.upper + slack[1])
    info = jnp.iinfo(dtype)
    inside = (lower >= info.min) & (upper < info.max) & ~jnp.isnan(lower) & ~jnp.isnan(upper)
    return unless(~inside, Interval(lower.astype(dtype), upper.astype(dtype)))


def converted(image: Interval, box: Interval) -> Interval:
    """The range of a conversion between formats of integers, from the converted limits.

    What the new format has stays as it is, and the rest wraps around.
    """
    kept = [
        (new.astype(old.dtype) == old) & ((new < 0) == (old < 0))
        for new, old in zip(image, box, strict=True)
    ]
    return unless(~(kept[0] & kept[1]), image)
