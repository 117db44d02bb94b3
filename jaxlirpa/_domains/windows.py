"""Where the windows of `windowed_linear` lie: static geometry, known before anything is computed.

For the pixel at `i` along one axis, a window covers `stride * i + start` to
`stride * i + start + size - 1` of the image that it multiplies. All pixels of the target have
windows of one size, so that shapes are static. The batch is an axis like the spatial ones, with
windows of size one: convolutions keep examples apart.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxlirpa._graph.graph import INPUT, Graph, Node, Ref
from jaxlirpa._ops.families import Affine, Bilinear, Elementwise
from jaxlirpa._ops.registry import record
from jaxlirpa._types import Array
from jaxlirpa._walk import backward
from jaxlirpa.sets import ArraySet

# Indices are constants of the compiled program: not more of them than this at one node.
_MOST_PLACES = 2**22


class NotLocal(Exception):
    """Windows do not apply; the dense domain does."""


class Geometry(NamedTuple):
    """Where the windows lie, one entry an axis: the batch, then space.

    Attributes:
        start, stride, size: see the module.
        clean: whether all that sticks out of the image is zero already.
    """

    start: tuple[int, ...]
    stride: tuple[int, ...]
    size: tuple[int, ...]
    clean: bool


class Plan(NamedTuple):
    """Windows before anything is computed.

    Attributes:
        geometry: where they lie.
        windowed, dense: the entries that they hold up to here, and that dense rows would.
        widest: the most that they hold at one place.
    """

    geometry: Geometry
    windowed: int
    dense: int
    widest: int


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which axis of the images of a graph is which.

    Attributes:
        order: the batch, the spatial axes, the channels.
        grid: the target's batch and spatial sizes; a window per entry.
        widest: the most coefficients that a row has.
        pixels: the numbers of the entries of the grid that have a window; None for all.
    """

    order: tuple[int, ...]
    grid: tuple[int, ...]
    widest: int = 0
    pixels: Array | None = None

    @property
    def inverse(self) -> tuple[int, ...]:
        """The permutation that undoes `order`."""
        return tuple(self.order.index(i) for i in range(len(self.order)))

    def sizes(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Batch and spatial sizes of an image."""
        return tuple(shape[i] for i in self.order[:-1])

    def canonical(self, x: Array, shape: Sequence[int]) -> Array:
        """An image `[batch, *space, channels]`, from one that broadcasts to `shape`."""
        return jnp.transpose(jnp.broadcast_to(x, shape), self.order)

    def rows(self, x: Array) -> Array:
        """A value of the target's shape as `[pixels, channels]`."""
        rows = self.canonical(x, x.shape).reshape(-1, x.shape[self.order[-1]])
        return rows if self.pixels is None else rows[self.pixels]

    def image(self, rows: Array) -> Array:
        """Rows of all pixels, in the target's shape."""
        return jnp.transpose(rows.reshape(*self.grid, -1), self.inverse)

    def gather(self, image: Array, geometry: Geometry) -> Array:
        """What a canonical image holds under every window, `[pixels, size * channels]`."""
        sizes = image.shape[:-1]
        flat, inside = self.places(geometry, sizes)
        values = jnp.take(image.reshape(-1, image.shape[-1]), flat.reshape(-1), axis=0)
        values = jnp.where(inside.reshape(-1, 1), values, 0)
        return values.reshape(flat.shape[0], -1)

    def places(self, geometry: Geometry, sizes: tuple[int, ...]) -> tuple[Any, Any]:
        """Flat indices `[pixels, window]` into an image, and whether they are inside it."""
        # The places of all pixels are constants.
        numpy: Any = np if self.pixels is None else jnp
        pixels = numpy.unravel_index(
            np.arange(math.prod(self.grid)) if self.pixels is None else self.pixels, self.grid
        )
        rows = len(pixels[0])
        index, inside = np.zeros((rows, 1), int), np.ones((rows, 1), bool)
        for axis, at in enumerate(pixels):
            start, stride = geometry.start[axis], geometry.stride[axis]
            extent, size = geometry.size[axis], sizes[axis]
            along = (stride * at[:, None] + start + np.arange(extent))[:, None]
            index = (index[..., None] * size + along.clip(0, size - 1)).reshape(rows, -1)
            inside = (inside[..., None] & (along >= 0) & (along < size)).reshape(rows, -1)
        return index, inside


def slide(node: Node, layout: Layout, geometry: Geometry) -> Geometry:
    """The windows over the operand of a convolution or a pooling sum."""
    order, params = layout.order, node.params
    if node.primitive == "conv_general_dilated":
        numbers = params["dimension_numbers"]
        specs = {(s[0], *s[2:], s[1]) for s in (numbers.lhs_spec, numbers.out_spec)}
        plain = {*params["lhs_dilation"]} == {1} and params["batch_group_count"] == 1
        if node.positions != (0,) or specs != {order} or not plain:
            raise NotLocal
        kernel = [node.known[0].shape[i] for i in numbers.rhs_spec[2:]]
        window, strides = [1, *kernel], [1, *params["window_strides"]]
        dilation, low = [1, *params["rhs_dilation"]], [0, *(p[0] for p in params["padding"])]
    elif node.primitive == "reduce_window_sum":
        window, strides, dilation, pads = (
            [params[key][i] for i in order]
            for key in ("window_dimensions", "window_strides", "window_dilation", "padding")
        )
        if {*params["base_dilation"]} != {1} or window[-1] != 1 or window[0] != 1:
            raise NotLocal
        low = [p[0] for p in pads]
    else:
        raise NotLocal
    axes = range(len(order) - 1)
    return Geometry(
        start=tuple(geometry.start[i] * strides[i] - low[i] for i in axes),
        stride=tuple(geometry.stride[i] * strides[i] for i in axes),
        size=tuple(
            (geometry.size[i] - 1) * strides[i] + (window[i] - 1) * dilation[i] + 1 for i in axes
        ),
        clean=False,
    )


def union(a: Geometry, b: Geometry) -> Geometry:
    if a.stride != b.stride:
        raise NotLocal
    start = tuple(map(min, a.start, b.start))
    ends = [max(s + n, t + m) for s, n, t, m in zip(a.start, a.size, b.start, b.size, strict=True)]
    size = tuple(end - s for end, s in zip(ends, start, strict=True))
    return Geometry(start, a.stride, size, a.clean and b.clean)


@dataclasses.dataclass(frozen=True)
class _Planning:
    """The backward domain of plans: where windows would lie, and how many entries they hold."""

    graph: Graph
    layout: Layout

    def add(self, a: Plan, b: Plan) -> Plan:
        geometry, widest = union(a.geometry, b.geometry), max(a.widest, b.widest)
        return Plan(geometry, a.windowed + b.windowed, a.dense + b.dense, widest)

    def pull(
        self, index: int, node: Node, outputs: tuple[Plan | None, ...]
    ) -> list[tuple[Ref, Plan]]:
        del index
        found, plan = record(node), outputs[0]
        if (
            plan is None
            or len(outputs) > 1
            or any(
                len(self.graph.aval(ref).shape) != len(self.layout.order) for ref in node.perturbed
            )
        ):
            raise NotLocal
        geometry = plan.geometry
        if isinstance(found, Elementwise):
            geometry = geometry._replace(clean=True)
        elif not isinstance(found, Affine | Bilinear) or found.mixes:
            geometry = slide(node, self.layout, geometry)
        plans = []
        for ref in node.perturbed:
            shape = self.graph.aval(ref).shape
            channels = shape[self.layout.order[-1]]
            if math.prod(self.layout.grid) * math.prod(geometry.size) > _MOST_PLACES:
                raise NotLocal
            held = math.prod(geometry.size) * channels
            dense, widest = plan.dense + self.graph.size(ref), max(plan.widest, held)
            plans.append((ref, Plan(geometry, plan.windowed + held, dense, widest)))
        return plans


def layout_of(graph: Graph, sets: Mapping[Ref, ArraySet], target: Ref) -> Layout | None:
    """How to carry the rows of `target` as windows, or None where that is impossible or idle."""
    order = _image_axes(graph, target)
    if order is None or not all(s.is_box for s in sets.values()):
        return None
    shape = graph.aval(target).shape
    layout = Layout(order, tuple(shape[i] for i in order[:-1]))
    one, zero = (1,) * len(layout.grid), (0,) * len(layout.grid)
    plan = Plan(Geometry(zero, one, one, clean=True), 0, 0, 0)
    try:
        found = backward(graph, _Planning(graph, layout), {target: plan}, sets.__contains__)
    except NotLocal:
        return None
    plans = found.values()
    if 2 * sum(p.windowed for p in plans) > sum(p.dense for p in plans):
        return None
    return dataclasses.replace(layout, widest=max(p.widest for p in plans))


def _image_axes(graph: Graph, target: Ref) -> tuple[int, ...] | None:
    """Batch, space and channels, as the convolution has them that `target` is computed from."""
    node = graph.nodes[target.node]
    while node.primitive not in (INPUT, "conv_general_dilated") and node.perturbed:
        found = record(node)
        if not isinstance(found, Affine | Bilinear) or found.mixes:
            return None
        node = graph.nodes[node.perturbed[0].node]
    if node.primitive != "conv_general_dilated":
        return None
    spec = node.params["dimension_numbers"].out_spec
    return (spec[0], *spec[2:], spec[1])
