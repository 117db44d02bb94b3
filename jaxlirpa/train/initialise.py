"""Initial weights that keep interval bounds as wide as they are (Shi et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxlirpa._errors import ArgumentError
from jaxlirpa._types import Array


def ibp_normal(
    scale: float = 1.0,
    in_axis: int | Sequence[int] = -2,
    out_axis: int | Sequence[int] = -1,
    batch_axis: int | Sequence[int] = (),
) -> jax.nn.initializers.Initializer:
    """An initializer: normal, with a standard deviation of `scale * sqrt(2 pi) / fan_in`.

    A layer makes boxes of radius `d` to boxes whose mean radius is `fan_in E|w| d`, and
    `E|w| = sqrt(2 / pi) sigma`, which is `2 / fan_in` here. Of these a ReLU leaves one half, on
    average over centres of both signs. Usual initial weights have a deviation of the order of
    `1 / sqrt(fan_in)`, and boxes that grow exponentially with the depth.

    Args:
        scale: multiplies the weights: a half for the last layer of a residual branch, say, whose
            sum with the shortcut would be twice as wide.
        in_axis, out_axis, batch_axis: as for `jax.nn.initializers.variance_scaling`.

    Returns:
        A function of (key, shape, dtype), for flax's `kernel_init`.

    Raises:
        ArgumentError: where scale is negative or not finite; by the returned function, where a
            shape has no such axes.

    Example:
        >>> import jax
        >>> from jaxlirpa import train
        >>> kernel = train.ibp_normal()(jax.random.key(0), (3, 3, 64, 128))
        >>> print(f"{kernel.std() * 3 * 3 * 64:.1f}")
        2.5
    """
    if not 0 <= scale < math.inf:
        raise ArgumentError(f"scale={scale} must be finite and not negative.")

    def init(
        key: Array, shape: Sequence[int], dtype: Any = None, out_sharding: Any = None
    ) -> Array:
        del out_sharding
        kept = _axes(out_axis, shape) | _axes(batch_axis, shape)
        _axes(in_axis, shape)
        fan_in = math.prod(n for axis, n in enumerate(shape) if axis not in kept)
        sigma = scale * math.sqrt(2 * math.pi) / max(fan_in, 1)
        return sigma * jax.random.normal(key, tuple(shape), dtype or jnp.result_type(float))

    return init


def _axes(axes: int | Sequence[int], shape: Sequence[int]) -> set[int]:
    """Axes counted from the front."""
    found = (axes,) if isinstance(axes, int) else tuple(axes)
    if any(not -len(shape) <= axis < len(shape) for axis in found):
        raise ArgumentError(
            f"a kernel of shape {tuple(shape)} has no axis {axes}: ibp_normal is for kernels of "
            "layers, and not for biases."
        )
    return {axis % len(shape) for axis in found}
