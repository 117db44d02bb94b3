"""Rows behind a dense layer: they are rows of its matrix.

The functional that is the value of some outputs of `W x + b` has the rows of `W` as coefficients on
`x`. To find them by a product with rows of the identity would cost as much as any other layer.
"""

from __future__ import annotations

import math

import jax.numpy as jnp

from jaxlirpa._graph.graph import Graph, Node, Ref
from jaxlirpa._typing import Array


def behind_dense(graph: Graph, target: Ref) -> tuple[Ref, Array] | None:
    """The operand of the matrix product that a value is, up to a known shift, and its matrix.

    Args:
        graph: the program.
        target: the value.

    Returns:
        The operand and coefficients `[entries of target, *operand.shape]`, or None where the value
        is nothing of the kind, or a product with several vectors at once. A vector an example is
        one vector: entries and operand then are those of an example.
    """
    node = graph.nodes[target.node]
    if node.primitive in ("add", "sub") and node.positions == (0,):
        (operand,) = node.perturbed
        same = graph.aval(operand).shape == graph.aval(target).shape
        return behind_dense(graph, operand) if same else None
    if node.primitive == "within" and "exact" in node.params:
        return behind_dense(graph, node.perturbed[0])
    if node.primitive != "dot_general" or len(node.perturbed) != 1:
        return None
    (operand,) = node.perturbed
    examples = (graph.examples[operand],) if target in graph.examples else ()
    return _matrix(node, graph.aval(operand).shape, operand, examples)


def _matrix(
    node: Node, shape: tuple[int, ...], operand: Ref, examples: tuple[int, ...]
) -> tuple[Ref, Array] | None:
    (contracted, batched) = node.params["dimension_numbers"]
    (position,) = node.positions
    own, other = contracted[position], contracted[1 - position]
    (known,) = node.known
    single = math.prod(shape) == math.prod(shape[i] for i in (*own, *examples))
    if any(batched) or not single or known.dtype != node.outputs[0].dtype:
        return None
    free = [i for i in range(known.ndim) if i not in other]
    # The operand has axes of length one besides, and that of the examples is no entry's.
    order = [b for _, b in sorted(zip(own, other, strict=True))]
    matrix = jnp.transpose(known, (*free, *order))
    entries = math.prod(known.shape[i] for i in free)
    return operand, matrix.reshape(entries, *(n for i, n in enumerate(shape) if i not in examples))
