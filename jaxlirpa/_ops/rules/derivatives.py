"""Derivatives of tanh and the logistic function, which JAX writes in terms of their values.

`tanh'(x)` appears as `g (1 - t) + g (1 - t) t` for `t = tanh(x)`, and `logistic'(x)` as
`g s (1 - s)`. Factor by factor these would be bounded as if the factors varied independently.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp

from jaxlirpa._graph.graph import Node, Ref, Value
from jaxlirpa._graph.trace import Builder, Rule
from jaxlirpa._ops import curves
from jaxlirpa._ops.rules.dataflow import are_placed_alike, placed, placement, scalar, sole

# Products of more factors than this are not taken apart.
_MOST = 8
_SLOPES = {
    "logistic_derivative": curves.LOGISTIC_DERIVATIVE.smooth.function,
    "tanh_derivative": curves.TANH_DERIVATIVE.smooth.function,
}


def _factors(build: Builder, value: Value) -> list[Value]:
    """The factors of a product of products, known ones among them."""
    node = build.definition(value)
    if node is None or node.primitive not in ("product", "mul"):
        return [value]
    return [factor for operand in node.operands for factor in _factors(build, operand)]


def _complement(build: Builder, value: Value) -> Ref | None:
    """`y`, where a value is `1 - y`."""
    node = build.definition(value)
    if node is None or node.primitive != "sub" or node.positions != (1,):
        return None
    return node.perturbed[0] if scalar(node.known[0]) == 1 else None


def _append(build: Builder, primitive: str, x: Ref, source: str) -> Value:
    evaluate, aval = _SLOPES[primitive], build.aval(x)
    return build.append(primitive, (x,), {}, lambda x: (evaluate(x),), (aval,), source)[0]


def _times(build: Builder, factors: Sequence[Value], source: str) -> Value:
    """The product of some values, the last of which has the shape of the result."""
    *rest, result = factors
    for factor in rest:
        (result,) = build.apply(jnp.multiply, source, result, factor)
    return result


def _remove(build: Builder, factors: list[Value], root: Ref, like: Ref) -> list[Value] | None:
    """The factors without `root`, placed as `like` is; None where it is not among them."""
    for i, factor in enumerate(factors):
        if isinstance(factor, Ref) and are_placed_alike(build, factor, root, like):
            return factors[:i] + factors[i + 1 :]
    return None


def _slope(
    build: Builder, factor: Value, function: str, primitive: str, source: str
) -> tuple[Ref, Value] | None:
    """`y` and the derivative of `y = function(x)`, placed as `factor`, which is `1 - y`."""
    if not isinstance(factor, Ref):
        return None
    root, chain = placement(build, factor)
    y = _complement(build, root)
    x = sole(build.definition(y), function)
    if y is None or x is None:
        return None
    return y, placed(build, _append(build, primitive, x, source), chain)


def _of_tanh(build: Builder, node: Node) -> Sequence[Value] | None:
    """`g (1 - t) + g (1 - t) t`, in either order."""
    if len(node.perturbed) < 2:
        return None
    for once, twice in (node.perturbed, node.perturbed[::-1]):
        factors = _factors(build, once)
        for i, factor in enumerate(factors if len(factors) <= _MOST else ()):
            found = _slope(build, factor, "tanh", "tanh_derivative", node.source)
            if found is None or not isinstance(factor, Ref):
                continue
            t, slope = found
            rest = _remove(build, _factors(build, twice), t, factor)
            if rest is not None and _same(rest, factors):
                return [_times(build, [*factors[:i], *factors[i + 1 :], slope], node.source)]
    return None


def _same(a: Sequence[Value], b: Sequence[Value]) -> bool:
    """Whether two lists hold the same factors, in any order."""

    def names(factors: Sequence[Value]) -> list[str]:
        return sorted(str(f) if isinstance(f, Ref) else str(id(f)) for f in factors)

    return names(a) == names(b)


def _of_logistic(build: Builder, node: Node) -> Sequence[Value] | None:
    """`s (1 - s)`, among other factors."""
    if len(node.perturbed) < 2:
        return None
    factors = [f for operand in node.operands for f in _factors(build, operand)]
    if len(factors) > _MOST:
        return None
    for i, factor in enumerate(factors):
        found = _slope(build, factor, "logistic", "logistic_derivative", node.source)
        if found is None or not isinstance(factor, Ref):
            continue
        s, slope = found
        others = _remove(build, factors[:i] + factors[i + 1 :], s, factor)
        if others is not None:
            return [_times(build, [*others, slope], node.source)]
    return None


def _complement_of_square(build: Builder, node: Node) -> Sequence[Value] | None:
    """`1 - t^2` for `t = tanh(x)`."""
    x = sole(build.definition(node.perturbed[0]), "tanh")
    return None if x is None else [_append(build, "tanh_derivative", x, node.source)]


RULES: dict[str, tuple[Rule, ...]] = {
    "add": (_of_tanh,),
    "add_any": (_of_tanh,),
    "mul": (_of_logistic,),
    "one_minus_square": (_complement_of_square,),
}
