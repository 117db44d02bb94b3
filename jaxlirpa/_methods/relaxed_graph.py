"""A graph whose nonlinear nodes are relaxed on the boxes of their operands."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, assert_never

import jax
import jax.numpy as jnp

from jaxlirpa._arrays import is_floating
from jaxlirpa._domains.backward_linear import BackwardLinear, Sided
from jaxlirpa._domains.interval import nonlinear_image
from jaxlirpa._domains.underflow import underflow
from jaxlirpa._graph.graph import INPUT, Graph, Node, Ref
from jaxlirpa._intervals import Interval
from jaxlirpa._methods.problem import Problem
from jaxlirpa._ops.families import (
    Affine,
    Bilinear,
    Elementwise,
    Joint,
    LoopFamily,
    Move,
    Nonlinear,
    Opaque,
    Refined,
)
from jaxlirpa._ops.registry import record
from jaxlirpa._relax.lines import Lines, relax, relax_family, tabulated
from jaxlirpa._relax.planes import Planes, constant, relax_family_jointly, relax_jointly
from jaxlirpa._relax.relaxations import Relaxations, single
from jaxlirpa._types import Array, PyTree

Relaxed: TypeAlias = Lines | list[Planes]
"""What a nonlinear node is replaced by: lines, or planes of each output."""


def nonlinear(graph: Graph) -> list[int]:
    """The live nodes that have a relaxation, and so need the boxes of their operands."""
    nodes = {i: graph.nodes[i] for i in graph.live()}
    found = {i: record(node) for i, node in nodes.items() if node.primitive != INPUT}
    return [i for i, x in found.items() if _is_relaxed(x)]


def _is_relaxed(found: Any) -> bool:
    return isinstance(found, Nonlinear) and not isinstance(found, Refined)


@dataclasses.dataclass(frozen=True, eq=False)
class RelaxedGraph:
    """A program as far as its values are bounded, with a relaxation of every nonlinear node.

    Attributes:
        problem: the program, and the sets of its inputs.
        reference: the value of every node at a point of the sets.
        boxes: of the values that are bounded.
        relaxations: by node, the default ones.
        slacks: by node, how far a functional may be off because it was pulled through it.
    """

    problem: Problem
    reference: Mapping[Ref, Array]
    boxes: Mapping[Ref, Interval] = dataclasses.field(default_factory=dict)
    relaxations: Mapping[int, Relaxed] = dataclasses.field(default_factory=dict)
    slacks: Mapping[int, Array | None] = dataclasses.field(default_factory=dict)

    @property
    def domain(self) -> BackwardLinear:
        """Backward functionals through the default relaxations."""
        return BackwardLinear(
            self.problem.graph,
            self.reference,
            self.lines,
            self.planes,
            self.slacks.__getitem__,
        )

    def lines(self, index: int) -> Lines:
        """The default lines of a node of one operand."""
        found = self.relaxations[index]
        assert isinstance(found, Lines)
        return found

    def planes(self, index: int) -> Sequence[Planes]:
        """The default planes of each output of a node of several."""
        found = self.relaxations[index]
        assert not isinstance(found, Lines)
        return found

    def bounded(self, boxes: Mapping[Ref, Interval], until: int | None = None) -> RelaxedGraph:
        """The same with boxes of more values, and more nodes relaxed on them.

        Args:
            boxes: of all values that are bounded.
            until: the last node to be relaxed; default: that of the program.
        """
        graph = self.problem.graph
        relaxations, slacks = dict(self.relaxations), dict(self.slacks)
        for index in graph.live():
            node = graph.nodes[index]
            if until is not None and index > until:
                break
            if node.primitive != INPUT and index not in slacks:
                slacks[index] = underflow(graph, boxes, index)
                if _is_relaxed(record(node)) and any(map(is_floating, node.outputs)):
                    relaxations[index] = _relaxed(node, [boxes[ref] for ref in node.perturbed])
        return dataclasses.replace(self, boxes=dict(boxes), relaxations=relaxations, slacks=slacks)

    def families(self, index: int) -> list[Relaxations[Lines]] | list[Relaxations[Planes]]:
        """All relaxations of every output of a node."""
        node, boxes = self._operands(index)
        found = record(node)
        if isinstance(found, Elementwise):
            return [relax_family(found.relaxation(node), *boxes)]
        if isinstance(found, Joint):
            return [relax_family_jointly(found.relaxation(node), boxes, found.axes(node))]
        return list(map(single, self.planes(index)))

    def table(self, index: int, families: list[Relaxations[Any]]) -> list[Relaxations[Any]]:
        """Families of a node that are cheap to choose from often: lines are taken from a table."""
        node, (box, *_) = self._operands(index)
        if isinstance(record(node), Elementwise):
            return [tabulated(family, box) for family in families]
        return families

    def at(
        self, families: Mapping[int, Sequence[Relaxations[Any]]], alphas: Sided[Mapping[int, Any]]
    ) -> BackwardLinear:
        """Backward functionals through the relaxations at some alphas, a leading axis of rows each.

        Args:
            families: of the nodes that have alphas.
            alphas: for lower and for upper bounds.
        """
        # One evaluation of both sides' relaxations, whose code is most of what is compiled.
        both = jax.tree.map(lambda *sides: jnp.stack(sides), *alphas)
        overrides: dict[int, Any] = {
            i: _sides([_members(*pair) for pair in zip(own, both[i], strict=True)])
            for i, own in families.items()
        }
        return dataclasses.replace(self.domain, overrides=overrides)

    def passed(self, target: Ref) -> list[int]:
        """The nodes whose relaxations a functional of `target` may pass."""
        found = nonlinear(self.problem.graph.returning((target,)))
        return [index for index in found if index in self.relaxations]

    def _operands(self, index: int) -> tuple[Node, Sequence[Interval]]:
        node = self.problem.graph.nodes[index]
        return node, [self.boxes[ref] for ref in node.perturbed]


def _members(family: Relaxations[Any], alpha: PyTree) -> Sided[Any]:
    """The members of both sides, one for every row; or the only one."""
    if not jax.tree.leaves(alpha):
        return Sided(family.default, family.default)
    members = jax.vmap(jax.vmap(family.at))(alpha)
    return Sided(*(jax.tree.map(operator.itemgetter(i), members) for i in range(2)))


def _sides(outputs: Sequence[Sided[Any]]) -> Sided[list[Any]]:
    """The sides of all outputs of a node."""
    return Sided(*(list(side) for side in zip(*outputs, strict=True)))


def _relaxed(node: Node, boxes: Sequence[Interval]) -> Relaxed:
    """The default relaxation of a nonlinear node."""
    found = record(node)
    match found:
        case Elementwise():
            (box,) = boxes
            return relax(found.relaxation(node), box)
        case Joint():
            return [relax_jointly(found.relaxation(node), boxes, found.axes(node))]
        case Opaque() | LoopFamily():
            return [constant(image, len(boxes)) for image in nonlinear_image(node, found, boxes)]
        case Move() | Affine() | Bilinear() | Refined():
            raise AssertionError(f"{node.primitive} is not relaxed")
        case _:
            assert_never(found)
