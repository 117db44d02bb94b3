"""Ascent: the free parameters of relaxations, moved to where the bounds are best.

The parameters of one node are called alpha, as those of relus are in alpha-CROWN: arrays of numbers
in [0, 1], one for every row and side. An objective has limits at every point; gradient steps go
from a start, a projection takes them back to where the limits are sound, and of all points that
were visited every row keeps the best one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxlirpa._arrays import where
from jaxlirpa._domains.backward_linear import Sided
from jaxlirpa._intervals import Interval
from jaxlirpa._mesh import vary, varying
from jaxlirpa._types import Array, PyTree


def total_width(limits: Interval) -> Array:
    """The objective of bounds on both sides: the sum of their widths, where they are finite."""
    width = limits.upper - limits.lower
    return jnp.sum(where(jnp.isfinite(width), width, 0))


def to_unit_interval(alphas: PyTree) -> PyTree:
    """The projection onto numbers from 0 to 1."""
    return jax.tree.map(lambda x: jnp.clip(x, 0, 1), alphas)


class _Best(NamedTuple):
    """The best limits of every row so far, and the alphas that gave them."""

    limits: Interval
    alphas: Sided[PyTree]


def ascend(
    limits_at: Callable[[Sided[PyTree]], Interval],
    start: Sided[PyTree],
    *,
    axes: PyTree,
    steps: int,
    optimizer: optax.GradientTransformation,
    objective: Callable[[Interval], Array] = total_width,
    project: Callable[[PyTree], PyTree] = to_unit_interval,
) -> Sided[PyTree]:
    """The best alphas for every row among those that gradient steps come by.

    Args:
        limits_at: the limits at some alphas, `[rows]` or `[rows, examples]`.
        start: the first, for the lower and for the upper limits.
        axes: those of the alphas' arrays that number examples, or -1.
        steps: how many alphas are tried.
        optimizer: goes from one to the next.
        objective: what it minimises.
        project: takes alphas back to those that are sound.
    """

    def value(alphas: Sided[PyTree]) -> tuple[Array, Interval]:
        limits = limits_at(alphas)
        return objective(limits), limits

    def step(carry: tuple[Any, Any, _Best], _: None) -> tuple[tuple[Any, Any, _Best], None]:
        alphas, state, best = carry
        (_, limits), slopes = jax.value_and_grad(value, has_aux=True)(alphas)
        best = _better(best, limits, alphas, axes)
        slopes = jax.tree.map(lambda x: where(jnp.isfinite(x), x, 0), slopes)
        updates, state = optimizer.update(slopes, state, alphas)
        return (project(optax.apply_updates(alphas, updates)), state, best), None

    _, limits = jax.eval_shape(value, start)
    worst = Interval(
        *(
            vary(jnp.full(limit.shape, value, limit.dtype), varying(limit))
            for limit, value in zip(limits, (-jnp.inf, jnp.inf), strict=True)
        )
    )
    first = start, optimizer.init(start), _Best(worst, start)
    (_, _, best), _ = jax.lax.scan(step, first, length=steps)
    return best.alphas


def _better(best: _Best, limits: Interval, alphas: Sided[PyTree], axes: PyTree) -> _Best:
    """Keeps for every row, or for all that share their alphas, what is best."""
    gains = limits.lower - best.limits.lower, best.limits.upper - limits.upper
    rows = len(jax.tree.leaves(alphas)[0])
    if rows < len(gains[0]):
        gains = jnp.sum(gains[0], 0, keepdims=True), jnp.sum(gains[1], 0, keepdims=True)

    def keep(gain: Array, new: PyTree, old: PyTree) -> PyTree:
        def choose(axis: int, x: Array, y: Array) -> Array:
            apart = gain.ndim > 1 and axis >= 0
            own = gain if apart else gain.sum(tuple(range(1, gain.ndim)))
            shape = [len(gain), *[1] * (x.ndim - 1)]
            if apart:
                shape[axis + 1] = gain.shape[1]
            return where(own.reshape(shape) > 0, x, y)

        return jax.tree.map(choose, axes, new, old)

    lower, upper = (gain > 0 for gain in gains)
    return _Best(
        Interval(
            where(lower, limits.lower, best.limits.lower),
            where(upper, limits.upper, best.limits.upper),
        ),
        Sided(
            keep(gains[0], alphas.lower, best.alphas.lower),
            keep(gains[1], alphas.upper, best.alphas.upper),
        ),
    )
