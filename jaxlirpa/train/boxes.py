"""Sets around a batch within the range of the data."""

from __future__ import annotations

from jaxlirpa._typing import ArrayLike
from jaxlirpa.sets import Box


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
    """
    raise NotImplementedError
