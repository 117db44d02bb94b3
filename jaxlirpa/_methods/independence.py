"""Independent examples, proved on the graph.

What a batched function computes from one example usually depends on that example alone. Then no
functional of one example has a coefficient on another, and the linear domains may carry a
functional of every example in one row. Here an axis that indexes the examples is followed from the
inputs through every node; where a node mixes examples, the values behind it have no such axis, and
are bounded as one vector.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TypeAlias, assert_never, cast

from jaxlirpa._graph.graph import Graph, Node, Ref
from jaxlirpa._ops.axes import without
from jaxlirpa._ops.families import (
    Affine,
    Bilinear,
    Elementwise,
    Joint,
    LoopFamily,
    Move,
    Opaque,
    Refined,
)
from jaxlirpa._ops.registry import record
from jaxlirpa._walk import forward
from jaxlirpa.sets import ArraySet
from jaxlirpa.sets.per_example import is_per_example

Axis: TypeAlias = int | None


def proved_batch_axes(
    graph: Graph, sets: Mapping[Ref, ArraySet], fewest: int = 2
) -> dict[Ref, int]:
    """The axis of each value that numbers independent examples, for all values that have one.

    At the inputs it is the leading axis, of the same length for all. Each set must know what it
    leaves to one example, see `ArraySet`.

    Args:
        graph: the program.
        sets: of its inputs.
        fewest: of how many examples on this is of use: one has none to be independent of.
    """
    shapes = [s.aval.shape for s in sets.values()]
    lengths = {shape[0] if shape else 1 for shape in shapes}
    known = all(map(is_per_example, sets.values()))
    if len(lengths) != 1 or not known or max(lengths) < fewest:
        return {}
    states: dict[Ref, Axis] = dict.fromkeys(sets, 0)
    found = forward(graph, _Following(graph, *lengths), states)
    return {ref: axis for ref, axis in found.items() if axis is not None}


def mixing(graph: Graph) -> Node | None:
    """The first node that mixes examples, if it is one."""
    for index in graph.live():
        node, inside = graph.nodes[index], Ref(index, 0) in graph.batch_axes
        if node.perturbed and not inside and all(r in graph.batch_axes for r in node.perturbed):
            return node
    return None


@dataclasses.dataclass(frozen=True)
class _Following:
    """The forward domain of axes.

    Attributes:
        graph: for the shapes of operands.
        count: of the examples.
    """

    graph: Graph
    count: int

    def step(self, index: int, node: Node, operands: tuple[Axis, ...]) -> tuple[Axis, ...]:
        """The axes of a node's outputs, on which all operands must agree."""
        del index
        if isinstance(record(node), Refined):
            return operands[:1]
        positions = zip(node.positions, operands, strict=True)
        found = {None if axis is None else self._follow(node, p, axis) for p, axis in positions}
        axis = found.pop() if len(found) == 1 else None
        fits = all(self._fits(axis, y.shape) for y in node.outputs)
        return (axis if fits else None,) * len(node.outputs)

    def _follow(self, node: Node, position: int, axis: int) -> Axis:
        """Where an axis of one operand ends up.

        Of an opaque function the linear domains use the range alone. No coefficient passes it, so
        that any axis may be said to number the examples.
        """
        found = record(node)
        match found:
            case Move():
                return found.along(self.graph, node, position, axis)
            case Affine() | Bilinear():
                if found.mixes:
                    return found.along(self.graph, node, position, axis)
                return axis if self._is_entry_by_entry(node, position, ()) else None
            case Elementwise():
                return axis if self._is_entry_by_entry(node, position, ()) else None
            case Joint():
                removed = found.axes(node)
                alike = self._is_entry_by_entry(node, position, removed)
                return without(axis, removed) if alike else None
            case Opaque() | LoopFamily() | Refined():
                return axis
            case _:
                assert_never(found)

    def _is_entry_by_entry(self, node: Node, position: int, removed: tuple[int, ...]) -> bool:
        """Whether an operand without some axes broadcasts to the output along axes of length 1."""
        shape = self.graph.aval(cast(Ref, node.operands[position])).shape
        kept = tuple(n for i, n in enumerate(shape) if i not in removed)
        result = node.outputs[0].shape
        alike = len(kept) == len(result)
        return alike and all(n in (1, m) for n, m in zip(kept, result, strict=True))

    def _fits(self, axis: int | None, shape: tuple[int, ...]) -> bool:
        return axis is not None and axis < len(shape) and shape[axis] == self.count
