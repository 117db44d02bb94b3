"""Rows behind a dense layer: they are rows of its matrix.

The functional that is the value of some outputs of `W x + b` has the rows of `W` as coefficients on
`x`. To find them by a product with rows of the identity would cost as much as any other layer. The
same goes for what is little more than outputs: of a margin, say, they are differences of rows.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import jax
import jax.numpy as jnp

from jaxlirpa._graph.graph import INPUT, Graph, Node, Ref
from jaxlirpa._ops.families import Affine, Bilinear, Move, is_exact
from jaxlirpa._ops.registry import record
from jaxlirpa._types import Array

# How many times more entries than the target what is before it may have: all are computed.
_LARGER = 2

Columns: TypeAlias = tuple[Ref, Array] | None


def behind_dense(graph: Graph, target: Ref, alike: bool = False) -> tuple[Ref, Array] | None:
    """The operand of the matrix product whose entries, or their sums, a value's entries are.

    What is between the product and the value must not mix many entries. The columns of the matrix
    are passed on through it: so every row takes a few sums, and no product with the matrix.

    Args:
        graph: the program.
        target: the value.
        alike: whether the coefficients of all examples must be the same.

    Returns:
        The operand and coefficients `[entries of target, examples, *operand.shape]`, with one in
        the place of examples where there are none, or the coefficients are the same for all; or
        None where the value is nothing of the kind, or the product one with several vectors at
        once. A vector an example is one vector: entries and operand then are those of an example.
    """
    direct = _direct(graph, target)
    if direct is not None:
        return direct[0], direct[1][:, None]
    found = None if alike else _columns(graph, target, target, {})
    if found is None:
        return None
    operand, columns = found
    shape = list(graph.aval(operand).shape)
    if target in graph.batch_axes:
        columns = jnp.moveaxis(columns, graph.batch_axes[target] + 1, -1)
        del shape[graph.batch_axes[operand]]
    else:
        columns = columns[..., None]
    rows = jnp.moveaxis(columns.reshape(len(columns), -1, columns.shape[-1]), 0, -1)
    return operand, rows.reshape(*rows.shape[:2], *shape)


def _direct(graph: Graph, target: Ref) -> tuple[Ref, Array] | None:
    """Of the outputs of a matrix product, up to a known shift, its operand and matrix."""
    node = graph.nodes[target.node]
    if node.primitive in ("add", "sub") and node.positions == (0,):
        (operand,) = node.perturbed
        same = graph.aval(operand).shape == graph.aval(target).shape
        return _direct(graph, operand) if same else None
    if is_exact(node):
        return _direct(graph, node.perturbed[0])
    if node.primitive != "dot_general" or len(node.perturbed) != 1:
        return None
    (operand,) = node.perturbed
    examples = (graph.batch_axes[operand],) if target in graph.batch_axes else ()
    return _matrix(node, graph.aval(operand).shape, operand, examples)


def _columns(graph: Graph, target: Ref, ref: Ref, known: dict[Ref, Columns]) -> Columns:
    """An operand, and for each of its entries the coefficients `[entries, *shape]` of a value."""
    if ref not in known:
        alike = (target in graph.batch_axes) == (ref in graph.batch_axes)
        fits = alike and graph.size(ref) <= _LARGER * graph.size(target)
        direct = _direct(graph, ref) if fits else None
        if direct is not None:
            known[ref] = direct[0], _unfolded(graph, ref, direct[1])
        else:
            known[ref] = _passed(graph, target, ref, known) if fits else None
    return known[ref]


def _unfolded(graph: Graph, ref: Ref, matrix: Array) -> Array:
    """The columns of a matrix, each shaped as the value; every example has the same."""
    shape = list(graph.aval(ref).shape)
    columns = matrix.reshape(len(matrix), -1).T
    if ref not in graph.batch_axes:
        return columns.reshape(-1, *shape)
    axis = graph.batch_axes[ref]
    own = jnp.expand_dims(columns.reshape(-1, *shape[:axis], *shape[axis + 1 :]), axis + 1)
    return jnp.broadcast_to(own, (len(own), *shape))


def _passed(graph: Graph, target: Ref, ref: Ref, known: dict[Ref, Columns]) -> Columns:
    """The columns of a node's operands, through the node."""
    node = graph.nodes[ref.node]
    if node.primitive == INPUT or not _is_simple(node):
        return None
    found = [_columns(graph, target, operand, known) for operand in node.perturbed]
    parts = [pair for pair in found if pair is not None]
    if len(parts) < len(found) or len({operand for operand, _ in parts}) != 1:
        return None
    zeros = tuple(jnp.zeros(graph.aval(r).shape, graph.aval(r).dtype) for r in node.perturbed)

    def linear(*columns: Array) -> Array:
        return jax.jvp(lambda *xs: node(*xs)[ref.output], zeros, columns)[1]

    return parts[0][0], jax.vmap(linear)(*(columns for _, columns in parts))


def _is_simple(node: Node) -> bool:
    """Whether a node moves entries, or is an affine function of each."""
    found = record(node)
    if isinstance(found, Bilinear):
        return len(node.perturbed) == 1 and not found.mixes
    return isinstance(found, Move) or (isinstance(found, Affine) and not found.mixes)


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
