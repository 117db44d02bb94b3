"""Counter-examples: points of the set at which a property fails."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlirpa._arrays import where
from jaxlirpa._types import Array
from jaxlirpa.sets import ArraySet, Box
from jaxlirpa.sets.inclusion import beyond
from jaxlirpa.verify import inputs
from jaxlirpa.verify.call import Frame, Values
from jaxlirpa.verify.instance import Instance
from jaxlirpa.verify.properties import Property

_FIRST, _LAST = 0.5, 0.02
_DRAWN = (0, 1e-12, 1e-9, 1e-6, 1e-3)


@functools.partial(jax.jit, static_argnums=(0, 1))
def descend(
    prop: Property,
    frame: Frame,
    values: Values,
    clauses: Array,
    start: Array,
    aim: Array,
    steps: Array,
) -> tuple[Array, Array]:
    """Walks from some points towards where clauses fail (Frank and Wolfe 1956).

    A step goes a part of the way to the member of the set that is best for the gradient, which the
    set itself tells; so it stays inside of any convex set.

    Args:
        prop, frame, values: the property, and the call.
        clauses: the rows of every clause, `[clauses, alternatives]`.
        start: deviations of the inputs, `[count, n]`.
        aim: the clause that each is to break, `[count]`.
        steps: how many.

    Returns:
        The best deviations that were met, and the clause's margins there, `[count]`.
    """

    call = frame.call(values)

    def at(*arrays: Array) -> Array:
        return prop.margins(*call.fill(arrays), **call.named)

    def value(deviations: Array) -> Array:
        margins = jax.vmap(at)(*inputs.members(values.sets, deviations))
        own = jnp.take_along_axis(margins, clauses[aim], 1)
        return jnp.max(own, 1)

    def step(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        count, x, best, least = state
        found, slopes = jax.value_and_grad(lambda x: _both(value(x)), has_aux=True)(x)
        own = found[1]
        better = own < least
        share = _FIRST * (_LAST / _FIRST) ** (count / jnp.maximum(steps, 1))
        target = inputs.minimisers(values.sets, slopes)
        following = x + share * (target - x)
        return (
            count + 1,
            following,
            where(better[:, None], x, best),
            where(better, own, least),
        )

    first = jnp.int32(0), start, start, jnp.full(len(start), jnp.inf, start.dtype)
    _, x, best, least = jax.lax.while_loop(lambda s: s[0] < steps, step, first)
    own = value(x)
    better = own < least
    return where(better[:, None], x, best), where(better, own, least)


def _both(values: Array) -> tuple[Array, Array]:
    return jnp.sum(values), values


def random_members(sets: Sequence[ArraySet], count: int, rng: np.random.Generator) -> Array:
    """Random deviations: mixtures of extreme members in random directions."""
    dtype = sets[0].aval.dtype
    directions = jnp.asarray(rng.normal(size=(count, inputs.size(sets))), dtype)
    shares = jnp.asarray(rng.uniform(size=(count, 1)), dtype)
    return shares * _extreme(tuple(sets), directions)


@jax.jit
def _extreme(sets: tuple[ArraySet, ...], directions: Array) -> Array:
    return inputs.minimisers(sets, directions)


def confirmed(
    instance: Instance, clause: Sequence[int], deviation: Array
) -> tuple[Any, ...] | None:
    """The arguments at a counter-example, in double precision where they were perturbed.

    The point is moved into the set, in double precision, and the property is evaluated there.
    """
    with jax.enable_x64(True):
        sets = instance.exact.sets
        arrays = inputs.members(sets, jnp.asarray(np.asarray(deviation), float))
        inside = [member(own, x) for own, x in zip(sets, arrays, strict=True)]
        margins = np.asarray(_margins(instance.prop, instance.frame, instance.exact, inside))
    own = margins[list(clause)]
    if not np.all(own <= 0):
        return None
    call = instance.frame.call(instance.values)
    return call.fill([np.asarray(x) for x in inside])


@functools.partial(jax.jit, static_argnums=(0, 1))
def _margins(prop: Property, frame: Frame, values: Values, arrays: Sequence[Array]) -> Array:
    call = frame.call(values)
    return prop.margins(*call.fill(arrays), **call.named)


def member(own: ArraySet, x: Array) -> Array:
    """A member of a set next to a point of which rounding may have taken a little too much.

    A box's is clipped. Into another set the point is drawn towards `point()`, as far as it takes to
    prove that it is inside, or by a thousandth of the way if the set has no rule for that.
    """
    if own.is_box:
        return jnp.clip(x, *own.hull())
    middle = own.point()
    drawn = x
    for share in _DRAWN:
        drawn = middle + (1 - share) * (x - middle)
        if beyond(own, Box.of((drawn, drawn))) == 0:
            break
    return drawn
