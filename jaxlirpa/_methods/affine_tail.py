"""Affine tails: the affine functions between the last nonlinear nodes and an output.

Interval bounds and forward bounds lose tightness at every affine function that mixes entries. So a
chain of affine functions is composed first, and bounded as one: the last layer and the margins
computed from it, say. A backward pass through affine nodes alone composes them.
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
    """A backward domain for passes that meet affine nodes only.

    Args:
        problem: the program, and the sets of the values at which the passes end.
        boxes: boxes of those values and of all values computed from them.
        points: all these values where each set is at its point; default: computed.
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
    """Whether affine tails start at a value: it is an input, or computed by a nonlinear node."""
    node = graph.nodes[ref.node]
    if node.primitive == INPUT:
        return True
    return isinstance(record(node), Nonlinear) and not is_exact(node)


def loose_outputs(problem: Problem) -> tuple[Ref, ...]:
    """The outputs whose interval is loose because several affine functions precede them."""
    graph = problem.graph
    loose = [r for r in graph.targets if problem.origins[r].quality is Quality.LOOSE]
    return tuple(ref for ref in loose if problem.fuses and is_floating(graph.aval(ref)))


def tail_boxes(problem: Problem, boxes: Mapping[Ref, Interval]) -> dict[Ref, Interval]:
    """Better boxes of the loose outputs, each from its affine tail as one function."""
    loose = loose_outputs(problem)
    begin: dict[Ref, ArraySet] = {
        ref: Box.of(box) for ref, box in boxes.items() if starts(problem.graph, ref)
    }
    tail = Problem(problem.graph.returning(loose), {**begin, **problem.sets})
    domain = affine(tail, boxes)
    return {ref: intersect(boxes[ref], enclose(tail, domain, ref).box) for ref in loose}


def fusing_cost(problem: Problem) -> int:
    """How many coefficients the passes for the outputs' tails hold."""
    return output_cost(problem.returning(loose_outputs(problem)))
