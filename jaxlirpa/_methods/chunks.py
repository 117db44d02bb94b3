"""Rows in chunks of a fixed size: only those that matter, and never too many at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxlirpa._arrays import where
from jaxlirpa._intervals import Interval, intersect, vacuous_where_nan
from jaxlirpa._types import Array


def by_chunks(
    bound: Callable[[Array], Interval], box: Interval, needed: Array, size: int
) -> Interval:
    """A box whose needed entries are improved, chunk by chunk.

    As many chunks are computed as the needed entries take, in a `while` loop. Where derivatives are
    taken the loop has a fixed number of trips, and what those beyond the last chunk find is
    dropped. (A `cond` would spare them, but JAX cannot transpose one that is mapped.)

    Args:
        bound: the limits `[size, ...]` of the entries with the given numbers.
        box: `[entries, ...]`, known before.
        needed: truth values, `[entries]`; or `[entries, examples]`, and so the numbers, where each
            example has entries of its own.
        size: of a chunk.
    """
    entries = len(needed)
    counts = jnp.sum(needed, 0)
    count = jnp.max(counts)
    trips = math.ceil(entries / size)
    order = jnp.argsort(~needed, axis=0, stable=True)
    place = jnp.arange(entries).reshape(-1, *[1] * (needed.ndim - 1))
    order = where(place < counts, order, entries)
    padding = [(0, trips * size - entries), *[(0, 0)] * (needed.ndim - 1)]
    order = jnp.pad(order, padding, constant_values=entries)
    closed, constants = jax.closure_convert(bound, order[:size])

    def improve(trip: Array, box: Interval, order: Array, constants: Any) -> Interval:
        number = jax.lax.dynamic_slice_in_dim(order, trip * size, size)
        at = jnp.minimum(number, entries - 1)
        found = vacuous_where_nan(closed(at, *constants))
        places = (number, *jnp.indices(number.shape, sparse=True)[1:])
        known = (limit.at[places].get(mode="clip") for limit in box)
        better = intersect(Interval(*known), found)
        pairs = zip(box, better, strict=True)
        return Interval(*(limit.at[places].set(x, mode="drop") for limit, x in pairs))

    @jax.custom_jvp
    def run(count: Array, order: Array, box: Interval, constants: Any) -> Interval:
        def step(state: tuple[Array, Interval]) -> tuple[Array, Interval]:
            trip, box = state
            return trip + 1, improve(trip, box, order, constants)

        first = jnp.zeros((), count.dtype), box
        return jax.lax.while_loop(lambda state: state[0] * size < count, step, first)[1]

    @run.defjvp
    def derivative(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
        _, order, *varying = primals

        def fixed(box: Interval, constants: Any) -> Interval:
            def step(box: Interval, trip: Array) -> tuple[Interval, None]:
                return improve(trip, box, order, constants), None

            return jax.lax.scan(step, box, jnp.arange(trips))[0]

        return jax.jvp(fixed, tuple(varying), tangents[2:])

    return run(count, order, box, tuple(constants))
