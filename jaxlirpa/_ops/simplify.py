"""Rewrites of the graph that make its bounds tighter and leave its values as they are."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from jaxlirpa._graph.graph import Graph, Node


def simplify(graph: Graph) -> Graph:
    """Merges every `min(max(x, floor), ceiling)` into one `clamp` (jnp.clip, relu6 and kin).

    Two kinks relaxed together are tighter than one after the other. The inner `max` stays for
    others that may read it, and is not live otherwise.
    """
    return dataclasses.replace(graph, nodes=tuple(_merged(graph, n) for n in graph.nodes))


def _merged(graph: Graph, node: Node) -> Node:
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
