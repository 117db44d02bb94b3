"""Updates that are written into an array, multiplied into it, or compared with its entries.

Where the indices are known, so is the entry that every update meets. Updates that meet different
entries may be written in any order. Of those that meet one entry the first is put into the first
layer, the second into the second and so on; then a layer is an array that is combined with the
whole, entry by entry.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlirpa._graph.graph import Node, Ref, Value
from jaxlirpa._graph.jaxpr import is_traced
from jaxlirpa._graph.trace import Builder, Rule
from jaxlirpa._ops.rules.extrema import largest
from jaxlirpa._typing import Array

# The entries of larger arrays cannot all be numbered in single precision.
_MOST = 2**24


def _met(build: Builder, node: Node) -> np.ndarray | None:
    """For every update the flat index of the entry that it meets, or -1; None if not known."""
    x, indices, updates = node.operands
    shape = build.aval(x).shape
    if isinstance(indices, Ref) or is_traced(indices) or np.prod(shape) >= _MOST:
        return None
    numbers, mode = node.params["dimension_numbers"], node.params["mode"]

    def spread(updates: Array) -> Array:
        start = jnp.zeros(shape, updates.dtype)
        return lax.scatter_add(start, indices, updates, numbers, mode=mode)

    with jax.ensure_compile_time_eval():
        # What an update adds to a sum, weighted by the number of the entry: that number.
        weights = 1 + jnp.arange(np.prod(shape, dtype=int), dtype=jnp.float32).reshape(shape)
        like = jax.ShapeDtypeStruct(build.aval(updates).shape, weights.dtype)
        (found,) = jax.linear_transpose(spread, like)(weights)
        return np.asarray(found).reshape(-1).astype(int) - 1


def _layers(met: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Which update is beside every entry in every layer, and whether there is one: `[n, size]`."""
    order = np.argsort(met, kind="stable")
    order = order[met[order] >= 0]
    entries = met[order]
    layer = np.arange(len(entries)) - np.searchsorted(entries, entries)
    which = np.zeros((layer.max(initial=-1) + 1, size), int)
    mask = np.zeros(which.shape, bool)
    which[layer, entries], mask[layer, entries] = order, True
    return which, mask


def _beside(build: Builder, node: Node, neutral: float) -> tuple[list[Value], np.ndarray] | None:
    """The layers of updates, and the mask of where there is one; elsewhere they are neutral."""
    met, (aval,) = _met(build, node), node.outputs
    if met is None or not jnp.issubdtype(aval.dtype, jnp.floating):
        return None
    which, mask = _layers(met, np.prod(aval.shape, dtype=int))
    mask = mask.reshape(len(mask), *aval.shape)

    def layers(updates: Array) -> list[Array]:
        found = [updates.reshape(-1)[places].reshape(aval.shape) for places in which]
        return [jnp.where(m, x, neutral) for m, x in zip(mask, found, strict=True)]

    return build.apply(layers, node.source, node.operands[2]), mask


def _written(build: Builder, node: Node) -> Sequence[Value] | None:
    """Entries that are written once each, though nobody has said so."""
    params = node.params
    if params["unique_indices"] or params.get("update_jaxpr") is not None:
        return None
    met = _met(build, node)
    if met is None or len(np.unique(met[met >= 0])) < np.sum(met >= 0):
        return None

    def written(x: Array, indices: Array, updates: Array) -> Array:
        numbers, mode = params["dimension_numbers"], params["mode"]
        return lax.scatter(x, indices, updates, numbers, unique_indices=True, mode=mode)

    return build.apply(written, node.source, *node.operands)


def _multiplied(build: Builder, node: Node) -> Sequence[Value] | None:
    """The product of every entry and the updates that meet it, at known indices."""
    found = _beside(build, node, 1.0)
    if found is None:
        return None
    result = node.operands[0]
    for layer in found[0]:
        (result,) = build.apply(jnp.multiply, node.source, result, layer)
    return [result]


def _largest(build: Builder, node: Node) -> Sequence[Value] | None:
    """The largest of every entry and the updates that meet it, at known indices."""
    found = _beside(build, node, 0.0)
    if found is None:
        return None
    layers, mask = found
    x = node.operands[0]
    counts = np.ones_like(mask, shape=(1, *build.aval(x).shape))
    if not isinstance(x, Ref) and not is_traced(x):  # maybe the start of a maximum
        counts = ~(np.isneginf(x) & mask.any(0))[None]
        x = jnp.where(counts[0], x, 0)

    def stack(*arrays: Array) -> Array:
        return jnp.stack(arrays)

    (stacked,) = build.apply(stack, node.source, x, *layers)
    return largest(build, stacked, np.concatenate([counts, mask]), node.source)


def _smallest(build: Builder, node: Node) -> Sequence[Value] | None:
    """As the largest, of what is negated."""
    x, indices, updates = node.operands
    x, updates = (build.apply(jnp.negative, node.source, v)[0] for v in (x, updates))
    operands = (x, indices, updates)
    negated = Node("scatter-max", operands, node.params, node.bind, node.outputs, node.source)
    found = _largest(build, negated)
    return None if found is None else build.apply(jnp.negative, node.source, *found)


RULES: dict[str, tuple[Rule, ...]] = {
    "scatter": (_written,),
    "scatter-max": (_largest,),
    "scatter-min": (_smallest,),
    "scatter-mul": (_multiplied,),
}
