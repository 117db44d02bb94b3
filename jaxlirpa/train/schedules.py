"""Schedules of eps, and of the weights of losses: optax schedules, from a step to a value."""

from __future__ import annotations

import optax


def linear(initial: float, final: float, begin: int, length: int) -> optax.Schedule:
    """A straight line from `initial`, up to step `begin`, to `final`, from `begin + length` on.

    Raises:
        ArgumentError: where begin or length is negative, or a value is not finite.
    """
    raise NotImplementedError


def smoothed(
    initial: float, final: float, begin: int, length: int, middle: float = 0.25, power: float = 4.0
) -> optax.Schedule:
    """As `linear`, but with a slow start: a power of the steps up to `middle`, then a line.

    The two meet with the same value and slope (Xu et al. 2020).

    Args:
        initial, final: the values at both ends.
        begin: the last step with the initial value.
        length: how many steps it takes to the final value.
        middle: the part of the length after which it is a line, from 0 to 1.
        power: of the part before, at least 1.

    Raises:
        ArgumentError: where an argument is out of range.
    """
    raise NotImplementedError
