"""Numbers of 16 bits: each is one of float32, but for some roundings.

A node of bfloat16 or float16 is kept as it is, and nothing reads it in the end: beside it stands
the node that computes the same in float32, and how often that would be rounded is remembered. What
reads the value reads a node `rounded`, of which no more is known than that it is within so many
roundings of its operand: compilers leave roundings out where they see fit, for one reader and not
for another, so every reader has such a node of its own.

This relies on what XLA does. Sums inside of matrix products and convolutions are of float32, and
rounded at their end; other sums may be rounded after every term, in any order. What has no place
in the tables below may round as it likes, and is refused.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlirpa._arrays import is_half
from jaxlirpa._graph.graph import Node, Ref, Value
from jaxlirpa._graph.trace import ANY, Builder, Rule
from jaxlirpa._ops import movement
from jaxlirpa._relax.rounding import growth
from jaxlirpa._types import Array

# Whether one rounds what these read or what they return comes to the same.
_COMMUTING = frozenset(
    {
        *movement.RECORDS,
        *("abs", "clamp", "cummax", "cummin", "max", "min", "neg", "reduce_max", "reduce_min"),
        *("reduce_window_max", "reduce_window_min", "sort", "top_k"),
    }
)
_PRODUCTS = frozenset({"conv_general_dilated", "dot_general"})
# How often results are rounded. What is declared for functions of one operand is tested on all
# numbers of both formats.
_ROUNDINGS: dict[str, int] = {
    **dict.fromkeys(("ceil", "floor", "round", "sign"), 0),
    **dict.fromkeys(("add", "add_any", "mul", "sub"), 1),
    **dict.fromkeys(_PRODUCTS, 1),
    **dict.fromkeys(("div", "sqrt", "square"), 2),
    **dict.fromkeys(("acos", "acosh", "asinh", "atan", "atanh", "cbrt", "cos", "cosh"), 4),
    **dict.fromkeys(("erf", "erf_inv", "erfc", "exp", "expm1", "log", "log1p", "logistic"), 4),
    **dict.fromkeys(("pow", "rsqrt", "sin", "sinh", "tan", "tanh"), 4),
}
_SUMS = frozenset({"cumsum", "reduce_sum", "reduce_window_sum"})
# What leads out of the format, and is the same for longer numbers.
_TESTS = frozenset({"argmax", "argmin", "eq", "ge", "gt", "is_finite", "le", "lt", "ne"})


class Unrounded(NamedTuple):
    """What a value of 16 bits is but for rounding.

    Attributes:
        value: of float32.
        roundings: how often it may be rounded.
    """

    value: Value
    roundings: int


def _in_float32(build: Builder, node: Node) -> Sequence[Value] | None:
    """Functions of bfloat16 and float16, as functions of float32 and roundings."""
    halves = [is_half(build.aval(x)) for x in node.operands]
    if not any(halves) and not any(map(is_half, node.outputs)):
        return None
    unrounded = [_unrounded(build, x) for x in node.operands]
    if any(x is None for x in unrounded):  # They come from what is refused.
        return build.kept(node)
    found = [x for x in unrounded if x is not None]
    if node.primitive in _COMMUTING:
        count = max((x.roundings for x, half in zip(found, halves, strict=True) if half), default=0)
        return _results(build, node, node.bind, [x.value for x in found], count)
    # Conversions to longer formats are the same for all readers.
    use = -1 if node.primitive == "convert_element_type" else len(build.nodes)
    values = [
        _rounded(build, node, x, build.aval(operand).dtype, use)
        for operand, x in zip(node.operands, found, strict=True)
    ]
    if node.primitive == "convert_element_type":
        return _converted(build, node, values)
    if node.primitive in _SUMS:
        return _summed(build, node, values)
    roundings = _roundings(node, all(halves))
    if roundings is not None:
        return _results(build, node, _function(node), values, roundings)
    refused = any(map(is_half, node.outputs))
    return build.kept(_of_longer(node, values) if refused else node)


def _unrounded(build: Builder, value: Value) -> Unrounded | None:
    """What a value is but for rounding: any of more bits itself. None if nothing is known."""
    if not is_half(build.aval(value)):
        return Unrounded(value, 0)
    if isinstance(value, Ref):
        return build.parts.get(value)
    return Unrounded(value.astype(jnp.float32), 0)


def _rounded(build: Builder, node: Node, of: Unrounded, dtype: Any, use: int) -> Value:
    """The value that one reader sees."""
    value, count = of
    if not count or not isinstance(value, Ref):
        return value
    aval, info = build.aval(value), jnp.finfo(dtype)

    def bind(x: Array) -> tuple[Array, ...]:
        return (lax.reduce_precision(x, info.nexp, info.nmant),)

    params = {"dtype": np.dtype(dtype), "count": count, "use": use}
    return build.append("rounded", (value,), params, bind, (aval,), node.source)[0]


def _results(
    build: Builder,
    node: Node,
    function: Callable[..., Any],
    values: Sequence[Value],
    count: int,
) -> list[Value]:
    """The results of a function of longer numbers, of which those of 16 bits stand aside."""
    return _kept(build, node, build.apply(function, node.source, *values), count)


def _kept(build: Builder, node: Node, found: Sequence[Value], count: int) -> list[Value]:
    """A node of 16 bits, beside what it is but for rounding; other results as they are."""
    results = list(found)
    if any(map(is_half, node.outputs)):
        for k, ref in enumerate(build.kept(node)):
            if is_half(node.outputs[k]):
                assert isinstance(ref, Ref)
                build.parts[ref] = Unrounded(found[k], count)
                results[k] = ref
    return results


def _converted(build: Builder, node: Node, values: Sequence[Value]) -> Sequence[Value]:
    """To another format; one that is the shorter of two rounds. There and back it surely does."""
    (value,), dtype = node.perturbed, node.outputs[0].dtype
    if is_half(node.outputs[0]):
        return _results(build, node, lambda x: x.astype(jnp.float32), values, 1)
    before = build.definition(value)
    if before is not None and before.primitive == "convert_element_type":
        (source,) = before.perturbed
        if build.aval(source).dtype == dtype:
            info = jnp.finfo(build.aval(value).dtype)

            def there_and_back(x: Array) -> Array:
                return lax.reduce_precision(x, info.nexp, info.nmant)

            return build.apply(there_and_back, node.source, source)
    return build.apply(lambda x: x.astype(dtype), node.source, *values)


def _summed(build: Builder, node: Node, values: Sequence[Value]) -> list[Value]:
    """A sum, each of whose partial sums may be rounded, in whatever order they are formed."""
    (aval,) = node.outputs
    if node.primitive == "cumsum":
        terms = aval.shape[node.params["axis"]]
    elif node.primitive == "reduce_window_sum":
        terms = math.prod(node.params["window_dimensions"])
    else:
        terms = math.prod(build.aval(values[0]).shape) // max(math.prod(aval.shape), 1)

    def both(x: Array) -> list[Array]:
        return [*node.bind(x), *node.bind(jnp.abs(x))]

    total, moduli = build.apply(both, node.source, *values)
    share = growth(aval.dtype, max(terms - 1, 0))
    longer = jax.ShapeDtypeStruct(aval.shape, jnp.float32)

    def bind(x: Array) -> tuple[Array, ...]:
        return (jnp.zeros_like(x),)

    lost = build.append("lost", (moduli,), {"share": share}, bind, (longer,), node.source)
    return _kept(build, node, build.apply(jnp.add, node.source, total, *lost), 1)


def _roundings(node: Node, of_half: bool) -> int | None:
    """How often a result is rounded, or None if nobody knows."""
    if node.primitive == "integer_pow":
        return _roundings_of_power(node.params["y"])
    if node.primitive == "div" and node.outputs[0].dtype == jnp.float16:
        return 6  # Inverses of known divisors above 16384 are below the normal numbers.
    if node.primitive in _PRODUCTS and not of_half:  # Summed in whatever format.
        return None
    return 0 if node.primitive in _TESTS else _ROUNDINGS.get(node.primitive)


def _roundings_of_power(power: int) -> int | None:
    """Of repeated products; inverses of powers may pass numbers too small to be told apart."""
    if power == -1:
        return 2
    return power - 1 if power > 0 else None


def _function(node: Node) -> Callable[..., Any]:
    """What a node computes, of longer numbers."""
    if node.primitive not in _PRODUCTS:
        return node.bind
    (aval,) = node.outputs
    longer = None if is_half(aval) else aval.dtype
    if node.primitive == "dot_general":
        return functools.partial(
            lax.dot_general,
            dimension_numbers=node.params["dimension_numbers"],
            precision=lax.Precision.HIGHEST,
            preferred_element_type=longer,
        )
    params = {**node.params, "preferred_element_type": longer}
    return functools.partial(lax.conv_general_dilated, **params)


def _of_longer(node: Node, values: Sequence[Value]) -> Node:
    """A node that reads longer numbers, and makes shorter ones of them."""
    dtypes = [None if isinstance(x, Ref) else x.dtype for x in node.operands]
    dtype = next(x.dtype for x in node.outputs if is_half(x))

    def bind(*longer: Array) -> tuple[Array, ...]:
        pairs = zip(longer, dtypes, strict=True)
        return node.bind(*(x.astype(known or dtype) for x, known in pairs))

    return dataclasses.replace(node, operands=tuple(values), bind=bind)


RULES: dict[str, tuple[Rule, ...]] = {ANY: (_in_float32,)}
