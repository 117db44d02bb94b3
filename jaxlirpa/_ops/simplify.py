"""Rewrites of the graph that make its bounds tighter and leave its values as they are."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from jaxlirpa._graph.graph import Graph, Node


def simplify(graph: Graph) -> Graph:
    """Puts nodes in the place of others that have no record, or a worse one.

    Every `min(max(x, floor), ceiling)` becomes one `clamp` (jnp.clip, relu6 and kin): two kinks
    relaxed together are tighter than one after the other. The inner `max` stays for others that
    may read it, and is not live otherwise. A division of a known by a perturbed number, which is
    not linear as a division by a known one is, becomes a `quotient`.
    """
    return dataclasses.replace(graph, nodes=tuple(_rewritten(graph, n) for n in graph.nodes))


def _rewritten(graph: Graph, node: Node) -> Node:
    if node.primitive == "div" and node.positions == (1,):
        return dataclasses.replace(node, primitive="quotient")
    if node.primitive != "min" or len(node.perturbed) != 1:
        return node
    inner = graph.nodes[node.perturbed[0].node]
    if inner.primitive != "max" or len(inner.perturbed) != 1:
        return node
    (floor,), (x,), (ceiling,) = inner.known, inner.perturbed, node.known
    return dataclasses.replace(
        node,
        primitive="clamp",
        operands=(floor, x, ceiling),
        params={},
        bind=lambda floor, x, ceiling: (jnp.minimum(jnp.maximum(x, floor), ceiling),),
    )
