"""Interpolation in a known table, `jnp.interp`, as a piecewise linear function with knots."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax

from jaxlirpa._graph.graph import Node, Value
from jaxlirpa._graph.trace import Builder, Rule
from jaxlirpa._types import Array


def _with_knots(build: Builder, node: Node) -> Sequence[Value] | None:
    """A value that the user gives beyond the table is a second knot at its end, where it jumps."""
    (aval,), (x,) = node.outputs, node.perturbed
    periodic, left, right = (node.params[key] for key in ("periodic", "left", "right"))

    def table(xs: Array, ys: Array, *others: Array) -> tuple[Array, Array]:
        xs, ys = xs.astype(aval.dtype), ys.astype(aval.dtype)
        if periodic:
            return _over_a_period(xs, ys, jnp.abs(others[0]))
        if len(xs) == 1:
            xs, ys = jnp.tile(xs, 2), jnp.tile(ys, 2)
        beyond = [y.astype(aval.dtype)[None] for y in others]
        if left == "given":
            xs, ys = jnp.concatenate([xs[:1], xs]), jnp.concatenate([beyond.pop(0), ys])
        if right == "given":
            xs, ys = jnp.concatenate([xs, xs[-1:]]), jnp.concatenate([ys, beyond.pop(0)])
        return xs, ys

    def argument(x: Array, *others: Array) -> Array:
        x = x.astype(aval.dtype)
        return x % jnp.abs(others[0]) if periodic else x

    xs, ys, *others = node.known
    knots = build.apply(table, node.source, xs, ys, *others)
    (at,) = build.apply(argument, node.source, x, *others)

    def bind(x: Array, xs: Array, ys: Array) -> tuple[Array, ...]:
        first, last = (None if end == "given" else end for end in (left, right))
        return (jnp.interp(x, xs, ys, first, last),)

    return build.append("piecewise_linear", (at, *knots), {}, bind, node.outputs, node.source)


def _over_a_period(xs: Array, ys: Array, period: Array) -> tuple[Array, Array]:
    """The table over one period, and one knot more on either side."""
    xs, ys = lax.sort_key_val(xs % period, ys)
    before, after = xs[-1:] - period, xs[:1] + period
    return jnp.concatenate([before, xs, after]), jnp.concatenate([ys[-1:], ys, ys[:1]])


RULES: dict[str, tuple[Rule, ...]] = {"interp": (_with_knots,)}
