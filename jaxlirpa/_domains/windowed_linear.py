"""Backward linear functionals of images, carried as windows.

A row of coefficients that starts at one pixel of a convolutional layer is zero outside the pixel's
receptive field. Here each row is therefore an array of the size of that field, together with the
place where it lies; what sticks out of the image counts as zero. The functional, its rules of
substitution and its soundness are those of `backward_linear`; only what is known to be zero is not
stored.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlirpa._domains.rows import total
from jaxlirpa._domains.windows import Geometry, Layout, slide, union
from jaxlirpa._graph.graph import Graph, Node, Ref
from jaxlirpa._intervals import Interval
from jaxlirpa._mesh import shaped
from jaxlirpa._minmax import maximum, minimum
from jaxlirpa._ops.families import Affine, Bilinear, Elementwise
from jaxlirpa._ops.registry import record
from jaxlirpa._relax.lines import Lines, around
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
        slack: how far a functional may be off because it was pulled through a node, by index.
        layout: of the images.
        target: the value that the rows are entries of.
    """

    graph: Graph
    reference: Mapping[Ref, Array]
    lines: Callable[[int], Lines]
    slack: Callable[[int], Array | None]
    layout: Layout
    target: Ref

    def start(self) -> dict[Ref, Local]:
        """The functional that is the value itself: a window of one pixel, a row a channel."""
        at = self.layout.rows(self.reference[self.target])
        channels = at.shape[-1]
        one, zero = (1,) * len(self.layout.grid), (0,) * len(self.layout.grid)
        eye = jnp.eye(channels, dtype=at.dtype).reshape(1, channels, *one, channels)
        return {self.target: Local(Windows(eye, at), None, Geometry(zero, one, one, clean=True))}

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
        found = record(node)
        if isinstance(found, Elementwise):
            slack = total(local.slack, self._lost(index))
            return self._shared_out(node, [self._substitute(local, index, node)], slack)
        if isinstance(found, Affine) and not found.mixes:
            parts = [self._scaled(local, float(found.signs[p]), node) for p in node.positions]
        elif isinstance(found, Bilinear) and not found.mixes:
            shape = self.graph.aval(node.perturbed[0]).shape
            (factor,) = node(jnp.ones(shape, self.graph.aval(node.perturbed[0]).dtype))
            image = self.layout.canonical(factor, node.outputs[0].shape)
            size = local.lower.values.shape[2:]
            under = self.layout.gather(image, local.geometry).reshape(-1, 1, *size)
            clean = local.geometry._replace(clean=True)
            parts = [self._scaled(local._replace(geometry=clean), under, node)]
        else:
            parts = [self._slid(local, node)]
        slack = local.slack
        if slack is not None or isinstance(found, Bilinear):
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
            least, most = (
                self.layout.gather(self.layout.canonical(x, x.shape), local.geometry)[:, None]
                for x in hull
            )
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

    def _slid(self, local: Local, node: Node) -> Local:
        """Through a convolution or pooling sum: its transpose, on the windows."""
        geometry = slide(node, self.layout, local.geometry)
        inside = self.layout.places(local.geometry, self.layout.sizes(node.outputs[0].shape))[1]
        everywhere = self.layout.pixels is None and inside.all()
        out = local.geometry.size[1:]
        channels = self.graph.aval(node.perturbed[0]).shape[self.layout.order[-1]]

        def transpose(side: Windows) -> Windows:
            values, (_, rows) = side.values, side.values.shape[:2]
            if not (local.geometry.clean or everywhere):
                keep = inside.reshape(-1, 1, *local.geometry.size, 1)
                values = values * keep.astype(values.dtype)
            flat = values.reshape(-1, *out, values.shape[-1])
            operand = shaped(
                (flat.shape[0], *geometry.size[1:], channels), flat.dtype, self.graph.axes
            )
            if turnable(node):
                pulled = transpose_inside(node, operand)(flat)
            else:
                (pulled,) = jax.linear_transpose(_valid(node, self.layout.order), operand)(flat)
            return Windows(pulled.reshape(-1, rows, *geometry.size, channels), side.offset)

        return _each(local, transpose, geometry)

    def _substitute(self, local: Local, index: int, node: Node) -> Local:
        """Through a nonlinear function: one line or the other, by the sign of the coefficient."""
        lines = self.lines(index)
        shape = self.graph.aval(node.perturbed[0]).shape
        x, y = self.reference[node.perturbed[0]], self.reference[Ref(index, 0)]
        images = [self.layout.canonical(line, shape) for line in around(lines, x, y)]
        under = [self.layout.gather(image, local.geometry) for image in images]
        below, above = under[:2], under[2:]

        def choose(side: Windows, positive: list[Array], negative: list[Array]) -> Windows:
            rows = side.values.reshape(*side.values.shape[:2], -1)
            up, down = maximum(rows, 0), minimum(rows, 0)
            values = up * positive[0][:, None] + down * negative[0][:, None]
            gap = _against(up, positive[1]) + _against(down, negative[1])
            return Windows(values.reshape(-1, *side.values.shape[1:]), side.offset + gap)

        return Local(
            choose(local.lower, below, above),
            choose(local.above, above, below),
            local.geometry._replace(clean=True),
        )


def _each(
    local: Local, change: Callable[[Windows], Windows], geometry: Geometry | None = None
) -> Local:
    lower = change(local.lower)
    upper = None if local.upper is None else change(local.upper)
    return Local(lower, upper, geometry or local.geometry, local.slack)


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
