"""Conversions: which of them are the identity, which round, and which are steps."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlirpa._graph.graph import Node, Value
from jaxlirpa._graph.trace import Builder, Rule
from jaxlirpa._ops.rules.dataflow import sole
from jaxlirpa._types import Array


def _cast(build: Builder, node: Node) -> Sequence[Value] | None:
    """To a shorter format a rounding, to integers a truncation, to truth values a test for zero."""
    source, target = build.aval(node.perturbed[0]).dtype, node.outputs[0].dtype
    if jnp.issubdtype(target, jnp.complexfloating):
        return None  # It is refused under its own name.
    both = [jnp.issubdtype(d, jnp.floating) for d in (source, target)]
    if all(both):
        if jnp.finfo(target).nmant >= jnp.finfo(source).nmant:
            return _there_and_back(build, node)
        name = "round_to"
    else:
        name = "is_nonzero" if target == np.dtype(bool) else "truncate"
    return build.append(name, node.operands, node.params, node.bind, node.outputs, node.source)


def _there_and_back(build: Builder, node: Node) -> Sequence[Value] | None:
    """Rounded to a shorter format and widened again: rounded within the longer one."""
    rounded = sole(build.definition(node.perturbed[0]), "round_to")
    if rounded is None or build.aval(rounded).dtype != node.outputs[0].dtype:
        return None
    info = jnp.finfo(build.aval(node.perturbed[0]).dtype)

    def within(x: Array) -> Array:
        return lax.reduce_precision(x, info.nexp, info.nmant)

    return build.apply(within, node.source, rounded)


RULES: dict[str, tuple[Rule, ...]] = {"convert_element_type": (_cast,)}
