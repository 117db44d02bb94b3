"""Derivatives of tanh and the logistic function, which JAX writes in terms of their values.

`tanh'(x)` appears as `g (1 - t) + g (1 - t) t` for `t = tanh(x)` backwards and as
`(g + g t) (1 - t)` forwards, and `logistic'(x)` as `g s (1 - s)`. Factor by factor these would be
bounded as if the factors varied independently. So would a second derivative, which is a sum of
products of the first one and of affine functions of `t`, in one order or another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlirpa._graph.graph import Node, Ref, Value
from jaxlirpa._graph.source import Source
from jaxlirpa._graph.trace import Builder, Rule
from jaxlirpa._ops import curves
from jaxlirpa._ops.rules.dataflow import are_placed_alike, placed, placement, scalar, sole
from jaxlirpa._types import Array

# Products of more factors, or of more entries, than this are not taken apart.
_MOST = 8
_LARGEST = 2**20
_SLOPES = {
    "logistic_derivative": curves.LOGISTIC_DERIVATIVE.smooth.function,
    "logistic_second_derivative": curves.LOGISTIC_BEND.smooth.function,
    "tanh_derivative": curves.TANH_DERIVATIVE.smooth.function,
    "tanh_second_derivative": curves.TANH_BEND.smooth.function,
}
_SQUARES = {("square", 2), ("integer_pow", 2)}

# The function, and its second derivative, by the first one.
_BENDS = {
    "logistic_derivative": ("logistic", "logistic_second_derivative"),
    "tanh_derivative": ("tanh", "tanh_second_derivative"),
}


def _factors(build: Builder, value: Value) -> list[Value]:
    """The factors of a product of products, known ones among them; some of very many."""
    found, pending = list[Value](), [value]
    while pending:
        value = pending.pop(0)
        node = build.definition(value)
        if _is_product(node) and len(found) + len(pending) < _MOST:
            assert node is not None
            pending = [*node.operands, *pending]
        else:
            found.append(value)
    return found


def _is_product(node: Node | None) -> bool:
    return node is not None and node.primitive in ("product", "mul")


def _complement(build: Builder, value: Value) -> Ref | None:
    """`y`, where a value is `1 - y`."""
    node = build.definition(value)
    if node is None or node.primitive != "sub" or node.positions != (1,):
        return None
    return node.perturbed[0] if scalar(node.known[0]) == 1 else None


def _append(build: Builder, primitive: str, x: Ref, source: Source) -> Value:
    evaluate, aval = _SLOPES[primitive], build.aval(x)
    return build.append(primitive, (x,), {}, lambda x: (evaluate(x),), (aval,), source)[0]


def _times(build: Builder, factors: Sequence[Value], source: Source) -> Value:
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
    build: Builder, factor: Value, function: str, primitive: str, source: Source
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


def _of_tanh_forwards(build: Builder, node: Node) -> Sequence[Value] | None:
    """`(g + g t) (1 - t)`, in either order."""
    if len(node.perturbed) < 2:
        return None
    for rising, falling in (node.perturbed, node.perturbed[::-1]):
        found = _slope(build, falling, "tanh", "tanh_derivative", node.source)
        total = build.definition(rising)
        if found is None or total is None or total.primitive not in ("add", "add_any"):
            continue
        t, slope = found
        for g, product in (total.operands, total.operands[::-1]):
            rest = _remove(build, _factors(build, product), t, falling)
            if rest is not None and _same(rest, _factors(build, g)):
                return [_times(build, [g, slope], node.source)]
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


def _one_less_square(build: Builder, node: Node) -> Sequence[Value] | None:
    """`1 - t^2`, written out, for `t = tanh(x)`."""
    if node.positions != (1,) or scalar(node.known[0]) != 1:
        return None
    square = build.definition(node.perturbed[0])
    if square is None or (square.primitive, square.params.get("y", 2)) not in _SQUARES:
        return None
    x = sole(build.definition(square.perturbed[0]), "tanh")
    return None if x is None else [_append(build, "tanh_derivative", x, node.source)]


class _Factor(NamedTuple):
    """A factor of a product, that is placed in an array before it is multiplied.

    Attributes:
        value: the factor, or a scalar that stands for an array.
        shape: of that array.
        chain: what places it, the last node first.
    """

    value: Value
    shape: tuple[int, ...]
    chain: tuple[Node, ...] = ()

    def place(self, known: Array) -> Array:
        """A known array in the place of the value."""
        known = jnp.broadcast_to(known, self.shape)
        for node in reversed(self.chain):
            (known,) = node(known)
        return known

    def places(self) -> np.ndarray:
        """Which entry of the value every entry of the array is."""
        with jax.ensure_compile_time_eval():
            return np.asarray(self.place(jnp.arange(math.prod(self.shape)).reshape(self.shape)))


def _root(build: Builder, factor: _Factor) -> tuple[_Factor, Node | None]:
    """The factor before all that merely places it, and the node that computes it."""
    if not isinstance(factor.value, Ref):
        return factor, None
    root, inner = placement(build, factor.value)
    factor = _Factor(root, build.aval(root).shape, (*factor.chain, *inner))
    return factor, build.definition(root)


def _signed(build: Builder, operands: Sequence[_Factor]) -> tuple[int, list[_Factor]]:
    """The sign of a product, and its factors; some of very many."""
    sign, found, pending = 1, list[_Factor](), list(operands)
    while pending:
        factor, node = _root(build, pending.pop(0))
        negated = node is not None and node.primitive == "neg"
        if negated or (_is_product(node) and len(found) + len(pending) < _MOST):
            assert node is not None
            sign = -sign if negated else sign
            pending = [*(factor._replace(value=x) for x in node.operands), *pending]
        else:
            found.append(factor)
    return sign, found


def _second(build: Builder, node: Node) -> Sequence[Value] | None:
    """`n (a + b y)` for a derivative `n` of `y`: `y n` is, but for a part of `n`, the second one.

    `tanh'' = -2 t tanh'`, and `logistic'' = (1 - 2 s) logistic'`.
    """
    if len(node.perturbed) < 2 or math.prod(node.outputs[0].shape) > _LARGEST:
        return None
    shape = node.outputs[0].shape
    sign, factors = _signed(build, [_Factor(operand, shape) for operand in node.operands])
    for i, n in enumerate(factors):
        slope = build.definition(n.value)
        if slope is None or slope.primitive not in _BENDS:
            continue
        for k, factor in enumerate(factors):
            line = _line(build, factor, slope, n.places()) if k != i else None
            if line is None or not isinstance(factor.value, Ref):
                continue
            whole = _combined(build, n, slope, line, sign, node.source)
            rest = [_value(build, f) for j, f in enumerate(factors) if j not in (i, k)]
            return [_times(build, [*rest, whole], node.source)]
    return None


def _value(build: Builder, factor: _Factor) -> Value:
    if isinstance(factor.value, Ref):
        return placed(build, factor.value, factor.chain)
    return factor.place(factor.value)


def _combined(
    build: Builder, n: _Factor, slope: Node, line: tuple[Array, Array], sign: int, source: Source
) -> Value:
    """`n (a + b y)` as a sum of the first derivative and the second."""
    (x,), (_, primitive) = slope.perturbed, _BENDS[slope.primitive]
    bend = _append(build, primitive, x, source)
    a, b = (sign * coefficient for coefficient in line)
    if slope.primitive == "logistic_derivative":
        a = a + 0.5 * b
    terms = [(a, n), (-0.5 * b, n._replace(value=bend))]
    terms = [(k, factor) for k, factor in terms if scalar(k) != 0] or terms[:1]
    scaled = [build.apply(jnp.multiply, source, k, _value(build, f))[0] for k, f in terms]
    return scaled[0] if len(scaled) == 1 else build.apply(jnp.add, source, *scaled)[0]


def _line(
    build: Builder, factor: _Factor, slope: Node, places: np.ndarray, depth: int = 0
) -> tuple[Array, Array] | None:
    """`a` and `b`, where a factor is `a + b y`, entry by entry.

    Args:
        build: the nodes so far.
        factor: to take apart.
        slope: the derivative of `y`.
        places: where that derivative is placed.
        depth: of the sums and products that the factor was found in.
    """
    factor, node = _root(build, factor)
    if not isinstance(factor.value, Ref):
        known = factor.place(factor.value)
        return known, jnp.zeros_like(known)
    assert node is not None
    if node.primitive == _BENDS[slope.primitive][0] and node.perturbed == slope.perturbed:
        ones = jnp.ones(places.shape, node.outputs[0].dtype)
        return (0 * ones, ones) if np.array_equal(factor.places(), places) else None
    if node.primitive not in ("add", "add_any", "sub", "neg", "mul") or depth == _MOST:
        return None
    parts = list[tuple[Array, Array]]()
    for operand in node.operands:
        part = _line(build, factor._replace(value=operand), slope, places, depth + 1)
        if part is None:
            return None
        parts.append(part)
    if node.primitive == "mul":
        (first, steep), (second, steeper) = parts  # one of the two is known
        return first * second, first * steeper + steep * second
    sign = -1 if node.primitive in ("sub", "neg") else 1
    a, b = (sum(c[:-1], sign * c[-1]) for c in zip(*parts, strict=True))
    return a, b


RULES: dict[str, tuple[Rule, ...]] = {
    "add": (_of_tanh,),
    "add_any": (_of_tanh,),
    "mul": (_of_tanh_forwards, _of_logistic, _second),
    "one_minus_square": (_complement_of_square,),
    "sub": (_one_less_square,),
}
