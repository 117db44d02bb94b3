"""Initial weights that keep interval bounds as wide as they are (Shi et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import jax


def ibp_normal(
    scale: float = 1.0,
    in_axis: int | Sequence[int] = -2,
    out_axis: int | Sequence[int] = -1,
    batch_axis: int | Sequence[int] = (),
) -> jax.nn.initializers.Initializer:
    """An initializer: normal, with a standard deviation of `scale * sqrt(2 pi) / fan_in`.

    Args:
        scale: multiplies the weights: a half for the last layer of a residual branch, say, whose
            sum with the shortcut would be twice as wide.
        in_axis, out_axis, batch_axis: as of `jax.nn.initializers.variance_scaling`.

    Returns:
        A function of (key, shape, dtype), for flax's `kernel_init`.
    """
    raise NotImplementedError
