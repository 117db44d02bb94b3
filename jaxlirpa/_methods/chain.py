"""Chains of affine functions, bounded as one.

Interval bounds and forward forms lose a little at every affine function that mixes entries. What
is computed from the last nonlinear functions (a margin from the last layer, say) or from a norm
ball is therefore better written as one affine function of those.
"""

from __future__ import annotations

from collections.abc import Mapping

from jaxlirpa._domains.backward_linear import BackwardLinear
from jaxlirpa._domains.underflow import Underflow
from jaxlirpa._graph.graph import INPUT, Graph, Ref
from jaxlirpa._methods.exactness import Quality, origins
from jaxlirpa._methods.solution import enclose, output_cost
from jaxlirpa._ops.families import Nonlinear, is_exact
from jaxlirpa._ops.registry import record
from jaxlirpa._relax.lines import Lines
from jaxlirpa._relax.planes import Planes
from jaxlirpa._typing import Interval, intersect, is_floating
from jaxlirpa.sets import ArraySet, Box


def affine(
    graph: Graph, sets: Mapping[Ref, ArraySet], boxes: Mapping[Ref, Interval]
) -> BackwardLinear:
    """The backward domain for affine nodes alone, behind the values that sets are given of.

    Args:
        graph: the program.
        sets: of the values at which functionals end.
        boxes: of these and of the values behind them.
    """

    def no_lines(index: int) -> Lines:
        raise AssertionError(f"node {index} is not affine")

    def no_planes(index: int) -> list[Planes]:
        raise AssertionError(f"node {index} is not affine")

    points = graph.evaluate_from({ref: s.point() for ref, s in sets.items()})
    return BackwardLinear(graph, points, no_lines, no_planes, Underflow(graph, boxes))


def starts(graph: Graph, ref: Ref) -> bool:
    """Whether affine chains start at a value: at an input, or what a nonlinear node computes."""
    node = graph.nodes[ref.node]
    if node.primitive == INPUT:
        return True
    return isinstance(record(node), Nonlinear) and not is_exact(node)


def loose_targets(graph: Graph, sets: Mapping[Ref, ArraySet]) -> tuple[Ref, ...]:
    """The outputs whose chain has several links, so that it pays to bound it as one."""
    origin = origins(graph, sets)
    loose = [ref for ref in graph.targets if origin[ref].quality is Quality.LOOSE]
    return tuple(ref for ref in loose if is_floating(graph.aval(ref)))


def merged(
    graph: Graph, sets: Mapping[Ref, ArraySet], boxes: Mapping[Ref, Interval]
) -> dict[Ref, Interval]:
    """Better boxes of the outputs whose affine chain has several links."""
    loose = loose_targets(graph, sets)
    begin: dict[Ref, ArraySet] = {
        ref: Box.of(box) for ref, box in boxes.items() if starts(graph, ref)
    }
    begin.update(sets)
    domain = affine(graph.returning(loose), begin, boxes)
    return {ref: intersect(boxes[ref], enclose(graph, begin, domain, ref).box) for ref in loose}


def merging_cost(graph: Graph, sets: Mapping[Ref, ArraySet]) -> int:
    """Coefficients that bounding the outputs' chains takes."""
    return output_cost(graph.returning(loose_targets(graph, sets)), sets)
