"""Axes along which a linear primitive keeps things apart.

Each rule is a batching rule. From an axis of one operand, it returns the axis of the output that
numbers the same examples. It returns None if the primitive mixes examples, or if that depends on
the values of indices.
"""

from __future__ import annotations

import math

import numpy as np

from jaxlirpa._graph.graph import Graph, Node, Ref
from jaxlirpa._graph.jaxpr import is_traced
from jaxlirpa._ops.families import AxisRule


def stays(graph: Graph, node: Node, position: int, axis: int) -> int | None:
    """Entry by entry; also what leaves every place along an axis where it is.

    A slice, or an update by one, that is as long as the axis can only begin at its beginning.
    """
    length = _shape(graph, node, position)[axis]
    return axis if all(aval.shape[axis] == length for aval in node.outputs) else None


def unless_in(name: str) -> AxisRule:
    """As `stays`, unless a parameter names the axis."""

    def rule(graph: Graph, node: Node, position: int, axis: int) -> int | None:
        found = node.params[name]
        named = axis in (found if isinstance(found, tuple | list) else (found,))
        return None if named else stays(graph, node, position, axis)

    return rule


def reduced(graph: Graph, node: Node, position: int, axis: int) -> int | None:
    """Over some axes, which the output lacks."""
    del graph, position
    return without(axis, node.params["axes"])


def squeezed(graph: Graph, node: Node, position: int, axis: int) -> int | None:
    """Axes of length one."""
    del graph, position
    return without(axis, node.params["dimensions"])


def without(axis: int, removed: tuple[int, ...]) -> int | None:
    """An axis among those that are left when some are removed."""
    return None if axis in removed else axis - sum(i < axis for i in removed)


def broadcast(graph: Graph, node: Node, position: int, axis: int) -> int | None:
    """To some axes of a larger array."""
    places = node.params["broadcast_dimensions"]
    length = _shape(graph, node, position)[axis]
    return places[axis] if node.outputs[0].shape[places[axis]] == length else None


def reshaped(graph: Graph, node: Node, position: int, axis: int) -> int | None:
    """An axis stays whole if as many entries are before it, and as many behind."""
    before = _shape(graph, node, position)
    if node.params.get("dimensions") is not None:
        return None
    for place, length in enumerate(node.outputs[0].shape):
        count = math.prod(node.outputs[0].shape[:place])
        if (length, count) == (before[axis], math.prod(before[:axis])):
            return place
    return None


def transposed(graph: Graph, node: Node, position: int, axis: int) -> int | None:
    """Permuted."""
    del graph, position
    return tuple(node.params["permutation"]).index(axis)


def stacked(graph: Graph, node: Node, position: int, axis: int) -> int | None:
    """A new axis in between."""
    del graph, position
    new = node.params["axis"]
    return axis + (axis >= new)


def unstacked(graph: Graph, node: Node, position: int, axis: int) -> int | None:
    """AxisRule one axis into several arrays."""
    del graph, position
    return without(axis, (node.params["axis"],))


def padded(graph: Graph, node: Node, position: int, axis: int) -> int | None:
    """Where nothing is added along the axis."""
    del graph
    unchanged = position == 0 and tuple(node.params["padding_config"][axis]) == (0, 0, 0)
    return axis if unchanged else None


def gathered(graph: Graph, node: Node, position: int, axis: int) -> int | None:
    """Batched, as whole slices, or by known indices that count along an axis of the output."""
    numbers = node.params["dimension_numbers"]
    shape, result = _shape(graph, node, position), node.outputs[0].shape
    batch = [i for i in range(len(result)) if i not in numbers.offset_dims]
    if axis in numbers.operand_batching_dims:
        which = numbers.operand_batching_dims.index(axis)
        return batch[numbers.start_indices_batching_dims[which]]
    if axis not in numbers.collapsed_slice_dims:
        removed = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
        whole = node.params["slice_sizes"][axis] == shape[axis]
        place = without(axis, removed)
        return numbers.offset_dims[place] if whole and place is not None else None
    indices = node.operands[1]
    if isinstance(indices, Ref) or is_traced(indices):
        return None
    along = np.asarray(indices)[..., numbers.start_index_map.index(axis)]
    for number, length in enumerate(along.shape):
        counted = np.arange(length).reshape(-1, *[1] * (along.ndim - number - 1))
        if length == shape[axis] and np.array_equal(along, np.broadcast_to(counted, along.shape)):
            return batch[number]
    return None


def scattered(graph: Graph, node: Node, position: int, axis: int) -> int | None:
    """Entries of the operand stay; updates are batched, or whole along the axis."""
    if position == 0:
        return axis
    numbers, shape = node.params["dimension_numbers"], node.outputs[0].shape
    if axis in numbers.update_window_dims:
        removed = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
        kept = [i for i in range(len(shape)) if i not in removed]
        place = kept[numbers.update_window_dims.index(axis)]
        return place if shape[place] == _shape(graph, node, position)[axis] else None
    own = without(axis, numbers.update_window_dims)
    if own not in numbers.scatter_indices_batching_dims:
        return None
    return numbers.operand_batching_dims[numbers.scatter_indices_batching_dims.index(own)]


def tiled(graph: Graph, node: Node, position: int, axis: int) -> int | None:
    """Where it is not repeated."""
    return stays(graph, node, position, axis) if node.params["reps"][axis] == 1 else None


def contracted(graph: Graph, node: Node, position: int, axis: int) -> int | None:
    """An axis of a batch of products, or a free one: those of the first operand come first."""
    (contracting, batched) = node.params["dimension_numbers"]
    if axis in batched[position]:
        return tuple(batched[position]).index(axis)
    if axis in contracting[position]:
        return None
    inner = [(*contracting[i], *batched[i]) for i in range(2)]
    place = without(axis, inner[position])
    before = len(_shape(graph, node, 0)) - len(inner[0]) if position == 1 else 0
    return None if place is None else len(batched[0]) + before + place


def convolved(graph: Graph, node: Node, position: int, axis: int) -> int | None:
    """The batch of images."""
    del graph
    numbers = node.params["dimension_numbers"]
    batch = position == 0 and axis == numbers.lhs_spec[0] and node.params["batch_group_count"] == 1
    return numbers.out_spec[0] if batch else None


def pooled(graph: Graph, node: Node, position: int, axis: int) -> int | None:
    """An axis along which windows have length one, and nothing is padded or cut off."""
    names = "window_dimensions", "window_strides", "window_dilation", "base_dilation"
    single = all(node.params[name][axis] == 1 for name in names)
    apart = single and tuple(node.params["padding"][axis]) == (0, 0)
    return stays(graph, node, position, axis) if apart else None


def _shape(graph: Graph, node: Node, position: int) -> tuple[int, ...]:
    operand = node.operands[position]
    return tuple(graph.aval(operand).shape if isinstance(operand, Ref) else np.shape(operand))
