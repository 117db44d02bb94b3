"""Backward linear functionals of images, carried as windows.

A row of coefficients that starts at one pixel of a convolutional layer is zero outside the pixel's
receptive field. Here each row is therefore an array of the size of that field, together with the
place where it lies; what sticks out of the image counts as zero. The functional, its rules of
substitution and its soundness are those of `backward_linear`; only what is known to be zero is not
stored.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlirpa._domains.rows import total
from jaxlirpa._domains.windows import (
    Geometry,
    Layout,
    is_sliding,
    operand_geometries,
    pixel,
    union,
)
from jaxlirpa._graph.graph import Graph, Node, Ref
from jaxlirpa._intervals import Interval
from jaxlirpa._mesh import shaped
from jaxlirpa._minmax import maximum, minimum
from jaxlirpa._ops.families import Affine, Bilinear, Elementwise, Joint
from jaxlirpa._ops.registry import record
from jaxlirpa._relax.lines import Lines, around
from jaxlirpa._relax.planes import Plane, Planes
from jaxlirpa._relax.planes import around as planes_around
from jaxlirpa._transpose.convolution import transpose_inside, turnable
from jaxlirpa._types import Array
from jaxlirpa.sets import ArraySet

HIGHEST = jax.lax.Precision.HIGHEST


class Windows(NamedTuple):
    """One side: `values` `[pixels or 1, rows, *size, channels]`, `offset` `[pixels, rows]`."""

    values: Array
    offset: Array


class Local(NamedTuple):
    """A functional, see `backward_linear.BackwardBounds`, and where its windows are.

    Attributes:
        lower: the affine functions below.
        upper: those above; None where they are the same.
        geometry: the place of the windows.
        slack: how far off both may be, a number; None as long as coefficients are whole numbers.
    """

    lower: Windows
    upper: Windows | None
    geometry: Geometry
    slack: Array | None = None

    @property
    def above(self) -> Windows:
        """The affine functions above."""
        return self.lower if self.upper is None else self.upper


@dataclasses.dataclass(frozen=True)
class WindowedLinear:
    """The backward domain of functionals that are carried as windows.

    Attributes:
        graph: for the shapes of operands.
        reference: the values around which functionals are written.
        lines: the relaxation of a nonlinear node, by index.
        planes: that of each output of a node of several operands, by index.
        slack: how far a functional may be off because it was pulled through a node, by index.
        layout: of the images.
        target: the value that the rows are entries of.
    """

    graph: Graph
    reference: Mapping[Ref, Array]
    lines: Callable[[int], Lines]
    planes: Callable[[int], Sequence[Planes]]
    slack: Callable[[int], Array | None]
    layout: Layout
    target: Ref

    def start(self) -> dict[Ref, Local]:
        """The functional that is the value itself: a window of one pixel, a row a channel."""
        at = self.layout.rows(self.reference[self.target])
        channels = at.shape[-1]
        geometry = pixel(self.layout.target)
        eye = jnp.eye(channels, dtype=at.dtype).reshape(1, channels, *geometry.size, channels)
        return {self.target: Local(Windows(eye, at), None, geometry)}

    def add(self, a: Local, b: Local) -> Local:
        """The sum of two functionals of one value, on the union of their windows."""
        geometry = union(a.geometry, b.geometry)

        def summed(x: Windows, y: Windows) -> Windows:
            x_values, y_values = (
                _widened(side.values, local.geometry, geometry) for side, local in ((x, a), (y, b))
            )
            return Windows(x_values + y_values, x.offset + y.offset)

        lower = summed(a.lower, b.lower)
        shared = a.upper is None and b.upper is None
        upper = None if shared else summed(a.above, b.above)
        return Local(lower, upper, geometry, total(a.slack, b.slack))

    def pull(
        self, index: int, node: Node, outputs: tuple[Local | None, ...]
    ) -> list[tuple[Ref, Local]]:
        """Functionals of a node's output as functionals of its perturbed operands."""
        (local,) = outputs
        assert local is not None
        found, geometries = record(node), operand_geometries(self.graph, index, local.geometry)
        if isinstance(found, Elementwise | Joint):
            parts = self._substitute(local, index, node)
        elif isinstance(found, Affine) and not found.mixes:
            parts = [self._scaled(local, float(found.signs[p]), node) for p in node.positions]
        elif isinstance(found, Bilinear) and not found.mixes:
            aval = self.graph.aval(node.perturbed[0])
            (factor,) = node(jnp.ones(aval.shape, aval.dtype))
            size = local.lower.values.shape[2:]
            under = self.layout.gather(factor, local.geometry).reshape(-1, 1, *size)
            parts = [self._scaled(local, under, node)]
        elif is_sliding(node):
            parts = [self._slid(local, node, *geometries)]
        elif node.primitive == "concatenate":
            parts = _split(local, geometries)
        else:  # another view of the same image
            parts = [local]
        parts = [p._replace(geometry=g) for p, g in zip(parts, geometries, strict=True)]
        slack = local.slack
        if slack is not None or isinstance(found, Elementwise | Joint | Bilinear):
            slack = total(slack, self._lost(index))
        return self._shared_out(node, parts, slack)

    def _lost(self, index: int) -> Array | None:
        """What is added to the slack at a node: of every example, where the rows are of one."""
        lost = self.slack(index)
        if lost is None or self.target in self.graph.batch_axes:
            return lost
        return jnp.sum(lost)

    def _shared_out(
        self, node: Node, parts: Sequence[Local], slack: Array | None
    ) -> list[tuple[Ref, Local]]:
        """Functionals of the operands, the first of which has the offset and the slack."""
        first, *others = parts
        silent = jnp.zeros_like(first.lower.offset)
        nothing = None if slack is None else jnp.zeros_like(slack)
        rest = [
            _each(p, lambda s: s._replace(offset=silent))._replace(slack=nothing) for p in others
        ]
        return list(zip(node.perturbed, [first._replace(slack=slack), *rest], strict=True))

    def box(self, reached: Mapping[Ref, Local], sets: Mapping[Ref, ArraySet]) -> Interval:
        """Extrema over boxes, `[pixels, channels]`."""
        lower = upper = jnp.zeros(())
        for ref, local in reached.items():
            hull = [limit - self.reference[ref] for limit in sets[ref].hull()]
            least, most = (self.layout.gather(x, local.geometry)[:, None] for x in hull)
            for_lower, for_upper = (
                side.values.reshape(*side.values.shape[:2], -1)
                for side in (local.lower, local.above)
            )
            slack = self._slack_of_rows(local)
            lower = lower + (local.lower.offset - slack) + _least(for_lower, least, most)
            upper = upper + (local.above.offset + slack) - _least(-for_upper, least, most)
        return Interval(lower, upper)

    def _slack_of_rows(self, local: Local) -> Array | int:
        """`[pixels, 1]`, or a number."""
        if local.slack is None:
            return 0
        slack, aval = local.slack.astype(local.lower.offset.dtype), self.graph.aval(self.target)
        if not slack.ndim:
            return slack
        axis = self.graph.batch_axes[self.target]
        shape = [-1 if i == axis else 1 for i in range(len(aval.shape))]
        return self.layout.rows(jnp.broadcast_to(slack.reshape(shape), aval.shape))[:, :1]

    def _scaled(self, local: Local, factor: Any, node: Node) -> Local:
        dtype = self.graph.aval(node.perturbed[0]).dtype
        return _each(
            local,
            lambda s: Windows((s.values * factor).astype(dtype), s.offset.astype(dtype)),
        )

    def _slid(self, local: Local, node: Node, geometry: Geometry) -> Local:
        """Through what reads an entry's neighbours: its transpose, on the windows."""
        inside = self.layout.places(local.geometry)[1]
        everywhere = self.layout.pixels is None and inside.all()
        out, order = local.geometry.size[1:], local.geometry.image.order
        channels = geometry.image.channels

        def transpose(side: Windows) -> Windows:
            values, (_, rows) = side.values, side.values.shape[:2]
            if node.primitive == "pad":
                return side
            if not (local.geometry.clean or everywhere):
                keep = inside.reshape(-1, 1, *local.geometry.size, 1)
                values = values * keep.astype(values.dtype)
            if node.primitive == "slice":
                return side._replace(values=_spread(values, local.geometry, geometry))
            flat = values.reshape(-1, *out, values.shape[-1])
            operand = shaped(
                (flat.shape[0], *geometry.size[1:], channels),
                flat.dtype,
                self.graph.axes,
            )
            if turnable(node):
                pulled = transpose_inside(node, operand)(flat)
            else:
                (pulled,) = jax.linear_transpose(_valid(node, order), operand)(flat)
            return Windows(pulled.reshape(-1, rows, *geometry.size, channels), side.offset)

        return _each(local, transpose)

    def _substitute(self, local: Local, index: int, node: Node) -> list[Local]:
        """Through a nonlinear function: one plane or the other, by the sign of the coefficient."""
        below, above = (self._gathered(p, local.geometry) for p in self._planes(index, node))

        def choose(side: Windows, positive: Plane, negative: Plane) -> list[Windows]:
            shape = side.values.shape[1:]
            rows = side.values.reshape(*side.values.shape[:2], -1)
            up, down = maximum(rows, 0), minimum(rows, 0)
            gap = _against(up, positive.offset) + _against(down, negative.offset)
            return [
                Windows(_combined(up, s, down, t).reshape(-1, *shape), side.offset + gap)
                for s, t in zip(positive.slopes, negative.slopes, strict=True)
            ]

        sides = choose(local.lower, below, above), choose(local.above, above, below)
        return [Local(*pair, local.geometry) for pair in zip(*sides, strict=True)]

    def _planes(self, index: int, node: Node) -> Planes:
        """The planes below and above a function, around its reference; lines are planes, too."""
        xs, y = [self.reference[ref] for ref in node.perturbed], self.reference[Ref(index, 0)]
        if isinstance(record(node), Joint):
            return planes_around(self.planes(index)[0], xs, y, ())
        slope, offset, slope_, offset_ = around(self.lines(index), xs[0], y)
        return Planes(Plane((slope,), offset), Plane((slope_,), offset_))

    def _gathered(self, plane: Plane, geometry: Geometry) -> Plane:
        """A plane under each window, `[pixels, size * channels]`."""
        slopes = (None if s is None else self.layout.gather(s, geometry) for s in plane.slopes)
        return Plane(tuple(slopes), self.layout.gather(plane.offset, geometry))


def _each(local: Local, change: Callable[[Windows], Windows]) -> Local:
    upper = None if local.upper is None else change(local.upper)
    return local._replace(lower=change(local.lower), upper=upper)


def _split(local: Local, geometries: Sequence[Geometry]) -> list[Local]:
    """Through a concatenation of channels: every operand has its own ones."""
    ends = np.cumsum([0, *(geometry.image.channels for geometry in geometries)])

    def part(k: int) -> Local:
        return _each(
            local, lambda side: side._replace(values=side.values[..., ends[k] : ends[k + 1]])
        )

    return list(map(part, range(len(geometries))))


def _combined(up: Array, s: Array | None, down: Array, t: Array | None) -> Array:
    """`up * s + down * t`, where a slope that is None is zero."""
    terms = [part * x[:, None] for part, x in ((up, s), (down, t)) if x is not None]
    return functools.reduce(jnp.add, terms) if terms else jnp.zeros_like(up)


def _spread(values: Array, old: Geometry, new: Geometry) -> Array:
    """Values of windows over a slice with strides, where it has them in the whole."""
    steps = [n // m for n, m in zip(new.stride, old.stride, strict=True)]
    pads = [(0, 0, 0), (0, 0, 0), *((0, 0, step - 1) for step in steps), (0, 0, 0)]
    return jax.lax.pad(values, jnp.zeros((), values.dtype), pads)


def _widened(values: Array, old: Geometry, new: Geometry) -> Array:
    """Values in a larger window, with zeros around them."""
    pads = [
        (s - t, (t + m) - (s + n))
        for s, n, t, m in zip(old.start, old.size, new.start, new.size, strict=True)
    ]
    return jnp.pad(values, [(0, 0), (0, 0), *pads, (0, 0)])


def _valid(node: Node, order: tuple[int, ...]) -> Callable[[Array], Array]:
    """The node's convolution or pooling sum of a canonical image, without padding."""
    params = node.params
    if node.primitive == "reduce_window_sum":
        window, strides, dilation = (
            tuple(params[key][i] for i in order)
            for key in ("window_dimensions", "window_strides", "window_dilation")
        )
        return lambda x: jax.lax.reduce_window(
            x, np.zeros((), x.dtype), jax.lax.add, window, strides, "VALID", None, dilation
        )
    spec = params["dimension_numbers"].rhs_spec
    kernel = jnp.transpose(node.known[0], (*spec[2:], spec[1], spec[0]))
    space = "DHW"[-(len(spec) - 2) :]
    return lambda x: jax.lax.conv_general_dilated(
        x,
        kernel,
        params["window_strides"],
        "VALID",
        rhs_dilation=params["rhs_dilation"],
        dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
        feature_group_count=params["feature_group_count"],
        precision=HIGHEST,
    )


def _against(rows: Array, values: Array) -> Array:
    """Inner products: `[pixels or 1, rows, n]` with `[pixels, n]`."""
    if rows.shape[0] == 1:
        return jnp.matmul(values, rows[0].T, precision=HIGHEST)
    return jnp.matmul(rows, values[..., None], precision=HIGHEST)[..., 0]


def _least(rows: Array, lower: Array, upper: Array) -> Array:
    """The minimum of linear forms over boxes."""
    return jnp.sum(maximum(rows, 0) * lower + minimum(rows, 0) * upper, axis=-1)
