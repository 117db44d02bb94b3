"""Affine primitives, and products with at least one operand that is known exactly."""

from __future__ import annotations

import jax.numpy as jnp

from jaxlirpa._graph.graph import Graph, Node
from jaxlirpa._graph.jaxpr import sole_primitive
from jaxlirpa._ops import axes
from jaxlirpa._ops.families import Affine, Bilinear, Record


def _narrowing(graph: Graph, node: Node) -> str | None:
    """A conversion that rounds is a step function, not the identity."""
    source, target = graph.aval(node.perturbed[0]).dtype, node.outputs[0].dtype
    if not jnp.issubdtype(target, jnp.floating):
        return (
            f"converting {source} to {target} is a step function; a perturbed value cannot be "
            "an index, a counter or a mask"
        )
    if jnp.finfo(target).nmant < jnp.finfo(source).nmant:
        return f"converting {source} to {target} rounds; compute in one precision throughout"
    return None


def _another(graph: Graph, node: Node) -> str | None:
    """Updates may be combined with entries by any function."""
    del graph
    own = sole_primitive(node.params["update_jaxpr"]) == node.primitive.removeprefix("scatter-")
    return None if own else "the function in its parameters is not its own"


RECORDS: dict[str, Record] = {
    "add": Affine((+1, +1), mixes=False),
    "add_any": Affine((+1, +1), mixes=False),
    "conv_general_dilated": Bilinear(
        mixes=True, along=axes.convolved, together=False, objection=_narrowing
    ),
    "convert_element_type": Affine((+1,), mixes=False),
    "cumsum": Affine((+1,), mixes=True, along=axes.unless_in("axis")),
    "div": Bilinear(mixes=False, operands=(0,), together=False),
    "dot_general": Bilinear(
        mixes=True, along=axes.contracted, together=False, objection=_narrowing
    ),
    "mul": Bilinear(mixes=False, together=False),
    "neg": Affine((-1,), mixes=False),
    "reduce_sum": Affine((+1,), mixes=True, along=axes.reduced),
    "reduce_window_sum": Affine((+1,), mixes=True, along=axes.pooled),
    "scatter-add": Affine(
        (+1, 0, +1), mixes=True, along=axes.scattered, operands=(0, 2), objection=_another
    ),
    "scatter-sub": Affine(
        (+1, 0, -1), mixes=True, along=axes.scattered, operands=(0, 2), objection=_another
    ),
    "sub": Affine((+1, -1), mixes=False),
}
