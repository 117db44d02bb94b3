"""Branch and bound as a transform: tighter bounds by splitting the box of the inputs."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxlirpa._arrays import where
from jaxlirpa._errors import ArgumentError
from jaxlirpa._intervals import Interval, vacuous_where_nan
from jaxlirpa._methods.crown import cost, solve
from jaxlirpa._methods.layerwise import Layerwise
from jaxlirpa._methods.options import checked, whole_number
from jaxlirpa._methods.problem import Problem
from jaxlirpa._methods.solution import Solution
from jaxlirpa._methods.transform import transform
from jaxlirpa._types import Array, Bounds, PyTree
from jaxlirpa.verify import inputs


@checked
def branch_and_bound(
    fn: Callable[..., PyTree],
    *,
    steps: int = 32,
    batch: int = 8,
    capacity: int | None = None,
    argnums: int | tuple[int, ...] | None = None,
    in_axes: PyTree = None,
    out_axes: int = 0,
) -> Callable[..., Bounds]:
    """Bounds a function by CROWN on parts of the box of its inputs.

    Each step halves those parts on which an output's bound is worst, along the input by which the
    bound changes most. The bounds are those of all parts together: sound whenever it stops, never
    looser than `crown`'s, and exact in the limit. The number of parts that are needed grows quickly
    with the number of inputs; from about ten on, prefer `jaxlirpa.alpha_crown`. It is one loop in a
    pure function, which can be compiled and mapped. `verify` answers whether a bound is positive,
    which is cheaper, and splits neurons as well.

    Args:
        fn: function of pytrees of arrays.
        steps: how often parts are halved.
        batch: how many parts are halved at once.
        capacity: how many parts are kept; when there is no room, the search ends. Default: room for
            all steps.
        argnums, in_axes, out_axes: as for `jaxlirpa.crown`. A batch of examples should be mapped by
            in_axes: else all its examples are split as one.

    Returns:
        A function that takes fn's arguments, see `jaxlirpa.ibp`, where all sets are boxes.

    Raises:
        ArgumentError: where a set is no box, or an option does not fit. Also what `jaxlirpa.ibp`
            raises.

    Example:
        >>> import jax.numpy as jnp, jaxlirpa
        >>> from jaxlirpa import verify
        >>> fn = lambda x: x * x - x
        >>> for method in jaxlirpa.crown, verify.branch_and_bound:
        ...     lower, upper = method(fn)(jnp.array(0.5), 0.5)
        ...     print(f"{lower:.3f} {upper:.3f}")
        -1.000 0.000
        -0.250 0.000
    """
    whole_number("steps", steps, 0)
    whole_number("batch", batch, 1)
    whole_number("capacity", capacity, 1)
    method = functools.partial(_solve, steps=steps, batch=batch, capacity=capacity)
    return transform(fn, method, cost, argnums=argnums, in_axes=in_axes, out_axes=out_axes)


class _Parts(NamedTuple):
    """Parts of the inputs' box, of which the first are in use.

    Attributes:
        used: how many are in use.
        limits: of the inputs' deviations, `[capacity, n]` each.
        bounds: of all outputs, `[capacity, outputs]` each.
        along: the input to split, `[capacity]`.
    """

    used: Array
    limits: Interval
    bounds: Interval
    along: Array


def _solve(problem: Problem, steps: int, batch: int, capacity: int | None) -> list[Solution]:
    """The boxes of a program's outputs."""
    if not all(own.is_box for own in problem.sets.values()):
        raise ArgumentError(
            "branch_and_bound splits boxes (Box, or LpBall of ord inf), and one of the sets is "
            "none. Use jaxlirpa.alpha_crown, or verify."
        )
    problem = problem.as_one_example()
    room = capacity or 1 + steps * batch
    one = Interval(*(limit[None] for limit in inputs.limits([*problem.sets.values()])))
    bounds, along = _bounded(problem, one)

    def filled(x: Array) -> Array:
        return jnp.broadcast_to(x[:1], (room, *x.shape[1:]))

    first = _Parts(jnp.int32(1), *jax.tree.map(filled, (one, bounds, along)))

    def unfinished(state: tuple[Array, _Parts]) -> Array:
        step, parts = state
        return (step < steps) & (parts.used < room)

    def step(state: tuple[Array, _Parts]) -> tuple[Array, _Parts]:
        return state[0] + 1, _step(problem, state[1], min(batch, room))

    _, parts = jax.lax.while_loop(unfinished, step, (jnp.int32(0), first))
    own = _together(parts)
    found, at = [], 0
    for ref in problem.graph.targets:
        aval = problem.graph.aval(ref)
        size = math.prod(aval.shape)
        box = Interval(*(x[at : at + size].reshape(aval.shape).astype(aval.dtype) for x in own))
        found.append(Solution(box))
        at += size
    return found


def _step(problem: Problem, parts: _Parts, batch: int) -> _Parts:
    """Halves the parts with the worst bounds."""
    room = len(parts.along)
    there = jnp.arange(room) < parts.used
    _, worst = jax.lax.top_k(where(there, _badness(parts), -jnp.inf), batch)
    place = jnp.cumsum(there[worst]) - 1 + parts.used
    halved = there[worst] & (place < room)
    low, high = (limit[worst] for limit in parts.limits)
    split = jax.nn.one_hot(parts.along[worst], low.shape[1], dtype=bool)
    middle = low + (high - low) / 2
    below = Interval(low, where(split, middle, high))
    above = Interval(where(split, middle, low), high)
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), below, above)
    bounds, along = _bounded(problem, both)
    # A part is inside of what it is a part of.
    inherited = jax.tree.map(lambda x: jnp.tile(x[worst], (2, 1)), parts.bounds)
    bounds = Interval(
        jnp.maximum(bounds.lower, inherited.lower), jnp.minimum(bounds.upper, inherited.upper)
    )
    beyond = jnp.full_like(place, room)
    at = jnp.concatenate([where(halved, worst, beyond), where(halved, place, beyond)])

    def put(old: Array, new: Array) -> Array:
        return old.at[at].set(new, mode="drop")

    limits, own, direction = jax.tree.map(
        put, (parts.limits, parts.bounds, parts.along), (both, bounds, along)
    )
    used = parts.used + jnp.sum(halved).astype(parts.used.dtype)
    return _Parts(used, limits, own, direction)


def _together(parts: _Parts) -> Interval:
    """The bounds of all outputs on all parts together, `[outputs]` each."""
    used = (jnp.arange(len(parts.along)) < parts.used)[:, None]
    lower, upper = parts.bounds
    return Interval(
        jnp.min(where(used, lower, jnp.inf), 0), jnp.max(where(used, upper, -jnp.inf), 0)
    )


def _badness(parts: _Parts) -> Array:
    """How close a part's bounds are to the worst of all parts', for the output where most so.

    It is in units of each output's whole width, and zero for the worst.
    """
    (lower, upper), bounds = _together(parts), parts.bounds
    width = upper - lower
    proper = jnp.isfinite(width) & (width > 0)
    gaps = jnp.minimum(bounds.lower - lower, upper - bounds.upper) / where(proper, width, 1)
    return jnp.max(-where(jnp.isfinite(gaps), gaps, 0), 1, initial=-jnp.inf)


def _bounded(problem: Problem, limits: Interval) -> tuple[Interval, Array]:
    """Bounds of all outputs on parts of the box, and the input that each is best split along."""

    def one(limits: Interval) -> tuple[Interval, Array]:
        sets = inputs.parts([*problem.sets.values()], limits)
        own = dataclasses.replace(problem, sets=dict(zip(problem.sets, sets, strict=True)))
        found = solve(own, Layerwise())
        boxes = [vacuous_where_nan(x.box) for x in found]
        flat = [jnp.concatenate([b[i].reshape(-1) for b in boxes]) for i in (0, 1)]
        size = jnp.zeros_like(limits.lower)
        for x in found:
            for side in (x.lower, x.upper):
                assert side is not None
                parts = [
                    jnp.sum(jnp.abs(side.coefficients[ref]), 0).reshape(-1)
                    if ref in side.coefficients
                    else jnp.zeros(math.prod(own.aval.shape), size.dtype)
                    for ref, own in problem.sets.items()
                ]
                size = size + jnp.concatenate(parts)
        width = limits.upper - limits.lower
        gain = where(jnp.isfinite(size), size, 0) * width + 1e-6 * width
        return Interval(*flat), jnp.argmax(gain)

    found: tuple[Interval, Array] = jax.vmap(one)(limits)
    return found
