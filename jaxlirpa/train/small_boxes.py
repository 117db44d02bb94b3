"""Small boxes around adversarial examples (SABR; Müller et al. 2023)."""

from __future__ import annotations

from jaxlirpa._typing import Array, ArrayLike
from jaxlirpa.sets import Box, LpBall


def small_box(large: Box | LpBall, adversarial: Array, share: ArrayLike) -> Box | LpBall:
    """A set of a share of the radius, as near to an adversarial example as it fits.

    Its centre is the projection of `adversarial` to `1 - share` of the large set around that one's
    centre. So it lies inside of the large set (and a loss over it is no certificate of all of that).

    Args:
        large: a box, or a ball of ord 2 or infinity.
        adversarial: a point of it, say from `pgd`.
        share: of the radius, from 0 (the point itself) to 1 (all).

    Returns:
        The set, of the same kind.

    Raises:
        ArgumentError: where share is not between 0 and 1, or the set is of another kind.
    """
    raise NotImplementedError
