"""Affine nodes on a pair `lower <= upper`: what intervals and forward linear forms share.

Both domains carry an enclosure as two elements of a vector space, numbers or affine forms, on
which an affine node acts directly. All they have to supply is that action.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp

from jaxlirpa._arrays import where
from jaxlirpa._graph.graph import Node, Ref
from jaxlirpa._ops.families import Affine, Bilinear, Move
from jaxlirpa._types import Array, PyTree

Vector: TypeAlias = PyTree
Pair: TypeAlias = tuple[Vector, Vector]
Action: TypeAlias = Callable[[Node, Sequence[Vector]], Sequence[Vector]]


def image(
    node: Node, record: Move | Affine | Bilinear, pairs: Sequence[Pair], act: Action
) -> list[Pair]:
    """The enclosure of every output of an affine node.

    Args:
        node: the node.
        record: what its primitive is.
        pairs: the lower and the upper element of each perturbed operand.
        act: applies a node to one element per perturbed operand.
    """
    if isinstance(record, Bilinear):
        (pair,) = pairs
        return _product(node, pair, act) if record.mixes else _scaled(node, pair, act)
    signs = record.signs if isinstance(record, Affine) else (1,) * len(node.operands)
    rising = [signs[position] > 0 for position in node.positions]
    lower = [lo if up else hi for (lo, hi), up in zip(pairs, rising, strict=True)]
    upper = [hi if up else lo for (lo, hi), up in zip(pairs, rising, strict=True)]
    return list(zip(act(node, lower), act(node, upper), strict=True))


def _scaled(node: Node, pair: Pair, act: Action) -> list[Pair]:
    """Entries times a known factor, whose sign decides which end becomes which."""
    (factor,) = node.known
    falling = jnp.signbit(factor)  # also of -0.0, by which one may divide

    def choose(x: Array, y: Array) -> Array:
        return where(jnp.broadcast_to(falling, x.shape), y, x)

    lower = jax.tree.map(choose, *pair)
    upper = jax.tree.map(choose, *reversed(pair))
    return list(zip(act(node, [lower]), act(node, [upper]), strict=True))


def _product(node: Node, pair: Pair, act: Action) -> list[Pair]:
    """A known matrix or kernel `W`: `W c - |W| r <= W x <= W c + |W| r` for `|x - c| <= r`."""
    centre = jax.tree.map(lambda a, b: 0.5 * a + 0.5 * b, *pair)
    radius = jax.tree.map(lambda a, b: 0.5 * b - 0.5 * a, *pair)
    moduli = tuple(x if isinstance(x, Ref) else jnp.abs(x) for x in node.operands)
    (middle,) = act(node, [centre])
    (spread,) = act(dataclasses.replace(node, operands=moduli), [radius])
    lower = jax.tree.map(jnp.subtract, middle, spread)
    return [(lower, jax.tree.map(jnp.add, middle, spread))]
