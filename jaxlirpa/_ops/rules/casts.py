"""Conversions: which of them are the identity, which round, and which are steps."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from jaxlirpa._graph.graph import Node, Value
from jaxlirpa._graph.trace import Builder, Rule


def _cast(build: Builder, node: Node) -> Sequence[Value] | None:
    source, target = build.aval(node.perturbed[0]).dtype, node.outputs[0].dtype
    both = [jnp.issubdtype(d, jnp.floating) for d in (source, target)]
    if all(both):
        if jnp.finfo(target).nmant >= jnp.finfo(source).nmant:
            return None
        name = "round_to"
    else:
        name = "is_nonzero" if target == np.dtype(bool) else "truncate"
    return build.append(name, node.operands, node.params, node.bind, node.outputs, node.source)


RULES: dict[str, tuple[Rule, ...]] = {"convert_element_type": (_cast,)}
