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

from jaxlirpa._arrays import where
from jaxlirpa._graph.graph import INPUT, Graph, Node, Ref
from jaxlirpa._ops.families import Affine, Bilinear, Elementwise, Joint, Move, Record
from jaxlirpa._ops.registry import record
from jaxlirpa._types import Array
from jaxlirpa._walk import backward
from jaxlirpa.sets import ArraySet

# Indices are constants of the compiled program: not more of them than this at one node.
_MOST_PLACES = 2**22


class NotLocal(Exception):
    """Windows do not apply; the dense domain does."""


class Image(NamedTuple):
    """How a value is an image.

    Attributes:
        own: the value's own shape.
        shape: that shape, with axes of length one in the place of those that the value lacks.
        order: the batch, the spatial axes and the channels, as axes of `shape`.
    """

    own: tuple[int, ...]
    shape: tuple[int, ...]
    order: tuple[int, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes of the batch and of space."""
        return tuple(self.shape[i] for i in self.order[:-1])

    @property
    def channels(self) -> int:
        """The number of channels."""
        return self.shape[self.order[-1]]

    @property
    def inverse(self) -> tuple[int, ...]:
        """The permutation that undoes `order`."""
        return tuple(self.order.index(i) for i in range(len(self.order)))

    def canonical(self, x: Array) -> Array:
        """An image `[batch, *space, channels]`, from one that broadcasts to the value's shape."""
        return jnp.transpose(jnp.broadcast_to(x, self.own).reshape(self.shape), self.order)


class Geometry(NamedTuple):
    """Where the windows over an image lie, one entry an axis: the batch, then space.

    Attributes:
        image: how the value that they multiply is an image.
        start, stride, size: see the module.
        clean: whether all that sticks out of the image is zero already.
    """

    image: Image
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
    """The pixels of a target, each of which has a window.

    Attributes:
        target: how the target is an image. Its pixels are the entries of its `sizes`.
        widest: the most coefficients that a row has.
        pixels: the numbers of the pixels that have a window; None for all.
    """

    target: Image
    widest: int = 0
    pixels: Array | None = None

    @property
    def grid(self) -> tuple[int, ...]:
        """The target's batch and spatial sizes."""
        return self.target.sizes

    def rows(self, x: Array) -> Array:
        """A value of the target's shape as `[pixels, channels]`."""
        rows = self.target.canonical(x).reshape(-1, self.target.channels)
        return rows if self.pixels is None else rows[self.pixels]

    def image(self, rows: Array) -> Array:
        """Rows of all pixels, in the target's shape."""
        return jnp.transpose(rows.reshape(*self.grid, -1), self.target.inverse)

    def gather(self, x: Array, geometry: Geometry) -> Array:
        """What of `x` is under every window, `[pixels, size * channels]`.

        Args:
            x: broadcasts to the value over which the windows lie.
            geometry: of the windows.
        """
        image = geometry.image.canonical(x)
        flat, inside = self.places(geometry)
        values = jnp.take(image.reshape(-1, image.shape[-1]), flat.reshape(-1), axis=0)
        values = where(inside.reshape(-1, 1), values, 0)
        return values.reshape(flat.shape[0], -1)

    def places(self, geometry: Geometry) -> tuple[Any, Any]:
        """Flat indices `[pixels, window]` into the image, and whether they are inside it."""
        sizes = geometry.image.sizes
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


def is_pointwise(found: Record, node: Node) -> bool:
    """Whether an entry of the output depends on the same entry of each operand alone."""
    if isinstance(found, Joint):
        return not found.axes(node)
    return isinstance(found, Elementwise) or (
        isinstance(found, Affine | Bilinear) and not found.mixes
    )


def pixel(image: Image) -> Geometry:
    """The windows of one pixel each over the target itself."""
    one, zero = (1,) * len(image.sizes), (0,) * len(image.sizes)
    return Geometry(image, zero, one, one, clean=True)


def operand_geometries(graph: Graph, index: int, geometry: Geometry) -> list[Geometry]:
    """The windows over the perturbed operands of a node, from those over its output.

    Raises:
        NotLocal: where there are none.
    """
    node = graph.nodes[index]
    found, images = record(node), _operand_images(graph, index, geometry.image)
    if is_sliding(node):
        (image,) = images
        return [_slid(node, image, geometry)]
    linear = isinstance(found, Affine | Move)
    clean = geometry.clean if linear else True  # a coefficient outside is multiplied with zero
    return [geometry._replace(image=image, clean=clean) for image in images]


def _operand_images(graph: Graph, index: int, image: Image) -> list[Image]:
    """How the perturbed operands of a node are images, if its output is one.

    Raises:
        NotLocal: where they are none.
    """
    node = graph.nodes[index]
    found, shapes = record(node), [graph.aval(ref).shape for ref in node.perturbed]
    if is_pointwise(found, node):
        if any(shape != image.own for shape in shapes):
            raise NotLocal
        return [image] * len(shapes)
    if node.primitive in ("reshape", "squeeze"):
        (shape,) = shapes
        if [n for n in shape if n != 1] != [n for n in image.own if n != 1]:
            raise NotLocal
        return [image._replace(own=shape)]
    if image.own != image.shape:  # the rest names axes
        raise NotLocal
    match node.primitive:
        case "conv_general_dilated":
            numbers = node.params["dimension_numbers"]
            if node.positions != (0,) or _channels_last(numbers.out_spec) != image.order:
                raise NotLocal
            return [Image(shapes[0], shapes[0], _channels_last(numbers.lhs_spec))]
        case "transpose":
            order = tuple(node.params["permutation"][i] for i in image.order)
            return [Image(shapes[0], shapes[0], order)]
        case "concatenate":
            if node.params["dimension"] != image.order[-1] or node.known:
                raise NotLocal
        case "reduce_window_sum" | "slice":
            pass
        case "pad":
            if node.positions != (0,):
                raise NotLocal
        case _:
            raise NotLocal
    return [Image(shape, shape, image.order) for shape in shapes]


def _channels_last(spec: Sequence[int]) -> tuple[int, ...]:
    """A specification of a convolution's axes in our order."""
    return (spec[0], *spec[2:], spec[1])


def _slid(node: Node, operand: Image, geometry: Geometry) -> Geometry:
    """The windows over the operand of a node for which `is_sliding` holds.

    Output `j` reads `step * j - low + dilation * k` for `k` below the window's size.

    Args:
        node: a convolution, a pooling sum, a slice, or padding.
        operand: how its operand is an image.
        geometry: of the windows over its output.
    """
    image, params = geometry.image, node.params
    order = image.order[:-1]
    if node.primitive != "conv_general_dilated" and operand.channels != image.channels:
        raise NotLocal
    ones = [1] * len(order)
    match node.primitive:
        case "conv_general_dilated":
            if {*params["lhs_dilation"]} != {1} or params["batch_group_count"] != 1:
                raise NotLocal
            spec = params["dimension_numbers"].rhs_spec
            window = [1, *(node.known[0].shape[i] for i in spec[2:])]
            steps, dilation = [1, *params["window_strides"]], [1, *params["rhs_dilation"]]
            low = [0, *(p[0] for p in params["padding"])]
        case "reduce_window_sum":
            window, steps, dilation = (
                [params[key][i] for i in order]
                for key in ("window_dimensions", "window_strides", "window_dilation")
            )
            across = params["window_dimensions"][image.order[-1]]
            if {*params["base_dilation"]} != {1} or across != 1 or window[0] != 1:
                raise NotLocal
            low = [params["padding"][i][0] for i in order]
        case "slice":
            window, dilation = ones, ones
            strides = params["strides"] or [1] * len(image.order)
            steps, low = [strides[i] for i in order], [-params["start_indices"][i] for i in order]
        case "pad":
            window, steps, dilation = ones, ones, ones
            pads = params["padding_config"]
            if any(interior or below < 0 or above < 0 for below, above, interior in pads):
                raise NotLocal
            low = [pads[i][0] for i in order]
        case _:
            raise NotLocal
    axes = range(len(order))
    return Geometry(
        image=operand,
        start=tuple(geometry.start[i] * steps[i] - low[i] for i in axes),
        stride=tuple(geometry.stride[i] * steps[i] for i in axes),
        size=tuple(
            (geometry.size[i] - 1) * steps[i] + (window[i] - 1) * dilation[i] + 1 for i in axes
        ),
        clean=node.primitive == "slice",
    )


def union(a: Geometry, b: Geometry) -> Geometry:
    if (a.stride, a.image) != (b.stride, b.image):
        raise NotLocal
    start = tuple(map(min, a.start, b.start))
    ends = [max(s + n, t + m) for s, n, t, m in zip(a.start, a.size, b.start, b.size, strict=True)]
    size = tuple(end - s for end, s in zip(ends, start, strict=True))
    return Geometry(a.image, start, a.stride, size, a.clean and b.clean)


@dataclasses.dataclass(frozen=True)
class _Planning:
    """The backward domain of plans: where windows would lie, and how many entries they hold."""

    graph: Graph
    grid: tuple[int, ...]

    def add(self, a: Plan, b: Plan) -> Plan:
        geometry, widest = union(a.geometry, b.geometry), max(a.widest, b.widest)
        return Plan(geometry, a.windowed + b.windowed, a.dense + b.dense, widest)

    def pull(
        self, index: int, node: Node, outputs: tuple[Plan | None, ...]
    ) -> list[tuple[Ref, Plan]]:
        plan = outputs[0]
        if plan is None or len(outputs) > 1:
            raise NotLocal
        geometries = operand_geometries(self.graph, index, plan.geometry)
        plans = []
        for ref, geometry in zip(node.perturbed, geometries, strict=True):
            if math.prod(self.grid) * math.prod(geometry.size) > _MOST_PLACES:
                raise NotLocal
            held = math.prod(geometry.size) * geometry.image.channels
            dense, widest = plan.dense + self.graph.size(ref), max(plan.widest, held)
            plans.append((ref, Plan(geometry, plan.windowed + held, dense, widest)))
        return plans


def is_sliding(node: Node) -> bool:
    """Whether a node reads the neighbours of an entry, so that windows grow or move."""
    return node.primitive in ("conv_general_dilated", "reduce_window_sum", "slice", "pad")


def layout_of(graph: Graph, sets: Mapping[Ref, ArraySet], target: Ref) -> Layout | None:
    """How to carry the rows of `target` as windows, or None where that is impossible or idle."""
    order, shape = _image_axes(graph, target), graph.aval(target).shape
    if order is None or not all(s.is_box for s in sets.values()):
        return None
    image = Image(shape, shape, order)
    plan = Plan(pixel(image), 0, 0, 0)
    try:
        found = backward(graph, _Planning(graph, image.sizes), {target: plan}, sets.__contains__)
    except NotLocal:
        return None
    plans = found.values()
    if 2 * sum(p.windowed for p in plans) > sum(p.dense for p in plans):
        return None
    return Layout(image, max(p.widest for p in plans))


def _image_axes(graph: Graph, target: Ref) -> tuple[int, ...] | None:
    """Batch, space and channels, as the convolution has them that `target` is computed from."""
    node, turns = graph.nodes[target.node], []
    while node.primitive not in (INPUT, "conv_general_dilated") and node.perturbed:
        if node.primitive == "transpose":
            turns.append(node.params["permutation"])
        elif not (is_pointwise(record(node), node) or is_sliding(node)):
            return None
        node = graph.nodes[node.perturbed[0].node]
    if node.primitive != "conv_general_dilated":
        return None
    order = _channels_last(node.params["dimension_numbers"].out_spec)
    for turn in reversed(turns):
        order = tuple(turn.index(i) for i in order)
    return order
