"""Entries at a place that is perturbed: one among those at all places."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from jaxlirpa._graph.graph import Node, Ref, Value
from jaxlirpa._graph.source import Source
from jaxlirpa._graph.trace import Builder, Rule
from jaxlirpa._types import Array

# Entries of all places together, beyond which they are not written out.
_MOST = 2**22


def _gathered(build: Builder, node: Node) -> Sequence[Value] | None:
    """Entries at places along one axis; outside of it is a place of its own on either side."""
    x, indices = node.operands
    numbers, sizes = node.params["dimension_numbers"], node.params["slice_sizes"]
    if not isinstance(indices, Ref) or len(numbers.start_index_map) != 1:
        return None
    (axis,), (aval,), where = numbers.start_index_map, node.outputs, build.aval(indices)
    count = build.aval(x).shape[axis] - sizes[axis] + 1
    if (count + 2) * math.prod(aval.shape) > _MOST:
        return None

    def pieces(x: Array) -> Array:
        def at(place: Array) -> Array:
            return node.bind(x, jnp.full(where.shape, place, jnp.int32))[0]

        return jax.vmap(at)(jnp.arange(-1, count + 1, dtype=jnp.int32))

    def places(indices: Array) -> Array:
        info = jnp.iinfo(indices.dtype)
        inside = jnp.clip(indices[..., 0], max(-1, info.min), min(count, info.max))
        spread = jnp.expand_dims(inside.astype(jnp.int32) + 1, numbers.offset_dims)
        return jnp.broadcast_to(spread, aval.shape)

    (found,) = build.apply(pieces, node.source, x)
    (place,) = build.apply(places, node.source, indices)
    return _entry(build, place, found, node.source)


def _sliced(build: Builder, node: Node) -> Sequence[Value] | None:
    """A slice whose start is perturbed, axis by axis."""
    value, *starts = node.operands
    if not any(isinstance(start, Ref) for start in starts):
        return None
    for axis, (start, size) in enumerate(zip(starts, node.params["slice_sizes"], strict=True)):
        shape = list(build.aval(value).shape)
        count, shape[axis] = shape[axis] - size + 1, size
        if not isinstance(start, Ref):

            def known(x: Array, start: Array, axis: int = axis, size: int = size) -> Array:
                return lax.dynamic_slice_in_dim(x, start, size, axis)

            (value,) = build.apply(known, node.source, value, start)
            continue
        if count * math.prod(shape) > _MOST:
            return None

        def pieces(x: Array, axis: int = axis, size: int = size, count: int = count) -> Array:
            return jnp.stack([lax.slice_in_dim(x, i, i + size, axis=axis) for i in range(count)])

        def place(start: Array, shape: Sequence[int] = tuple(shape)) -> Array:
            return jnp.broadcast_to(start, shape)

        (found,) = build.apply(pieces, node.source, value)
        (start,) = build.apply(place, node.source, start)
        (value,) = _entry(build, start, found, node.source)
    return [value]


def _entry(build: Builder, place: Value, pieces: Value, source: Source) -> list[Value]:
    """The entries of the pieces `[count, *shape]` at places `[*shape]`, clamped to the range."""

    def bind(place: Array, pieces: Array) -> tuple[Array, ...]:
        inside = jnp.clip(place, 0, len(pieces) - 1).astype(jnp.int32)
        return (jnp.take_along_axis(pieces, inside[None], 0)[0],)

    aval = build.aval(pieces)
    result = (jax.ShapeDtypeStruct(aval.shape[1:], aval.dtype),)
    return build.append("entry", (place, pieces), {}, bind, result, source)


RULES: dict[str, tuple[Rule, ...]] = {
    "dynamic_slice": (_sliced,),
    "gather": (_gathered,),
}
