"""Affine functions of integers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from jaxlirpa._graph.graph import Node
from jaxlirpa._intervals import Interval
from jaxlirpa._ops.families import Affine, Bilinear, Move
from jaxlirpa._relax.wraparound import is_integer, real, unless
from jaxlirpa._types import Array


def without_overflow(
    node: Node,
    found: Move | Affine | Bilinear,
    operands: Sequence[Interval],
    images: Sequence[Interval],
) -> list[Interval]:
    """The boxes of an affine node's outputs, or all integers where something may overflow.

    No partial sum is larger than the sum of all moduli. Half of the largest integer is allowed, so
    that the sum may be computed in floating point.
    """
    if isinstance(found, Move) or not is_integer(node.outputs[0]):
        return list(images)
    signs = found.signs if isinstance(found, Affine) else (1,) * len(node.operands)
    supply = iter(operands)

    def modulus(position: int, operand: Any) -> Array:
        if isinstance(found, Affine) and not signs[position]:
            return operand  # an index
        box = next(supply) if position in node.positions else Interval(operand, operand)
        return signs[position] * jnp.maximum(*(jnp.abs(real(limit)) for limit in box))

    sums = node.bind(*(modulus(i, x) for i, x in enumerate(node.operands)))
    info = jnp.iinfo(node.outputs[0].dtype)
    largest = -1 if info.min == 0 and min(signs) < 0 else info.max / 2  # none is below zero
    pairs = zip(sums, images, strict=True)
    return [unless(~(total <= largest), image) for total, image in pairs]
