"""Losses between an adversarial and a certified one (De Palma et al. 2024).

All three rise with `alpha` from the adversarial loss, at 0, to the certified one, at 1. They are no
bounds of the worst loss.

    worst = jaxlirpa.ibp(train.margins(fn))(params, box, labels).upper
    met = train.margins(fn)(params, attack(params, box, labels, key=key), labels)
    losses = train.cc_ibp(worst, met, 0.01)
"""

from __future__ import annotations

import jax.numpy as jnp

from jaxlirpa._types import Array, ArrayLike
from jaxlirpa.train.losses import cross_entropy


def mtl_ibp(certified: Array, adversarial: Array, alpha: ArrayLike) -> Array:
    """MTL-IBP: the weighted mean of the two losses.

    Args:
        certified: losses `[batch]`, upper bounds.
        adversarial: losses `[batch]` at points of the same sets.
        alpha: from 0 to 1.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxlirpa import train
        >>> print(train.mtl_ibp(jnp.array([8.0]), jnp.array([2.0]), 0.5))
        [5.]
    """
    alpha = jnp.asarray(alpha, certified.dtype)
    return alpha * certified + (1 - alpha) * adversarial


def exp_ibp(certified: Array, adversarial: Array, alpha: ArrayLike) -> Array:
    """Exp-IBP: the weighted geometric mean of the two losses; arguments as for `mtl_ibp`.

    A loss that is smaller than all numbers counts as the smallest, and has no derivative.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxlirpa import train
        >>> print(train.exp_ibp(jnp.array([8.0]), jnp.array([2.0]), 0.5))
        [4.]
    """
    outer, inner = (
        jnp.log(jnp.maximum(loss, jnp.finfo(loss.dtype).tiny)) for loss in (certified, adversarial)
    )
    return jnp.exp(alpha * outer + (1 - alpha) * inner)


def cc_ibp(certified: Array, adversarial: Array, alpha: ArrayLike) -> Array:
    """CC-IBP: the cross entropy of the weighted mean of margins.

    Args:
        certified: upper bounds of the margins, `[batch, classes]`, see `margins`.
        adversarial: margins at points of the same sets.
        alpha: from 0 to 1.

    Returns:
        `[batch]`.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxlirpa import train
        >>> print(train.cc_ibp(jnp.array([[0.0, 50.0]]), jnp.array([[0.0, 30.0]]), 0.5))
        [40.]
    """
    return cross_entropy(mtl_ibp(certified, adversarial, alpha))
