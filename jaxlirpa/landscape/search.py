"""Members of sets that are as bad as can be found: what a certificate is held against.

Every set knows the extrema of linear forms, and by Danskin's theorem the derivative of the maximum
of `a . w` with respect to `a` is a member where it is attained. So a random form has a random
extreme member, and the gradient of a function has the member that looks worst from here. Members
of convex sets are mixed and stay members: ascent needs no projection (Frank and Wolfe, 1956).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxlirpa._arrays import where
from jaxlirpa._methods.arguments import arguments
from jaxlirpa._types import Array, Bounds, PyTree
from jaxlirpa.sets import ArraySet


def extreme(own: ArraySet, form: Array) -> Array:
    """A member of a set at which a linear form is largest.

    Args:
        own: the set.
        form: coefficients, of the members' shape.
    """
    return jax.grad(lambda a: own.concretize(a[None]).upper[0])(form)


def sampled(loss: Callable[..., Array], *, key: Array, count: int = 100) -> Callable[..., Array]:
    """Values of a function at random members of the sets among its arguments.

    Half of them are extreme in a random direction (of a ball of the 2-norm, uniform on its
    surface), the others between such a member and the set's point.

    Args:
        loss: function of pytrees, to a number.
        key: of the random numbers.
        count: of the values.

    Returns:
        A function of loss's arguments, some leaves of which are sets, to an array `[count]`.
    """

    def values(*args: Any) -> Array:
        call = arguments(loss, args, None)

        def value(pair: tuple[Array, Array]) -> Array:
            key, number = pair
            key, own = jax.random.split(key)
            depth = where(number % 2, jax.random.uniform(own), 1.0)
            return loss(*call.fill(_random(call.sets, key, depth)))

        return jax.lax.map(value, (jax.random.split(key, count), jnp.arange(count)))

    return values


def attained(
    loss: Callable[..., Array], *, key: Array, starts: int = 4, steps: int = 20
) -> Callable[..., Bounds]:
    """The smallest and the largest value of a function that gradients find over sets.

    From random members, and the sets' points, by Frank and Wolfe's method: towards the member that
    is extreme for the gradient, by `2 / (t + 2)` of the way. The true minimum and maximum lie
    between these values and certified bounds.

    Args:
        loss: function of pytrees, to a number.
        key: of the random numbers.
        starts: how many ascents, and how many descents.
        steps: of each.

    Returns:
        A function of loss's arguments, some leaves of which are sets, to `Bounds` of attained
        values.
    """

    def search(*args: Any) -> Bounds:
        call = arguments(loss, args, None)

        def ascend(sign: float, key: Array, depth: Array) -> Array:
            value_of = jax.value_and_grad(lambda arrays: sign * loss(*call.fill(arrays)))

            def step(carry: tuple[list[Array], Array], t: Array) -> tuple[Any, None]:
                arrays, best = carry
                value, gradient = value_of(arrays)
                ends = map(extreme, call.sets, gradient)
                share = 2 / (t + 2)
                moved = [x + share * (end - x) for x, end in zip(arrays, ends, strict=True)]
                return (moved, jnp.maximum(best, value)), None

            start = _random(call.sets, key, depth)
            begin = start, jnp.asarray(-jnp.inf, value_of(start)[0].dtype)
            (arrays, best), _ = jax.lax.scan(step, begin, jnp.arange(steps))
            return jnp.maximum(best, value_of(arrays)[0])

        keys = jax.random.split(key, starts)
        depths = where(jnp.arange(starts) == 0, 0.0, 1.0)
        lowest = -jnp.max(jax.lax.map(lambda pair: ascend(-1.0, *pair), (keys, depths)))
        highest = jnp.max(jax.lax.map(lambda pair: ascend(1.0, *pair), (keys, depths)))
        return Bounds(lowest, highest)

    return search


def _random(sets: Sequence[ArraySet], key: Array, depth: Array) -> list[PyTree]:
    """A random member of each set: its point at depth 0, at 1 an extreme one."""

    def member(own: ArraySet, key: Array) -> Array:
        aval, point = own.aval, own.point()
        form = jax.random.normal(key, aval.shape, aval.dtype)
        return point + depth.astype(aval.dtype) * (extreme(own, form) - point)

    return [member(s, k) for s, k in zip(sets, jax.random.split(key, len(sets)), strict=True)]
