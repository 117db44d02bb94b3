"""Normalisation over features: variances and `d / sqrt(c sum(d^2) + e)`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlirpa._graph.graph import Node, Ref, Value
from jaxlirpa._graph.trace import Builder, Rule
from jaxlirpa._ops.rules.dataflow import is_spread_of, same, scalar, sole, spread
from jaxlirpa._types import Array


class Mean(NamedTuple):
    """`scale * sum(x)` over some axes."""

    x: Ref
    axes: tuple[int, ...]
    scale: float


def as_mean(build: Builder, value: Any) -> Mean | None:
    """Recognises a scaled sum, also behind reshapes that keep the order of its entries."""
    scale = 1.0
    node = build.definition(reshaped(build, value))
    if node is not None and node.primitive in ("div", "mul") and len(node.perturbed) == 1:
        factor = scalar(node.known[0])
        if not factor:
            return None
        scale = 1 / factor if node.primitive == "div" else factor
        node = build.definition(reshaped(build, node.perturbed[0]))
    x = sole(node, "reduce_sum")
    return None if x is None or node is None else Mean(x, tuple(node.params["axes"]), scale)


def reshaped(build: Builder, value: Any) -> Ref | None:
    """The value that has the same entries in the same order, before all reshapes."""
    found = spread(build, value)
    if found is None:
        return None
    root_size = math.prod(build.aval(found.root).shape)
    ordered = np.array_equal(found.places.reshape(-1), np.arange(root_size))
    return found.root if ordered else None


def _variance(build: Builder, node: Node) -> Sequence[Value] | None:
    """`mean(x^2) - mean(x)^2`, as the mean of the squared deviations, which cannot be negative."""
    if len(node.perturbed) < 2:
        return None
    squares = as_mean(build, node.perturbed[0])
    square = sole(build.definition(node.perturbed[1]), "square")
    mean = as_mean(build, square) if square is not None else None
    if squares is None or mean is None:
        return None
    x = sole(build.definition(squares.x), "square")
    count = math.prod(build.aval(mean.x).shape[i] for i in mean.axes)
    if (
        square is None
        or x != mean.x
        or squares[1:] != mean[1:]
        or not math.isclose(mean.scale * count, 1)
    ):
        return None
    axes, shape = mean.axes, node.outputs[0].shape

    def variance(x: Array, mean: Array) -> Array:
        kept = [1 if i in axes else n for i, n in enumerate(x.shape)]
        deviation = x - mean.reshape(kept)
        return jnp.mean(lax.square(deviation), axes).reshape(shape)

    return build.apply(variance, node.source, x, square)


def _normalised(build: Builder, node: Node) -> Sequence[Value] | None:
    """`d * rsqrt(c sum(d^2) + e)`."""
    if len(node.perturbed) < 2:
        return None
    for d, factor in (node.perturbed, node.perturbed[::-1]):
        found = spread(build, factor)
        inner = sole(build.definition(found.root), "rsqrt") if found else None
        if found is None or inner is None:
            continue
        floor = 0.0
        total = build.definition(inner)
        if total is not None and total.primitive == "add" and len(total.perturbed) == 1:
            added = scalar(total.known[0])
            if added is None or added < 0:
                continue
            floor, inner = added, total.perturbed[0]
        inner = _without_relu(build, inner)
        squares = as_mean(build, inner)
        if squares is None or squares.scale <= 0:
            continue
        if not same(build, sole(build.definition(squares.x), "square"), d):
            continue
        shape = node.outputs[0].shape
        if not is_spread_of(build, factor, found.root, shape, squares.axes):
            continue
        params = {
            "axes": squares.axes,
            "scale": squares.scale,
            "floor": floor,
            "centred": _is_centred(build, d, squares.axes),
        }
        operands = (d, factor)
        return build.append("normalise", operands, params, node.bind, node.outputs, node.source)
    return None


def _without_relu(build: Builder, value: Ref) -> Ref:
    """The operand of `max(0, v)` for a mean of squares `v`, which is no less."""
    node = build.definition(reshaped(build, value))
    operand = sole(node, "max")
    if operand is None or node is None or scalar(node.known[0]) != 0:
        return value
    mean = as_mean(build, operand)
    return operand if mean and sole(build.definition(mean.x), "square") else value


def _is_centred(build: Builder, d: Ref, axes: tuple[int, ...]) -> bool:
    """Whether `d = x - mean(x)` over the axes, so that it sums to zero."""
    node = build.definition(d)
    if node is None or node.primitive != "sub" or len(node.perturbed) != 2:
        return False
    x, mean = node.perturbed
    found = spread(build, mean)
    whole = as_mean(build, found.root) if found else None
    if found is None or whole is None or whole.x != x or whole.axes != axes:
        return False
    count = math.prod(build.aval(x).shape[i] for i in axes)
    same = is_spread_of(build, mean, found.root, build.aval(d).shape, axes)
    return same and math.isclose(whole.scale * count, 1)


RULES: dict[str, tuple[Rule, ...]] = {"mul": (_normalised,), "sub": (_variance,)}
