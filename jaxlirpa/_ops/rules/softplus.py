"""Softplus where it is written out, and its slope, which is the logistic function.

`log(exp(x) + exp(0))` leaves no name where it is differentiated. JAX writes its value as
`max(x, 0) + log1p(exp(-|x - 0|))`, with a case for NaN, and its slope as `exp(x - softplus(x))`,
in which an infinite `x` or `softplus(x)` counts as zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxlirpa._graph.graph import Node, Ref, Value
from jaxlirpa._graph.trace import Builder, Rule
from jaxlirpa._ops.rules.dataflow import scalar, sole
from jaxlirpa._types import Array


def _written_out(x: Array) -> Array:
    return jnp.logaddexp(x, jnp.zeros((), x.dtype))


def _softplus(build: Builder, node: Node) -> Sequence[Value] | None:
    """A softplus that is written out."""
    inner: Node | None = node
    for primitive in ("exp", "neg", "abs", "sub"):
        inner = None if inner is None else build.definition(inner.perturbed[0])
        if inner is None or inner.primitive != primitive:
            return None
    if inner is not None and inner.positions == (0,) and scalar(inner.known[0]) == 0:
        build.equate("softplus", _written_out, inner.perturbed[0], node.source)
    return None


def _slope(build: Builder, node: Node) -> Sequence[Value] | None:
    """`exp(x - softplus(x))`, and `exp(-softplus(x))`."""
    difference = build.definition(node.perturbed[0])
    if difference is None or difference.primitive != "sub":
        return None
    minuend, subtrahend = (_finite(build, value) for value in difference.operands)
    x = sole(build.definition(subtrahend), "softplus")
    if x is None:
        return None
    if isinstance(minuend, Ref):
        return build.apply(jax.nn.sigmoid, node.source, x) if minuend == x else None
    if scalar(minuend) == 0:
        return build.apply(lambda x: jax.nn.sigmoid(-x), node.source, x)
    return None


def _finite(build: Builder, value: Value) -> Value:
    """`x`, where a value is `x`, or is 0 for an infinite `x`."""
    choice = build.definition(value)
    if choice is None or choice.primitive != "choose" or len(choice.known) != 1:
        return value
    (test, x), zero = choice.perturbed, choice.known[0]
    equal = build.definition(test)
    if choice.positions != (0, 1) or equal is None or equal.primitive != "eq":
        return value
    infinite = equal.perturbed == (x,) and scalar(equal.known[0]) == math.inf
    return x if infinite and scalar(zero) == 0 else value


RULES: dict[str, tuple[Rule, ...]] = {
    "exp": (_slope,),
    "log1p": (_softplus,),
}
