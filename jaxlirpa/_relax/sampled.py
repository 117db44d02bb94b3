"""A good slope for a line below a function of which nothing but its values is known.

The best line below `f` on a box, measured in the middle `m`, touches the convex envelope of `f`
over `m`. Here it is drawn through two of the sampled points of `f`, one on each side of `m`. Such
a slope is a proposal only; whoever takes it has to find an offset that is safe.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxlirpa._relax.lines import Point, secant
from jaxlirpa._typing import Array

_STEPS = 24


def supporting_slope(points: Point) -> Array:
    """The slope, over the middle of the box, of the convex envelope of points.

    For a slope `s`, let `x(s)` be the point where `f - s x` is smallest; it moves right with `s`.
    The slope at which it crosses the middle is found by bisection. The result is the chord
    between the lowest points, as seen along that slope, in the left and in the right half.

    Args:
        points: `[count, *shape]`, from the left end of the box to the right one.

    Returns:
        `[*shape]`, zero where some value is not finite.
    """
    finite = jnp.all(jnp.isfinite(points.y) & jnp.isfinite(points.x), axis=0)
    x, y = jnp.where(finite, points.x, 0), jnp.where(finite, points.y, 0)
    count = len(x)
    left = jnp.arange(count).reshape(-1, *[1] * (x.ndim - 1)) <= (count - 1) // 2
    fixed_x, fixed_y = jax.lax.stop_gradient((x, y))

    def lowest(slope: Array, among: Array) -> Array:
        height = jnp.where(among, fixed_y - slope * fixed_x, jnp.inf)
        return jnp.argmin(height, axis=0, keepdims=True)

    def chord(slope: Array) -> Array:
        ends = []
        for half in (left, ~left):
            at = lowest(slope, half)
            ends.append(Point(*(jnp.take_along_axis(z, at, 0)[0] for z in (x, y))))
        return secant(*ends)

    def halve(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = 0.5 * low + 0.5 * high
        right = jnp.min(jnp.where(left, jnp.inf, fixed_y - middle * fixed_x), 0)
        beyond = right < jnp.min(jnp.where(left, fixed_y - middle * fixed_x, jnp.inf), 0)
        return jnp.where(beyond, low, middle), jnp.where(beyond, middle, high)

    steps = secant(Point(fixed_x[:-1], fixed_y[:-1]), Point(fixed_x[1:], fixed_y[1:]))
    bracket = (jnp.min(steps, 0), jnp.max(steps, 0))
    low, high = jax.lax.fori_loop(0, _STEPS, halve, bracket)
    return chord(0.5 * low + 0.5 * high)
