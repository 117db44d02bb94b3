"""Shapes that change while entries stay in order."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jaxlirpa._graph.graph import Node, Ref, Value
from jaxlirpa._graph.trace import Builder, Rule


def _reshaped(build: Builder, node: Node) -> Sequence[Value] | None:
    """A broadcast that repeats no entry only adds axes of length one."""
    x, shape = node.operands[0], node.outputs[0].shape
    if not isinstance(x, Ref) or math.prod(build.aval(x).shape) != math.prod(shape):
        return None
    return build.apply(lambda x: x.reshape(shape), node.source, x)


RULES: dict[str, tuple[Rule, ...]] = {"broadcast_in_dim": (_reshaped,)}
