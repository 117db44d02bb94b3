"""Schedules for eps and for the weights of losses: optax schedules, from a step to a value."""

from __future__ import annotations

import math

import jax.numpy as jnp
import optax

from jaxlirpa._arrays import where
from jaxlirpa._errors import ArgumentError
from jaxlirpa._types import Array, ArrayLike


def linear(initial: float, final: float, begin: int, length: int) -> optax.Schedule:
    """A line: `initial` up to step `begin`, then straight to `final` at step `begin + length`.

    Args:
        initial, final: the values at both ends.
        begin: the last step with the initial value.
        length: the number of steps to the final value; 0 for a jump.

    Returns:
        A function from the step to the value.

    Raises:
        ArgumentError: where begin or length is negative, or a value is not finite.

    Example:
        >>> from jaxlirpa import train
        >>> eps = train.linear(0.0, 0.3, begin=100, length=300)
        >>> print(*(f"{eps(step):.2f}" for step in (0, 100, 200, 400, 500)))
        0.00 0.00 0.10 0.30 0.30
    """
    return smoothed(initial, final, begin, length, middle=0.0, power=1.0)


def smoothed(
    initial: float, final: float, begin: int, length: int, middle: float = 0.25, power: float = 4.0
) -> optax.Schedule:
    """As `linear`, but with a slow start: a power of the step up to `middle`, then a line.

    This is the smoothed schedule of Xu et al. (2020). Let `t` in [0, 1] be the fraction of `length`
    that has passed, `m` the fraction `middle`, and `p` the power. The fraction of the way from
    `initial` to `final` is `a t^p` for `t <= m`, and the tangent at `m` after that:
    `a (m^p + p m^(p-1) (t - m))`. It is 1 at `t = 1` for `1/a = m^p + p m^(p-1) (1 - m)`.

    Args:
        initial, final: the values at both ends.
        begin: the last step with the initial value.
        length: the number of steps to the final value; 0 for a jump.
        middle: the fraction of the length, from 0 to 1, after which it is a line.
        power: the power before that, at least 1.

    Returns:
        A function of the step to the value.

    Raises:
        ArgumentError: where an argument is out of range.

    Example:
        >>> from jaxlirpa import train
        >>> eps = train.smoothed(0.0, 0.3, begin=100, length=400)
        >>> print(*(f"{eps(step):.4f}" for step in (100, 150, 200, 300, 500)))
        0.0000 0.0014 0.0231 0.1154 0.3000
    """
    if not (math.isfinite(initial) and math.isfinite(final)):
        raise ArgumentError(f"a schedule is between finite values, not {initial} and {final}.")
    if not (begin >= 0 and length >= 0):
        raise ArgumentError(f"begin={begin} and length={length} count steps: none is negative.")
    if not (0 <= middle <= 1 and 1 <= power < math.inf):
        raise ArgumentError(f"middle={middle} must be from 0 to 1, and power={power} at least 1.")
    if middle == 0:
        power = 1.0
    slope = power * middle ** (power - 1)
    whole = middle**power + slope * (1 - middle)

    def schedule(count: ArrayLike) -> Array:
        done = jnp.asarray(count) - begin
        part = jnp.clip(done / length, 0, 1) if length else where(done > 0, 1.0, 0.0)
        curve = jnp.minimum(part, middle) ** power + slope * jnp.maximum(part - middle, 0)
        # The end is exact, whatever the rounding of the steps before.
        return where(part < 1, initial + (final - initial) * curve / whole, final)

    return schedule
