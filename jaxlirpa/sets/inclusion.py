"""Whether one set lies inside another."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxlirpa._arrays import where
from jaxlirpa._intervals import Interval
from jaxlirpa._types import Array
from jaxlirpa.sets.base import ArraySet


def beyond(outer: ArraySet, inner: ArraySet) -> Array:
    """By how much the inner set may go beyond the outer one; zero only if it is proved not to.

    A box contains what its hull contains. Any other set may define `beyond(inner)`; one that does
    not contains only itself, and infinity is returned for all others.
    """
    if outer.is_box:
        return box_beyond(outer.hull(), inner.hull())
    own = getattr(outer, "beyond", None)
    if own is not None:
        found: Array = own(inner)
        return found
    ours, theirs = jax.tree.leaves(outer), jax.tree.leaves(inner)
    structures: list[Any] = [jax.tree.structure(s) for s in (outer, inner)]
    shapes = [list(map(jnp.shape, leaves)) for leaves in (ours, theirs)]
    if structures[0] != structures[1] or shapes[0] != shapes[1]:
        return jnp.asarray(jnp.inf)
    same = jnp.array([jnp.all(x == y) for x, y in zip(ours, theirs, strict=True)])
    return where(jnp.all(same), 0, jnp.inf)


def box_beyond(outer: Interval, inner: Interval) -> Array:
    """The largest distance by which a box exceeds another one."""
    (low, high), (lower, upper) = outer, inner
    inside = (low <= lower) & (upper <= high)
    tiny = jnp.finfo(jnp.result_type(lower)).tiny
    by = jnp.maximum(jnp.maximum(low - lower, upper - high), tiny)
    return jnp.max(where(inside, 0, by), initial=0)
