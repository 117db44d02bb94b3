"""Intervals: a box per value (Gowal et al. 2018, IBP)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from jaxlirpa._domains.integer_affine import without_overflow
from jaxlirpa._domains.ordered import image
from jaxlirpa._graph.graph import Graph, Node, Ref
from jaxlirpa._graph.loops import Loop
from jaxlirpa._intervals import Interval, intersect, vacuous_where_nan, vacuous_where_overflown
from jaxlirpa._ops.families import Elementwise, Joint, LoopFamily, Nonlinear, Opaque, Refined
from jaxlirpa._ops.registry import check, check_domain, record
from jaxlirpa._relax.wraparound import by_reals, is_integer
from jaxlirpa._types import Array
from jaxlirpa._walk import forward


class IntervalDomain:
    """The forward domain of boxes."""

    def step(self, index: int, node: Node, operands: tuple[Interval, ...]) -> tuple[Interval, ...]:
        """Boxes of a node's outputs."""
        del index
        found = record(node)
        if isinstance(found, Nonlinear):
            return nonlinear_image(node, found, operands)
        images = [Interval(*pair) for pair in image(node, found, operands, _act)]
        return tuple(map(vacuous_where_overflown, without_overflow(node, found, operands, images)))


def nonlinear_image(
    node: Node, found: Nonlinear, boxes: Sequence[Interval]
) -> tuple[Interval, ...]:
    """The range of a nonlinear node over the boxes of its operands."""
    dtype = node.outputs[0].dtype
    match found:
        case Elementwise():
            (box,) = boxes
            check_domain(node, found, box)
            if is_integer(node.outputs[0]):
                return (by_reals(lambda real: found.relaxation(node).image(*real), boxes, dtype),)
            return (found.relaxation(node).image(box),)
        case Joint():
            if is_integer(node.outputs[0]):
                return (by_reals(found.relaxation(node).image, boxes, dtype),)
            return (found.relaxation(node).image(boxes),)
        case Opaque():  # It might sort or count a limit that is no number like any other.
            return found.image(node, list(map(vacuous_where_nan, boxes)))
        case Refined():
            value, *others = boxes
            return (intersect(value, vacuous_where_nan(found.image(node, others))),)
        case LoopFamily():
            return _trips(node, boxes)
        case _:
            assert_never(found)


def _trips(node: Node, boxes: Sequence[Interval]) -> tuple[Interval, ...]:
    """The boxes of a loop's outputs: a trip after the other, in a loop over boxes."""
    loop: Loop = node.params["loop"]
    supply = iter(boxes)
    operands = [
        next(supply) if isinstance(x, Ref) else _point(x) if point else x
        for x, point in zip(node.operands, loop.unknown, strict=True)
    ]

    def trip(graph: Graph, inputs: Sequence[Interval]) -> list[Interval | Array]:
        check(graph)
        states = dict(zip(graph.inputs, inputs, strict=True))
        forward(graph, IntervalDomain(), states)
        return [states[x] if isinstance(x, Ref) else x for x in graph.outputs]

    results = loop.run(operands, trip, _point)
    return tuple(x for x in results if isinstance(x, Interval))


def _point(x: Array) -> Interval:
    return Interval(x, x)


def _act(node: Node, values: Sequence[Array]) -> tuple[Array, ...]:
    return node(*values)
