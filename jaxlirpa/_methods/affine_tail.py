"""The affine tail of a program, bounded as one function.

Interval bounds and forward forms lose a little at every affine function that mixes entries. What
is computed from the last nonlinear functions (a margin from the last layer, say) or from a norm
ball is therefore better written as one affine function of those.
"""

from __future__ import annotations

from collections.abc import Mapping

from jaxlirpa._arrays import is_floating
from jaxlirpa._domains.backward_linear import BackwardLinear
from jaxlirpa._domains.underflow import underflow
from jaxlirpa._graph.graph import INPUT, Graph, Ref
from jaxlirpa._intervals import Interval, intersect
from jaxlirpa._methods.exactness import Quality
from jaxlirpa._methods.problem import Problem
from jaxlirpa._methods.solution import enclose, output_cost
from jaxlirpa._ops.families import Nonlinear, is_exact
from jaxlirpa._ops.registry import record
from jaxlirpa._relax.lines import Lines
from jaxlirpa._relax.planes import Planes
from jaxlirpa._types import Array
from jaxlirpa.sets import ArraySet, Box


def affine(
    problem: Problem,
    boxes: Mapping[Ref, Interval],
    points: Mapping[Ref, Array] | None = None,
) -> BackwardLinear:
    """The backward domain for affine nodes alone, behind the values that sets are given of.

    Args:
        problem: the program, and the sets of the values at which functionals end.
        boxes: of these and of the values behind them.
        points: the values of all these where the sets are at their points; default: computed.
    """

    def no_lines(index: int) -> Lines:
        raise AssertionError(f"node {index} is not affine")

    def no_planes(index: int) -> list[Planes]:
        raise AssertionError(f"node {index} is not affine")

    def slack(index: int) -> Array | None:
        return underflow(problem.graph, boxes, index)

    if points is None:
        points = problem.graph.evaluate_from({ref: s.point() for ref, s in problem.sets.items()})
    return BackwardLinear(problem.graph, points, no_lines, no_planes, slack)


def starts(graph: Graph, ref: Ref) -> bool:
    """Whether affine tails start at a value: at an input, or what a nonlinear node computes."""
    node = graph.nodes[ref.node]
    if node.primitive == INPUT:
        return True
    return isinstance(record(node), Nonlinear) and not is_exact(node)


def loose_outputs(problem: Problem) -> tuple[Ref, ...]:
    """The outputs whose tail has several links, so that it pays to bound it as one."""
    graph = problem.graph
    loose = [r for r in graph.targets if problem.origins[r].quality is Quality.LOOSE]
    return tuple(ref for ref in loose if problem.fuses and is_floating(graph.aval(ref)))


def tail_boxes(problem: Problem, boxes: Mapping[Ref, Interval]) -> dict[Ref, Interval]:
    """Better boxes of the outputs whose affine tail has several links."""
    loose = loose_outputs(problem)
    begin: dict[Ref, ArraySet] = {
        ref: Box.of(box) for ref, box in boxes.items() if starts(problem.graph, ref)
    }
    tail = Problem(problem.graph.returning(loose), {**begin, **problem.sets})
    domain = affine(tail, boxes)
    return {ref: intersect(boxes[ref], enclose(tail, domain, ref).box) for ref in loose}


def fusing_cost(problem: Problem) -> int:
    """Coefficients that bounding the outputs' tails takes."""
    return output_cost(problem.returning(loose_outputs(problem)))
