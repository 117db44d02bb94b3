"""Divisors that are guarded against zero, and quotients that are finite for it.

`sin(x) / x` is `sinc`, also at zero, where a choice puts its value. An entry divided by the norm of
its group, or by more than that, is between -1 and 1, however near to zero the norm may be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from jaxlirpa._graph.graph import Node, Ref, Value
from jaxlirpa._graph.trace import Builder, Rule
from jaxlirpa._intervals import Interval
from jaxlirpa._ops.rules.dataflow import (
    is_spread_of,
    placed,
    placement,
    same,
    scalar,
    sole,
    within,
)
from jaxlirpa._ops.rules.normalise import Mean, as_mean, reshaped
from jaxlirpa._types import Array

# Of what is compared with zero, whether it is on one side of it or apart where the test holds.
_HOLDS = {"ne": True, "gt": True, "lt": True, "eq": False, "le": False, "ge": False}
_RISING = {"gt", "ge"}


class _Apart(NamedTuple):
    """A value that a test compares with zero.

    Attributes:
        x: the value.
        holds: whether it is not zero where the test holds; else where it does not.
        side: 1 if it is positive there, -1 if it is negative, 0 if either.
    """

    x: Ref
    holds: bool
    side: int


class _Guard(NamedTuple):
    """`x`, or a number that is not zero where `x` may be.

    Attributes:
        test: compares `x` with zero.
        apart: what it tells.
        instead: that number.
    """

    test: Ref
    apart: _Apart
    instead: float


def _apart(build: Builder, test: Any) -> _Apart | None:
    node = build.definition(test)
    if node is None or node.primitive not in _HOLDS or len(node.perturbed) != 1:
        return None
    if scalar(node.known[0]) != 0:
        return None
    holds = _HOLDS[node.primitive]
    large = (node.primitive in _RISING) ^ (node.positions == (1,)) ^ (not holds)
    side = 0 if node.primitive in ("eq", "ne") else 1 if large else -1
    return _Apart(node.perturbed[0], holds, side)


def _cases(node: Node, holds: bool) -> tuple[Value, Value]:
    """What is chosen where the test says so, and what is elsewhere."""
    _, a, b = node.operands
    return (b, a) if holds else (a, b)


def _guard(build: Builder, value: Any) -> _Guard | None:
    """Takes a guarded value apart."""
    node = build.definition(value)
    if node is not None and node.primitive == "refined":
        node = build.definition(node.operands[0])
    if node is None or node.primitive != "choose":
        return None
    test = node.operands[0]
    found = _apart(build, test)
    if found is None or not isinstance(test, Ref):
        return None
    chosen, other = _cases(node, found.holds)
    instead = scalar(other)
    return _Guard(test, found, instead) if chosen == found.x and instead else None


def _quotient(build: Builder, node: Node) -> Sequence[Value] | None:
    """By a guarded value, or by the norm of the group of what is divided."""
    numerator, denominator = node.operands
    if not isinstance(denominator, Ref):
        return None
    root, chain = placement(build, denominator)
    guard, squares = _guard(build, root), _no_more(build, root)
    if guard is not None and not chain:
        sine = _sine(build, node, guard)
        if sine is not None:
            return sine
    if guard is None and squares is None:
        return None

    def reciprocal(y: Array) -> Array:
        return lax.integer_pow(y, -1)

    if guard is None:
        (inverse,) = build.apply(reciprocal, node.source, root)
    else:
        name, avals = "guarded_reciprocal", (build.aval(root),)
        (inverse,) = build.append(name, (root,), {}, lambda y: (reciprocal(y),), avals, node.source)
    factor = placed(build, inverse, chain)
    (value,) = build.apply(jnp.multiply, node.source, numerator, factor)
    if squares is None or not isinstance(numerator, Ref):
        return [value]
    inside = same(build, sole(build.definition(squares.x), "square"), numerator)
    shape = node.outputs[0].shape
    if not inside or not is_spread_of(build, denominator, root, shape, squares.axes):
        return [value]
    most = 1 / math.sqrt(squares.scale)

    def image(boxes: Sequence[Interval]) -> Interval:
        (d,) = boxes
        limit = most * (1 + 64 * math.sqrt(math.prod(shape)) * jnp.finfo(d.lower.dtype).eps)
        return Interval(jnp.where(d.lower >= 0, 0, -limit), jnp.where(d.upper <= 0, 0, limit))

    return within(build, value, (numerator,), image, node.source)


def _sine(build: Builder, node: Node, guard: _Guard) -> list[Value] | None:
    """`sin(x) / x` where `x` is not zero, and what the guard makes of it elsewhere."""
    numerator, denominator = node.operands
    argument = sole(build.definition(numerator), "sin")
    if argument is None or argument not in (guard.apart.x, denominator):
        return None
    instead = 0.0 if argument == guard.apart.x else math.sin(guard.instead) / guard.instead

    def quotient(test: Array, x: Array) -> Array:
        found = jnp.sinc(x / math.pi)
        other = jnp.full_like(found, instead)
        return lax.select_n(test, *((other, found) if guard.apart.holds else (found, other)))

    return build.apply(quotient, node.source, guard.test, guard.apart.x)


def _no_more(build: Builder, value: Ref) -> Mean | None:
    """A sum of squares whose root a value is no less than."""
    rooted = False
    while True:
        guard = _guard(build, value)
        plain = reshaped(build, value)
        node = build.definition(value)
        if guard is not None and guard.instead > 0 and guard.apart.side >= 0:
            value = guard.apart.x
        elif plain is not None and plain != value:
            value = plain
        elif node is not None and node.primitive == "sqrt" and not rooted:
            (value,), rooted = node.perturbed, True
        elif node is not None and len(node.perturbed) == 1 and _raises(node):
            (value,) = node.perturbed
        else:
            break
    squares = as_mean(build, value) if rooted else None
    if squares is None or squares.scale <= 0:
        return None
    return squares if sole(build.definition(squares.x), "square") is not None else None


def _raises(node: Node) -> bool:
    """Whether a node's value is no less than its operand."""
    if node.primitive == "max":
        return True
    added = scalar(node.known[0]) if node.primitive == "add" else None
    return added is not None and added >= 0


def _chosen_before(build: Builder, node: Node) -> Sequence[Value] | None:
    """A case that was chosen by the same test; and `sinc`, which needs no value at zero."""
    test, *cases = node.operands
    if not isinstance(test, Ref) or build.aval(test).dtype != bool:
        return None
    before = [build.definition(case) for case in cases]
    inner = [
        case if n is None or n.primitive != "choose" or n.operands[0] != test else n.operands[1 + i]
        for i, (case, n) in enumerate(zip(cases, before, strict=True))
    ]
    found = _apart(build, test)
    if found is not None and found.side == 0:
        chosen, other = inner[::-1] if found.holds else inner
        if scalar(other) == 1 and _is_sinc(build, chosen, found.x):
            return [chosen]
    if all(a is b or a == b for a, b in zip(inner, cases, strict=True) if isinstance(b, Ref)):
        return None
    return build.apply(lax.select_n, node.source, test, *inner)


def _is_sinc(build: Builder, value: Value, x: Ref) -> bool:
    """Whether a value is `sinc` of a multiple of `x`."""
    argument = sole(build.definition(value), "sinc")
    scaled = build.definition(argument)
    if argument == x:
        return True
    return scaled is not None and scaled.primitive in ("mul", "div") and scaled.perturbed == (x,)


RULES: dict[str, tuple[Rule, ...]] = {
    "div": (_quotient,),
    "select_n": (_chosen_before,),
}
