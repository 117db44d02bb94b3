"""Reductions by a function of the user's, where that function is one of a few."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax import lax

from jaxlirpa._graph.graph import Node, Value
from jaxlirpa._graph.jaxpr import sole_primitive
from jaxlirpa._graph.trace import Builder, Rule
from jaxlirpa._ops.rules.pooling import seen
from jaxlirpa._types import Array

_REDUCTIONS: dict[str, tuple[Callable[..., Array], Callable[[Array, Array], Array]]] = {
    "add": (jnp.sum, lax.add),
    "and": (jnp.all, lax.bitwise_and),
    "max": (jnp.max, lax.max),
    "min": (jnp.min, lax.min),
    "mul": (jnp.prod, lax.mul),
    "or": (jnp.any, lax.bitwise_or),
}


def _reduction(
    node: Node,
) -> tuple[Callable[..., Array], Callable[[Array, Array], Array]] | None:
    """How to reduce axes, and how to combine two values; None where neither is known."""
    name = sole_primitive(node.params["jaxpr"])
    bitwise = name in ("and", "or") and node.outputs[0].dtype != bool
    return None if name is None or bitwise else _REDUCTIONS.get(name)


def _reduced(build: Builder, node: Node) -> Sequence[Value] | None:
    """A sum, a product, an extremum or the like, whatever it starts from."""
    found, axes = _reduction(node), node.params["dimensions"]
    if found is None:
        return None
    reduce, combine = found

    def reduction(x: Array, start: Array) -> Array:
        reduced = reduce(x, axes)
        return combine(jnp.broadcast_to(start, reduced.shape), reduced)

    return build.apply(reduction, node.source, *node.operands)


def _reduced_windows(build: Builder, node: Node) -> Sequence[Value] | None:
    """The same over windows; what is padded is what the reduction starts from."""
    found = _reduction(node)
    if found is None:
        return None
    reduce, combine = found
    windows = seen(node.params, build.aval(node.operands[0]).shape, node.outputs[0].shape)

    def reduction(x: Array, start: Array) -> Array:
        reduced = reduce(jnp.where(windows.mask, windows.slices(x), start), 0)
        return combine(jnp.broadcast_to(start, reduced.shape), reduced)

    return build.apply(reduction, node.source, *node.operands)


RULES: dict[str, tuple[Rule, ...]] = {
    "reduce": (_reduced,),
    "reduce_window": (_reduced_windows,),
}
