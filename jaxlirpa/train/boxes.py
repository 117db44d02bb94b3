"""Sets around a batch within the range of the data."""

from __future__ import annotations

import jax.numpy as jnp

from jaxlirpa._errors import ArgumentError
from jaxlirpa._types import ArrayLike
from jaxlirpa.sets import Box
from jaxlirpa.sets.base import floating, holds, poison


def clipped_box(
    x: ArrayLike, eps: ArrayLike, lower: ArrayLike = 0.0, upper: ArrayLike = 1.0
) -> Box:
    """All values within `eps` of `x`, entry by entry, and within the range of the data.

    Args:
        x: the batch.
        eps: the radius; broadcasts to `x`.
        lower, upper: the limits of the data; broadcast to `x`, so that normalised channels may
            have limits of their own.

    Returns:
        The box, as a set.

    Raises:
        ArgumentError: where eps is negative, NaN or larger than the range, the limits are out of
            order, or x is not between them, as far as that is known outside of `jax.jit`; inside
            of it, what is wrong gives NaN, whose bounds are infinite.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxlirpa import train
        >>> box = train.clipped_box(jnp.array([0.02, 0.5]), 0.1)
        >>> print(f"{box.lower[0]:.2f} {box.upper[0]:.2f}, {box.lower[1]:.2f} {box.upper[1]:.2f}")
        0.00 0.12, 0.40 0.60
    """
    x = floating(x, "clipped_box: x")
    radius, low, high = (jnp.asarray(value, x.dtype) for value in (eps, lower, upper))
    inside = (x >= low) & (x <= high)
    fitting = (radius >= 0) & (radius <= high - low)
    if not holds(low <= high):
        raise ArgumentError(f"the range of the data ends before it begins: {lower} to {upper}.")
    if not holds(inside):
        raise ArgumentError(
            f"x has values outside of the range of the data, {lower} to {upper}, or NaN. Give the "
            "limits that it has, after whatever normalises it."
        )
    if not holds(fitting):
        raise ArgumentError(
            f"eps must not be negative nor NaN, nor larger than the range of the data, {lower} to "
            f"{upper}, and not {eps}. (A radius of pixels of 0 to 255 is to be divided by 255.)"
        )
    proper = inside & fitting
    box = jnp.maximum(x - radius, low), jnp.minimum(x + radius, high)
    return Box(*(poison(limit, proper) for limit in box))
