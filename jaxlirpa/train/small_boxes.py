"""Small boxes around adversarial examples (SABR; Müller et al. 2023)."""

from __future__ import annotations

import jax.numpy as jnp

from jaxlirpa._errors import ArgumentError
from jaxlirpa._types import Array, ArrayLike
from jaxlirpa.sets import Box, LpBall
from jaxlirpa.sets.base import holds, poison
from jaxlirpa.train.regions import region


def small_box(large: Box | LpBall, adversarial: Array, share: ArrayLike) -> Box | LpBall:
    """A set of a share of the radius, as near to an adversarial example as it fits.

    Its centre is the projection of `adversarial` to `1 - share` of the large set around that one's
    centre. So it lies inside of the large set. A loss over it is no certificate of the large one.

    Args:
        large: a box, or a ball of ord 2 or infinity.
        adversarial: a point of it, say from `pgd`.
        share: of the radius, from 0 (the point itself) to 1 (all).

    Returns:
        The set: a box of a box, and a ball of a ball of ord 2.

    Raises:
        ArgumentError: where share is not between 0 and 1, or the set is of another kind.

    Example:
        >>> import jax.numpy as jnp, jaxlirpa
        >>> from jaxlirpa import train
        >>> large = jaxlirpa.Box(jnp.zeros(3), jnp.ones(3))
        >>> small = train.small_box(large, jnp.array([0.0, 0.5, 0.9]), 0.5)
        >>> print(small.lower, small.upper)
        [0.   0.25 0.5 ] [0.5  0.75 1.  ]
    """
    found = region(large)
    proper = (jnp.asarray(share) >= 0) & (jnp.asarray(share) <= 1)
    if not holds(proper):
        raise ArgumentError(f"share={share} must be between 0 and 1: a part of the radius.")
    share = poison(jnp.asarray(share, found.centre.dtype), proper)
    centre = found.nearest(adversarial, 1 - share)
    radius = share * found.radius
    if found.axes is not None:
        return LpBall(centre, radius, ord=2, axis=found.axes)
    return Box(
        jnp.maximum(centre - radius, found.box.lower), jnp.minimum(centre + radius, found.box.upper)
    )
