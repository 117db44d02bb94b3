"""Intervals: a box per value (Gowal et al. 2018, IBP)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from jaxlirpa._domains.ordered import image
from jaxlirpa._graph.graph import Node, Ref
from jaxlirpa._ops.families import Elementwise, Joint, Nonlinear, Opaque, Within
from jaxlirpa._ops.registry import check_domain, record
from jaxlirpa._typing import (
    Array,
    Interval,
    intersect,
    vacuous_where_nan,
    vacuous_where_overflown,
)


def _keep(ref: Ref, box: Interval) -> Interval:
    del ref
    return box


@dataclasses.dataclass(frozen=True)
class IntervalDomain:
    """The forward domain of boxes.

    Attributes:
        tighten: a better box of the operand of a nonlinear function, from another method.
        recall: the same, where it has been computed already.
    """

    tighten: Callable[[Ref, Interval], Interval] = _keep
    recall: Callable[[Ref, Interval], Interval] = _keep

    def step(self, index: int, node: Node, operands: tuple[Interval, ...]) -> tuple[Interval, ...]:
        """Boxes of a node's outputs."""
        del index
        found = record(node)
        if isinstance(found, Nonlinear):
            improve = self.recall if isinstance(found, Within) else self.tighten
            boxes = list(map(improve, node.perturbed, operands))
            return nonlinear_image(node, found, boxes)
        pairs = image(node, found, operands, _act)
        return tuple(vacuous_where_overflown(Interval(*pair)) for pair in pairs)


def nonlinear_image(
    node: Node, found: Nonlinear, boxes: Sequence[Interval]
) -> tuple[Interval, ...]:
    """The range of a nonlinear node over the boxes of its operands."""
    match found:
        case Elementwise():
            (box,) = boxes
            check_domain(node, found, box)
            return (found.relaxation(node).image(box),)
        case Joint():
            return (found.relaxation(node).image(boxes),)
        case Opaque():
            return found.image(node, boxes)
        case Within():
            value, *others = boxes
            return (intersect(value, vacuous_where_nan(found.image(node, others))),)


def _act(node: Node, values: Sequence[Array]) -> tuple[Array, ...]:
    return node(*values)
