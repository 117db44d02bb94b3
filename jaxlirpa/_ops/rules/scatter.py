"""Updates that are written into an array, combined with its entries, or apply a function.

Where the indices are known, so is the entry that every update meets. Updates that meet different
entries may be written in any order. Of those that meet one entry the first is put into the first
layer, the second into the second and so on; then a layer is an array that is combined with the
whole, entry by entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlirpa._graph.graph import Node, Ref, Value
from jaxlirpa._graph.jaxpr import function_of_first, is_traced, sole_primitive
from jaxlirpa._graph.trace import Builder, Rule
from jaxlirpa._ops.rules.maxima import largest
from jaxlirpa._types import Array

Index: TypeAlias = tuple[slice | np.ndarray, ...]

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


def _is_own(node: Node) -> bool:
    """Whether the function that a node combines two values by is that of its name."""
    return sole_primitive(node.params["update_jaxpr"]) == node.primitive.removeprefix("scatter-")


def _multiplied(build: Builder, node: Node) -> Sequence[Value] | None:
    """The product of every entry and the updates that meet it, at known indices."""
    found = _beside(build, node, 1.0) if _is_own(node) else None
    if found is None:
        return None
    result = node.operands[0]
    for layer in found[0]:
        (result,) = build.apply(jnp.multiply, node.source, result, layer)
    return [result]


def _largest(build: Builder, node: Node) -> Sequence[Value] | None:
    """The largest of every entry and the updates that meet it, at known indices."""
    return _largest_beside(build, node) if _is_own(node) else None


def _largest_beside(build: Builder, node: Node) -> Sequence[Value] | None:
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
    if not _is_own(node):
        return None
    x, indices, updates = node.operands
    x, updates = (build.apply(jnp.negative, node.source, v)[0] for v in (x, updates))
    operands = (x, indices, updates)
    negated = Node("scatter-max", operands, node.params, node.bind, node.outputs, node.source)
    found = _largest_beside(build, negated)
    return None if found is None else build.apply(jnp.negative, node.source, *found)


def _applied(build: Builder, node: Node) -> Sequence[Value] | None:
    """A function of the entries at known indices, applied as often as they are repeated."""
    jaxpr, consts, (aval,) = (
        *(node.params[f"update_{x}"] for x in ("jaxpr", "consts")),
        node.outputs,
    )
    function = None if jaxpr is None else function_of_first(jaxpr, consts)
    met = None if function is None else _met(build, node)
    if function is None or met is None:
        return None
    result = node.operands[0]
    for mask in _layers(met, np.prod(aval.shape, dtype=int))[1]:
        place = _index(mask.reshape(aval.shape))

        def apply(x: Array, place: Index = place) -> Array:
            return x.at[place].set(jnp.vectorize(function)(x[place]), unique_indices=True)

        (result,) = build.apply(apply, node.source, result)
    return [result]


def _index(mask: np.ndarray) -> Index:
    """An index of where a mask is true: along axes where nothing changes, a whole slice."""
    whole = [bool((mask == mask.take([0], axis)).all()) for axis in range(mask.ndim)]
    places = iter(np.nonzero(np.atleast_1d(mask[tuple(0 if w else slice(None) for w in whole)])))
    return tuple(slice(None) if w else next(places) for w in whole)


RULES: dict[str, tuple[Rule, ...]] = {
    "scatter": (_applied, _written),
    "scatter-max": (_largest,),
    "scatter-min": (_smallest,),
    "scatter-mul": (_multiplied,),
}
