"""Softmax, logsumexp and their kin, wherever they are written out.

Softmax does not change when a number is added to all logits, so the maximum that is subtracted
first for the sake of floating point has no place in its bounds. What matters are the differences
of the logits: `softmax(x)_i = 1 / sum_j exp(x_j - x_i)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlirpa._graph.graph import Node, Ref, Value
from jaxlirpa._graph.source import Source
from jaxlirpa._graph.trace import Builder, Rule
from jaxlirpa._ops.rules.dataflow import (
    as_rows,
    is_spread_of,
    placed,
    placement,
    reduced,
    sole,
    spread,
)
from jaxlirpa._ops.rules.maxima import running
from jaxlirpa._types import Array, Shaped


def _sum_of_exponentials(build: Builder, value: Any) -> tuple[Ref, tuple[int, ...]] | None:
    """`z` and the axes, where a value is `sum(exp(z))`."""
    node = build.definition(value)
    exponentials = sole(node, "reduce_sum")
    z = sole(build.definition(exponentials), "exp")
    return None if z is None or node is None else (z, tuple(node.params["axes"]))


def _unshifted(build: Builder, z: Ref, axes: tuple[int, ...]) -> Ref:
    """`x`, where `z = x - m` for some `m` that is constant along the axes; else `z`."""
    node = build.definition(z)
    if node is None or node.primitive != "sub" or not isinstance(node.operands[0], Ref):
        return z
    x, shift = node.operands
    return x if isinstance(x, Ref) and _is_constant(build, shift, axes) else z


def _is_constant(build: Builder, shift: Any, axes: tuple[int, ...]) -> bool:
    """Whether a value's entries along the axes are one and the same."""
    if not isinstance(shift, Ref):
        return np.size(shift) == 1
    found = spread(build, shift)
    if found is None:
        return False
    least = found.places.min(axes, keepdims=True)
    return bool(np.all(found.places == least))


def differences(x: Array, axes: tuple[int, ...]) -> Array:
    """`x_j - x_i` over the given axes as one, `[..., i, j]`; exactly zero for `i = j`."""
    rows = as_rows(x, axes)
    apart = 1 - np.eye(rows.shape[-1], dtype=x.dtype)
    return (rows[..., None, :] - rows[..., :, None]) * apart


def _placed_back(rows: Array, shape: Sequence[int], axes: tuple[int, ...]) -> Array:
    """From `[..., i]` to the shape of `x` in `as_rows`."""
    kept = [i for i in range(len(shape)) if i not in axes]
    order = (*kept, *axes)
    whole = rows.reshape([shape[i] for i in order])
    return jnp.transpose(whole, [order.index(i) for i in range(len(shape))])


def _append(
    build: Builder,
    primitive: str,
    evaluate: Callable[..., Array],
    operands: tuple[Value, ...],
    axes: tuple[int, ...],
    source: Source,
) -> Value:
    """A node that reduces axes of its operands, which broadcast."""
    found = list(map(build.aval, operands))
    whole = jnp.broadcast_shapes(*(aval.shape for aval in found))
    shape = tuple(n for i, n in enumerate(whole) if i not in axes)
    avals: tuple[Shaped, ...] = (jax.ShapeDtypeStruct(shape, found[0].dtype),)

    def bind(*values: Array) -> tuple[Array, ...]:
        return (evaluate(*values),)

    return build.append(primitive, operands, {"axes": axes}, bind, avals, source)[0]


def _of_differences(logits: Array, entry: Array, apart: Array) -> Array:
    del logits, entry
    return jnp.exp(-jax.nn.logsumexp(apart, -1))


def _softmax(build: Builder, node: Node) -> Sequence[Value] | None:
    """`exp(z) / sum(exp(z))`."""
    numerator, denominator = node.operands
    z = sole(build.definition(numerator), "exp")
    root = spread(build, denominator)
    found = _sum_of_exponentials(build, root.root) if root else None
    if z is None or found is None or root is None or found[0] != z:
        return None
    axes, shape = found[1], node.outputs[0].shape
    if not is_spread_of(build, denominator, root.root, shape, axes):
        return None
    x = _unshifted(build, z, axes)

    def operands(x: Array) -> tuple[Array, ...]:
        rows = as_rows(x, axes)
        return rows[..., None, :], rows[..., :, None], differences(x, axes)

    parts = tuple(build.apply(operands, node.source, x))
    last = (len(build.aval(x).shape) - len(axes) + 1,)
    rows = _append(build, "softmax", _of_differences, parts, last, node.source)
    return build.apply(lambda r: _placed_back(r, shape, axes), node.source, rows)


def _logsumexp(build: Builder, node: Node) -> Sequence[Value] | None:
    """`log(sum(exp(z)))`, also of the sum as it is placed in an array."""
    root, chain = placement(build, node.perturbed[0])
    found = _sum_of_exponentials(build, root)
    if found is None:
        return None
    return [placed(build, _append_logsumexp(build, *found, node.source), chain)]


def _positive(build: Builder, node: Node) -> Sequence[Value] | None:
    """The modulus of a sum of exponentials is the sum."""
    root, _ = placement(build, node.perturbed[0])
    return None if _sum_of_exponentials(build, root) is None else list(node.perturbed)


def _append_logsumexp(build: Builder, z: Value, axes: tuple[int, ...], source: Source) -> Value:
    return _append(build, "logsumexp", lambda x: jax.nn.logsumexp(x, axes), (z,), axes, source)


def _shifted_back(build: Builder, node: Node) -> Sequence[Value] | None:
    """`logsumexp(x - m) + m`."""
    if len(node.perturbed) < 2:
        return None
    for value, shift in (node.perturbed, node.perturbed[::-1]):
        below, above = spread(build, value), spread(build, shift)
        if below is None or above is None:
            continue
        inner = build.definition(below.root)
        if inner is None or inner.primitive != "logsumexp" or len(inner.operands) != 1:
            continue
        (z,), axes = inner.perturbed, tuple(inner.params["axes"])
        x = _unshifted(build, z, axes)
        minus = spread(build, build.nodes[z.node].operands[1]) if x != z else None
        if minus is None or minus.root != above.root:
            continue
        # The entry of m that was taken from a group is the one that is added to its sum.
        taken = np.empty(math.prod(inner.outputs[0].shape), int)
        shape = build.aval(z).shape
        taken[reduced(shape, axes).reshape(-1)] = minus.places.reshape(-1)
        if np.array_equal(taken[below.places], above.places):
            whole = _append_logsumexp(build, x, axes, node.source)
            return build.apply(_taken(below.places), node.source, whole)
    return None


def _taken(places: np.ndarray) -> Callable[[Array], Array]:
    return lambda x: x.reshape(-1)[places]


def _log_softmax(build: Builder, node: Node) -> Sequence[Value] | None:
    """`z - logsumexp(z)`."""
    if len(node.perturbed) < 2:
        return None
    z, level = node.perturbed
    root = spread(build, level)
    inner = build.definition(root.root) if root else None
    if root is None or inner is None or inner.primitive != "logsumexp" or len(inner.operands) > 1:
        return None
    axes, shape = tuple(inner.params["axes"]), node.outputs[0].shape
    if inner.perturbed[0] != z or not is_spread_of(build, level, root.root, shape, axes):
        return None
    x = _unshifted(build, z, axes)
    (apart,) = build.apply(lambda x: differences(x, axes), node.source, x)
    last = (len(build.aval(apart).shape) - 1,)
    rows = _append_logsumexp(build, apart, last, node.source)
    return build.apply(lambda r: -_placed_back(r, shape, axes), node.source, rows)


def _running_logsumexp(build: Builder, node: Node) -> Sequence[Value] | None:
    """Over every entry and all before it."""
    beside, mask = running(node, node.outputs[0].shape)
    (stacked,) = build.apply(beside, node.source, *node.operands)

    def evaluate(x: Array, mask: Array) -> Array:
        return jax.nn.logsumexp(jnp.where(mask, x, -jnp.inf), 0)

    operands = (stacked, jnp.asarray(mask))
    return [_append(build, "logsumexp", evaluate, operands, (0,), node.source)]


RULES: dict[str, tuple[Rule, ...]] = {
    "abs": (_positive,),
    "add": (_shifted_back,),
    "cumlogsumexp": (_running_logsumexp,),
    "div": (_softmax,),
    "log": (_logsumexp,),
    "sub": (_log_softmax,),
}
