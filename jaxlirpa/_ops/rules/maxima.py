"""Largest and smallest values, all in terms of one-sided kinks and `reduce_max`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlirpa._graph.graph import Node, Ref, Value
from jaxlirpa._graph.source import Source
from jaxlirpa._graph.trace import Builder, Rule
from jaxlirpa._intervals import Interval
from jaxlirpa._ops.rules.dataflow import scalar, within
from jaxlirpa._types import Array


def _between_two(kinked: Callable[[Array, Array], Array]) -> Rule:
    """The larger or smaller of two values by the kink of their difference, which is one value.

    What the linear domains know of the difference is lost in the two boxes; what the boxes know
    is kept beside it.
    """

    def rule(build: Builder, node: Node) -> Sequence[Value] | None:
        """Of two perturbed values: by the kink of their difference."""
        if len(node.perturbed) < 2:
            return None
        x, y = node.perturbed
        if x == y:
            return [x]

        def image(boxes: Sequence[Interval]) -> Interval:
            a, b = boxes
            return Interval(node(a.lower, b.lower)[0], node(a.upper, b.upper)[0])

        (value,) = build.apply(kinked, node.source, x, y)
        return within(build, value, (x, y), image, node.source, of=node)

    return rule


def _is_extreme(build: Builder, node: Node) -> Sequence[Value] | None:
    """`x == max(x, y)` is `x >= y`, which the rounding of a maximum cannot turn around."""
    for x, extreme in (node.operands, node.operands[::-1]):
        found = build.definition(extreme)
        if found is None or found.primitive != "refined" or not isinstance(x, Ref):
            continue
        if x in found.perturbed[1:]:
            _, a, b = found.perturbed
            y = b if x == a else a
            if found.params["of"] == "max":
                return build.apply(lax.ge, node.source, x, y)
            if found.params["of"] == "min":
                return build.apply(lax.le, node.source, x, y)
    return None


def _never(build: Builder, node: Node) -> Sequence[Value] | None:
    """The larger of a value and minus infinity, the smaller of it and infinity: itself."""
    if len(node.perturbed) != 1:
        return None
    limit = -math.inf if node.primitive == "max" else math.inf
    return list(node.perturbed) if scalar(node.known[0]) == limit else None


def _clamped(build: Builder, node: Node) -> Sequence[Value] | None:
    """`min(max(x, floor), ceiling)` is one clamp: two kinks together are tighter than in turn."""
    if len(node.perturbed) != 1:
        return None
    inner = build.definition(node.perturbed[0])
    if inner is None or inner.primitive != "max" or len(inner.perturbed) != 1:
        return None
    (floor,), (x,), (ceiling,) = inner.known, inner.perturbed, node.known

    def bind(floor: Array, x: Array, ceiling: Array) -> tuple[Array, ...]:
        return (jnp.minimum(jnp.maximum(x, floor), ceiling),)

    return build.append("clamp", (floor, x, ceiling), {}, bind, node.outputs, node.source)


def _clamp(build: Builder, node: Node) -> Sequence[Value] | None:
    """A clamp one of whose limits is perturbed."""
    if node.positions == (1,):
        return None

    def clamp(floor: Array, x: Array, ceiling: Array) -> Array:
        return jnp.minimum(jnp.maximum(x, floor), ceiling)

    return build.apply(clamp, node.source, *node.operands)


def _smallest(build: Builder, node: Node) -> Sequence[Value] | None:
    """The negated largest entry of the negated array."""
    axes = node.params["axes"]
    return build.apply(lambda x: -jnp.max(-x, axes), node.source, *node.operands)


def least(dtype: Any) -> Array:
    """The smallest number of a type: minus infinity, or the smallest integer."""
    floating = jnp.issubdtype(dtype, jnp.floating)
    return jnp.asarray(-jnp.inf if floating else jnp.iinfo(dtype).min, dtype)


def largest(build: Builder, value: Value, mask: np.ndarray, source: Source) -> list[Value]:
    """The largest entry over the first axis among those that count.

    Args:
        build: the nodes so far.
        value: `[n, *shape]`.
        mask: `[n, *shape]`, False where an entry does not count.
        source: the user's line.
    """
    aval = build.aval(value)
    result = (jax.ShapeDtypeStruct(aval.shape[1:], aval.dtype),)

    def bind(x: Array, *masks: Any) -> tuple[Array, ...]:
        return (jnp.max(jnp.where(mask, x, least(x.dtype)), 0),)

    operands = (value,) if mask.all() else (value, jnp.asarray(mask))
    return build.append("reduce_max", operands, {"axes": (0,)}, bind, result, source)


def running(node: Node, shape: tuple[int, ...]) -> tuple[Callable[[Array], Array], np.ndarray]:
    """Every entry beside all before it: `[n, *shape]`, with the mask of those that count."""
    axis, n = node.params["axis"], shape[node.params["axis"]]
    counts = np.tri(n, dtype=bool) if node.params["reverse"] else np.tri(n, dtype=bool).T
    around = [1] * (len(shape) + 1)
    around[0], around[axis + 1] = n, n

    def beside(x: Array) -> Array:
        return jnp.broadcast_to(jnp.expand_dims(jnp.moveaxis(x, axis, 0), axis + 1), (n, *shape))

    return beside, np.broadcast_to(counts.reshape(around), (n, *shape))


def _running_largest(build: Builder, node: Node) -> Sequence[Value] | None:
    """The largest of every entry and all before it."""
    beside, mask = running(node, node.outputs[0].shape)
    (stacked,) = build.apply(beside, node.source, *node.operands)
    return largest(build, stacked, mask, node.source)


def _running_smallest(build: Builder, node: Node) -> Sequence[Value] | None:
    """The smallest of every entry and all before it."""
    axis, reverse = node.params["axis"], node.params["reverse"]

    def smallest(x: Array) -> Array:
        return -lax.cummax(-x, axis, reverse)

    return build.apply(smallest, node.source, *node.operands)


def _top(build: Builder, node: Node) -> Sequence[Value] | None:
    """The values of `top_k` by a sort; its indices stay what they are, and are not bounded."""
    (x,), k = node.operands, node.params["k"]
    axis = node.params.get("axis", -1) % len(node.outputs[0].shape)

    def values(x: Array) -> Array:
        return lax.slice_in_dim(lax.rev(lax.sort(x, dimension=axis), (axis,)), 0, k, axis=axis)

    (found,) = build.apply(values, node.source, x)
    build.nodes.append(node)
    return [found, Ref(len(build.nodes) - 1, 1)]


RULES: dict[str, tuple[Rule, ...]] = {
    "clamp": (_clamp,),
    "cummax": (_running_largest,),
    "cummin": (_running_smallest,),
    "eq": (_is_extreme,),
    "max": (
        _never,
        _between_two(lambda x, y: y + jnp.maximum(x - y, 0)),
    ),
    "min": (_never, _between_two(lambda x, y: x - jnp.maximum(x - y, 0)), _clamped),
    "reduce_min": (_smallest,),
    "top_k": (_top,),
}
