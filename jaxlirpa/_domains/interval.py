"""Intervals: a box per value (Gowal et al. 2018, IBP)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from jaxlirpa._domains.ordered import image
from jaxlirpa._graph.graph import Node, Ref
from jaxlirpa._ops.families import Elementwise
from jaxlirpa._ops.registry import record
from jaxlirpa._typing import Array, Interval, vacuous_where_overflown


def _keep(ref: Ref, box: Interval) -> Interval:
    del ref
    return box


@dataclasses.dataclass(frozen=True)
class IntervalDomain:
    """The forward domain of boxes.

    Attributes:
        tighten: a better box of the operand of a nonlinear function, from another method.
    """

    tighten: Callable[[Ref, Interval], Interval] = _keep

    def step(self, index: int, node: Node, operands: tuple[Interval, ...]) -> tuple[Interval, ...]:
        """Boxes of a node's outputs."""
        del index
        found = record(node)
        if isinstance(found, Elementwise):
            box = self.tighten(node.perturbed[0], operands[0])
            return (found.relaxation(node).image(box),)
        pairs = image(node, found, operands, _act)
        return tuple(vacuous_where_overflown(Interval(*pair)) for pair in pairs)


def _act(node: Node, values: Sequence[Array]) -> tuple[Array, ...]:
    return node(*values)
