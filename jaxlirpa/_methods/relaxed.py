"""A graph whose nonlinear nodes are relaxed on the boxes of their operands."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from jaxlirpa._domains.backward_linear import BackwardLinear
from jaxlirpa._domains.interval import nonlinear_image
from jaxlirpa._domains.underflow import Underflow
from jaxlirpa._graph.graph import INPUT, Graph, Node, Ref
from jaxlirpa._methods.solution import reference
from jaxlirpa._ops.families import Elementwise, Joint, Nonlinear, Opaque, Repeated, Within
from jaxlirpa._ops.registry import record
from jaxlirpa._relax.family import Family, single
from jaxlirpa._relax.lines import Lines, relax, relax_family, tabulated
from jaxlirpa._relax.planes import Planes, constant, relax_family_jointly, relax_jointly
from jaxlirpa._typing import Interval
from jaxlirpa.sets import ArraySet


def nonlinear(graph: Graph) -> list[int]:
    """The live nodes that have a relaxation, and so need the boxes of their operands."""
    nodes = {i: graph.nodes[i] for i in graph.live()}
    found = {i: record(node) for i, node in nodes.items() if node.primitive != INPUT}
    return [i for i, x in found.items() if isinstance(x, Nonlinear) and not isinstance(x, Within)]


class Relaxed:
    """The relaxations of a graph's nodes; each is computed once, when it is asked for.

    Attributes:
        graph: the program.
        sets: of its inputs.
        boxes: of all values, tight ones of the operands of nonlinear nodes; may still grow, but
            must not change.
        domain: backward functionals through the default relaxations.
    """

    def __init__(self, graph: Graph, sets: Mapping[Ref, ArraySet], boxes: Mapping[Ref, Interval]):
        self.graph, self.sets, self.boxes = graph, sets, boxes
        self.lines = functools.cache(self._lines)
        self.planes = functools.cache(self._planes)
        self.domain = BackwardLinear(
            graph, reference(graph, sets), self.lines, self.planes, Underflow(graph, boxes)
        )

    def families(self, index: int) -> list[Family[Lines]] | list[Family[Planes]]:
        """All relaxations of every output of a node."""
        node, boxes = self._operands(index)
        found = record(node)
        if isinstance(found, Elementwise):
            return [relax_family(found.relaxation(node), *boxes)]
        if isinstance(found, Joint):
            return [relax_family_jointly(found.relaxation(node), boxes, found.axes(node))]
        return list(map(single, self.planes(index)))

    def table(self, index: int, families: list[Family[Any]]) -> list[Family[Any]]:
        """Families of a node that are cheap to choose from often: lines are taken from a table."""
        node, (box, *_) = self._operands(index)
        if isinstance(record(node), Elementwise):
            return [tabulated(family, box) for family in families]
        return families

    def nonlinear(self, target: Ref) -> list[int]:
        """The nodes whose relaxations a functional of `target` may pass."""
        return nonlinear(self.graph.returning((target,)))

    def prepare(self, target: Ref) -> None:
        """Computes now what a functional of `target` will ask for: all default relaxations.

        What is computed inside of a loop's body is of no use outside of it.
        """
        self.domain.underflow.behind(target, self.sets.keys())
        for index in self.nonlinear(target):
            if isinstance(record(self.graph.nodes[index]), Elementwise):
                self.lines(index)
            else:
                self.planes(index)

    def _operands(self, index: int) -> tuple[Node, Sequence[Interval]]:
        node = self.graph.nodes[index]
        return node, [self.boxes[ref] for ref in node.perturbed]

    def _lines(self, index: int) -> Lines:
        node, (box,) = self._operands(index)
        found = record(node)
        assert isinstance(found, Elementwise)
        return relax(found.relaxation(node), box)

    def _planes(self, index: int) -> list[Planes]:
        node, boxes = self._operands(index)
        found = record(node)
        if isinstance(found, Joint):
            return [relax_jointly(found.relaxation(node), boxes, found.axes(node))]
        assert isinstance(found, Opaque | Repeated)
        return [constant(image, len(boxes)) for image in nonlinear_image(node, found, boxes)]
