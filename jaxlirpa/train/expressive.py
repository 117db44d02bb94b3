"""Losses between an adversarial and a certified one (De Palma et al. 2024).

All three rise with `alpha` from the adversarial loss, at 0, to the certified one, at 1. They are no
bounds of the worst loss.
"""

from __future__ import annotations

from jaxlirpa._typing import Array, ArrayLike


def mtl_ibp(certified: Array, adversarial: Array, alpha: ArrayLike) -> Array:
    """MTL-IBP: the weighted mean of the two losses.

    Args:
        certified: losses `[batch]`, upper bounds.
        adversarial: losses `[batch]` at points of the same sets.
        alpha: from 0 to 1.
    """
    raise NotImplementedError


def exp_ibp(certified: Array, adversarial: Array, alpha: ArrayLike) -> Array:
    """Exp-IBP: the weighted geometric mean of the two losses; arguments as of `mtl_ibp`."""
    raise NotImplementedError


def cc_ibp(certified: Array, adversarial: Array, alpha: ArrayLike) -> Array:
    """CC-IBP: the cross entropy of the weighted mean of margins.

    Args:
        certified: upper bounds of the margins, `[batch, classes]`, see `margins`.
        adversarial: margins at points of the same sets.
        alpha: from 0 to 1.

    Returns:
        `[batch]`.
    """
    raise NotImplementedError
