"""Boxes of arrays, and what is done about limits that are no numbers."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from jaxlirpa._arrays import is_floating, traced_once, where
from jaxlirpa._types import Array


class Interval(NamedTuple):
    """A box of arrays: all `x` with `lower <= x <= upper`, entry by entry."""

    lower: Array
    upper: Array


@traced_once()
def intersect(a: Interval, b: Interval) -> Interval:
    """The box inside both `a` and `b`, which must enclose a common set.

    Two enclosures of the same point can only miss each other by rounding; then the gap between
    them is returned, so that the result is always ordered.
    """
    lower = jnp.maximum(a.lower, b.lower)
    upper = jnp.minimum(a.upper, b.upper)
    return Interval(jnp.minimum(lower, upper), jnp.maximum(lower, upper))


@traced_once()
def vacuous_where_overflown(box: Interval) -> Interval:
    """`box` without infinities on the wrong side, which promise what only an overflow computed.

    A sum whose first terms overflow is infinite, whatever the others take away from it. A NaN
    stays, as it is contagious by itself.
    """
    if not is_floating(box.lower):
        return box
    return Interval(
        where(box.lower == jnp.inf, -jnp.inf, box.lower),
        where(box.upper == -jnp.inf, jnp.inf, box.upper),
    )


@traced_once()
def is_finite(box: Interval) -> Array:
    """Where both limits of a box are finite."""
    return jnp.isfinite(box.lower) & jnp.isfinite(box.upper)


@traced_once()
def vacuous_where_nan(box: Interval) -> Interval:
    """`box` with every NaN limit replaced by the infinity that promises nothing."""
    if not is_floating(box.lower):
        return box
    return Interval(
        where(jnp.isnan(box.lower), -jnp.inf, box.lower),
        where(jnp.isnan(box.upper), jnp.inf, box.upper),
    )
