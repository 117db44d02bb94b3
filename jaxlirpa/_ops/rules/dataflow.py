"""What rules ask of the dataflow."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlirpa._graph.graph import Node, Ref, Value
from jaxlirpa._graph.source import Source
from jaxlirpa._graph.trace import Builder
from jaxlirpa._intervals import Interval
from jaxlirpa._types import Array

# Primitives that place the entries of one operand, and nothing else.
PLACING = frozenset({"broadcast_in_dim", "reshape", "squeeze", "expand_dims", "transpose"})
# Larger arrays are not looked at, entry by entry, while tracing.
_MOST = 2**22


class Spread(NamedTuple):
    """A value whose entries are entries of another one.

    Attributes:
        root: the other value.
        places: for every entry of the value, the flat index of the entry of `root`.
    """

    root: Ref
    places: np.ndarray


def spread(build: Builder, value: Any) -> Spread | None:
    """The value that `value` is placed from by broadcasting and reshaping, maybe itself."""
    if not isinstance(value, Ref):
        return None
    value, chain = placement(build, value)
    shape = build.aval(value).shape
    largest = max([math.prod(shape), *(math.prod(n.outputs[0].shape) for n in chain)])
    if largest > _MOST:
        return None
    with jax.ensure_compile_time_eval():
        places = jnp.arange(math.prod(shape)).reshape(shape)
        for node in reversed(chain):
            (places,) = node(places)
        return Spread(value, np.asarray(places))


def placement(build: Builder, value: Ref) -> tuple[Ref, list[Node]]:
    """The value that `value` is placed from, and the nodes that do so, the last one first."""
    chain: list[Node] = []
    while (node := build.definition(value)) and node.primitive in PLACING:
        chain.append(node)
        (value,) = node.perturbed
    return value, chain


def placed(build: Builder, root: Value, chain: Sequence[Node]) -> Value:
    """Another value, placed like the one that `placement` took apart."""
    for node in reversed(chain):
        rest = node.operands[1:]
        (root,) = build.append(
            node.primitive, (root, *rest), node.params, node.bind, node.outputs, node.source
        )
    return root


def same(build: Builder, a: Any, b: Any) -> bool:
    """Whether two values are the same, or the same difference of values placed alike."""
    if a == b:
        return True
    p, q = build.definition(a), build.definition(b)
    if p is None or q is None or p.primitive != "sub" or q.primitive != "sub":
        return False
    return all(_placed_alike(build, x, y) for x, y in zip(p.operands, q.operands, strict=True))


def _placed_alike(build: Builder, a: Any, b: Any) -> bool:
    s, t = spread(build, a), spread(build, b)
    return bool(s and t and s.root == t.root and np.array_equal(s.places, t.places))


def are_placed_alike(build: Builder, value: Ref, root: Ref, like: Ref) -> bool:
    """Whether `value` is `root`, placed in an array as `like` places a value of its own."""
    s, t = spread(build, value), spread(build, like)
    return bool(s and t and s.root == root and np.array_equal(s.places, t.places))


def reduced(shape: Sequence[int], axes: Sequence[int]) -> np.ndarray:
    """For every entry of an array, the flat index of its entry in the array's sum over `axes`."""
    kept = [1 if i in axes else n for i, n in enumerate(shape)]
    return np.broadcast_to(np.arange(math.prod(kept)).reshape(kept), shape)


def is_spread_of(
    build: Builder, value: Any, root: Ref, shape: Sequence[int], axes: Sequence[int]
) -> bool:
    """Whether `value` is `root`, a reduction over `axes`, broadcast back to `shape`."""
    found = spread(build, value)
    return (
        found is not None
        and found.root == root
        and found.places.shape == tuple(shape)
        and bool(np.array_equal(found.places, reduced(shape, axes)))
    )


def entry(build: Builder, value: Value, axis: int, place: int, source: Source) -> Value:
    """A value at one place of an axis, which it lacks: what was put there, where that is seen."""
    node = build.definition(value)
    shape = build.aval(value).shape
    if node is not None and node.primitive == "stack" and node.params["axis"] == axis:
        return node.operands[place]
    if node is not None and node.primitive == "concatenate" and node.params["dimension"] == axis:
        for operand in node.operands:
            length = build.aval(operand).shape[axis]
            if place < length:
                return entry(build, operand, axis, place, source)
            place -= length
    if node is not None and node.primitive == "slice":
        starts, strides = node.params["start_indices"], node.params["strides"]
        whole = build.aval(node.operands[0]).shape
        if without(whole, axis) == without(shape, axis):
            step = 1 if strides is None else strides[axis]
            return entry(build, node.operands[0], axis, starts[axis] + step * place, source)
    if node is not None and node.primitive == "broadcast_in_dim":
        kept = [i for i in range(len(shape)) if i != axis]
        inner = build.aval(node.operands[0]).shape
        if list(node.params["broadcast_dimensions"]) == kept and inner == without(shape, axis):
            return node.operands[0]
    return build.apply(lambda x: lax.index_in_dim(x, place, axis, keepdims=False), source, value)[0]


def without(shape: Sequence[int], axis: int) -> tuple[int, ...]:
    """A shape that lacks one axis."""
    return (*shape[:axis], *shape[axis + 1 :])


def sole(node: Node | None, primitive: str) -> Ref | None:
    """The operand of a node of one perturbed operand and of that primitive, else None."""
    if node is None or node.primitive != primitive or len(node.perturbed) != 1:
        return None
    return node.perturbed[0]


def as_rows(x: Array, axes: Sequence[int]) -> Array:
    """An array with the given axes as one, the last."""
    kept = [i for i in range(x.ndim) if i not in axes]
    sizes = [x.shape[i] for i in kept]
    return jnp.transpose(x, (*kept, *axes)).reshape(*sizes, math.prod(x.shape[i] for i in axes))


def scalar(value: Any) -> float | None:
    """The number of which every entry of a known array is, where that can be told."""
    if isinstance(value, Ref | jax.core.Tracer) or np.size(value) == 0:
        return None
    entries = np.asarray(value, np.float64)
    first = float(entries.flat[0])
    return first if np.all(entries == first) else None


def within(
    build: Builder,
    value: Value,
    others: Sequence[Ref],
    image: Callable[[Sequence[Interval]], Interval],
    source: Source,
    of: Node | None = None,
    **params: Any,
) -> list[Value]:
    """`value`, which is known to lie in `image` of the boxes of `others` as well.

    If a node `of` computes the same from `others`, the value is evaluated by that node: `value` may
    be a rewritten form of it, with more rounding. Later rules see the primitive of `of`.
    """
    if not isinstance(value, Ref):
        return [value]

    def bind(value: Array, *others: Array) -> tuple[Array, ...]:
        return (value,) if of is None else of(*others)

    params = {"image": image, "of": None if of is None else of.primitive, **params}
    avals = (build.aval(value),)
    return build.append("refined", (value, *others), params, bind, avals, source)
