"""Backward linear functionals: CROWN (Zhang et al. 2018).

A functional encloses some rows of numbers between two affine functions of one value `v`, written
around a reference value `v0` of it:

    lower.coefficients . (v - v0) + lower.offset  <=  rows
    rows  <=  upper.coefficients . (v - v0) + upper.offset

Going backwards, `v` is replaced by the operands of the node that computed it. An affine node is
replaced exactly, by JAX's own transpose of it. A nonlinear one is replaced, on the lower side, by
the line below it where its coefficient is positive and by the line above it where it is negative
(and the other way round on the upper side), so a replacement only ever moves the sides outwards.

The references are the values of all nodes at one point of the sets. An affine node maps deviations
from them linearly, so its constant never meets the coefficients; a line `s x + o` around `y = f(x)`
becomes `y - y0 = s (x - x0) + (s x0 + o - y0)`, where the bracket, the gap between the line and
`f` at the reference, is all that is added to the offset. What is computed is thus the distance
from a point that is attained, and a set of one point is bounded without any rounding of its own.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar, assert_never

import jax
import jax.numpy as jnp

from jaxlirpa._arrays import matrix, summed_product, sums, traced_once, where
from jaxlirpa._domains.rows import AffineRows, inner_products, numbered, placed, total
from jaxlirpa._graph.graph import Graph, Node, Ref
from jaxlirpa._mesh import vary
from jaxlirpa._minmax import maximum, minimum
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
from jaxlirpa._relax.lines import Lines, around
from jaxlirpa._relax.planes import Plane, Planes
from jaxlirpa._relax.planes import around as planes_around
from jaxlirpa._transpose.convolution import transpose
from jaxlirpa._transpose.dense import behind_dense
from jaxlirpa._types import Array

Relaxation_T = TypeVar("Relaxation_T")


class Sided(NamedTuple, Generic[Relaxation_T]):
    """What a function is replaced by in the lower functional, and in the upper one."""

    lower: Relaxation_T
    upper: Relaxation_T


class BackwardBounds(NamedTuple):
    """Rows of numbers between two affine functions of one value.

    Attributes:
        lower: the one below.
        upper: the one above; None where the two are the same, which halves the work.
        slack: how far off both may be, as numbers were rounded or flushed to zero on the way: a
            number, one of each row, or `[rows, examples]`. None as long as all coefficients are
            whole numbers, of which nothing is lost.
    """

    lower: AffineRows
    upper: AffineRows | None = None
    slack: Array | None = None

    @property
    def above(self) -> AffineRows:
        """The affine function above."""
        return self.lower if self.upper is None else self.upper

    def loosened(self) -> tuple[AffineRows, AffineRows]:
        """Both sides, with the slack taken off the one and added to the other."""
        if self.slack is None:
            return self.lower, self.above
        # A row that has none is minus infinity, or no number where infinity was added to that.
        slack = where(self.slack >= 0, self.slack, 0).astype(self.lower.offset.dtype)
        below, above = self.lower.offset - slack, self.above.offset + slack
        return self.lower._replace(offset=below), self.above._replace(offset=above)


@dataclasses.dataclass(frozen=True)
class BackwardLinear:
    """The backward domain of linear functionals.

    Attributes:
        graph: for the shapes of operands.
        reference: the values around which functionals are written.
        lines: the relaxation of a nonlinear node, by index.
        planes: that of each output of a node of several operands, by index.
        slack: how far a functional may be off because it was pulled through a node, by index: a
            number, or one of each example, or None for nothing.
        overrides: other lines, or planes of every output, for some nodes. With a leading axis
            in front of the operand's shape, every row has its own.
    """

    graph: Graph
    reference: Mapping[Ref, Array]
    lines: Callable[[int], Lines]
    planes: Callable[[int], Sequence[Planes]]
    slack: Callable[[int], Array | None]
    overrides: Mapping[int, Sided[Sequence[Any]]] = dataclasses.field(default_factory=dict)

    def start(self, target: Ref, rows: Array | None = None) -> dict[Ref, BackwardBounds]:
        """The functional that is some entries of a value, one row an entry.

        Args:
            target: the value.
            rows: the numbers of the entries, `[rows]`; None for all of them. Where examples are
                independent, `[rows, examples]` numbers of entries of each.

        Returns:
            The functional, by the value that it is one of: `target`, or one before it.
        """
        offset = numbered(self.reference[target], self.graph.batch_axes.get(target))
        found = behind_dense(self.graph, target, alike=rows is not None)
        value, coefficients = found or (target, None)
        shape = self.graph.aval(value).shape
        axis = self.graph.batch_axes[value] if target in self.graph.batch_axes else None
        if rows is not None:
            offset = jnp.take_along_axis(offset, rows, 0)
        if coefficients is None:
            every = jnp.arange(self.graph.size(target))[:, None] if rows is None else rows
            coefficients = jax.nn.one_hot(every, self.graph.size(target), dtype=offset.dtype)
        elif rows is not None:
            coefficients = coefficients[rows, 0]
        coefficients = vary(placed(coefficients, shape, axis), self.graph.axes)
        side = AffineRows(coefficients, offset)
        if value == target:
            return {target: BackwardBounds(side)}
        return {value: BackwardBounds(side, slack=self._behind(target, value, coefficients))}

    def _behind(self, target: Ref, value: Ref, coefficients: Array) -> Array:
        """The slack of a functional that starts behind a matrix product, one of each row.

        A row of zeros, as that of a difference of a value and itself, has none, whatever is added:
        minus infinity.
        """
        axis = self.graph.batch_axes[value] if target in self.graph.batch_axes else None
        lost = jnp.zeros((), coefficients.dtype)
        for index in self.graph.returning((target,)).live((value,)):
            own = self.slack(index)
            if own is not None:
                lost = lost + (jnp.sum(own) if axis is None else own)
        others = [i for i in range(1, coefficients.ndim) if axis is None or i != axis + 1]
        return where(jnp.any(coefficients != 0, tuple(others)), lost, -jnp.inf)

    def add(self, a: BackwardBounds, b: BackwardBounds) -> BackwardBounds:
        """The sum of two functionals of one value."""
        lower = AffineRows(*map(jnp.add, a.lower, b.lower))
        shared = a.upper is None and b.upper is None
        upper = None if shared else AffineRows(*map(jnp.add, a.above, b.above))
        return BackwardBounds(lower, upper, total(a.slack, b.slack))

    def pull(
        self, index: int, node: Node, outputs: tuple[BackwardBounds | None, ...]
    ) -> list[tuple[Ref, BackwardBounds]]:
        """Functionals of a node's outputs as functionals of its perturbed operands.

        Where a value is bounded by constants alone, the rows no longer depend on anything; they
        then are functionals of the first input, with coefficients of zero.
        """
        found = record(node)
        match found:
            case Refined():
                assert outputs[0] is not None
                return [(node.perturbed[0], outputs[0])]
            case Elementwise() | Joint() | Opaque() | LoopFamily():
                pairs = self._nonlinear(index, node, found, outputs)
            case Move() | Affine() | Bilinear():
                pairs = list(zip(node.perturbed, self._affine(node, outputs), strict=True))
            case _:
                assert_never(found)
        present = [f for f in outputs if f is not None]
        slack = functools.reduce(total, [f.slack for f in present])
        if slack is None and not isinstance(found, Nonlinear | Bilinear):
            return pairs
        lost = self.slack(index)
        if lost is not None and not present[0].lower.by_example:
            lost = jnp.sum(lost)
        # Offset and slack go to one operand; the others know that their coefficients are products.
        (first, functional), *others = pairs
        nothing = jnp.zeros((), functional.lower.offset.dtype)
        slack = total(total(slack, lost), nothing)
        return [
            (first, functional._replace(slack=slack)),
            *((ref, other._replace(slack=nothing)) for ref, other in others),
        ]

    def _nonlinear(
        self, index: int, node: Node, found: Nonlinear, outputs: tuple[BackwardBounds | None, ...]
    ) -> list[tuple[Ref, BackwardBounds]]:
        xs = [self.reference[ref] for ref in node.perturbed]
        if isinstance(found, Elementwise):
            (functional,) = outputs
            assert functional is not None
            return [(node.perturbed[0], self._replace(index, functional, xs[0]))]
        joint = found if isinstance(found, Joint) else None
        pairs: list[tuple[Ref, BackwardBounds]] = []
        for k, functional in enumerate(outputs):
            if functional is not None:
                pairs += self._joint(Ref(index, k), node, joint, functional, xs)
        return pairs

    def _replace(self, index: int, functional: BackwardBounds, x: Array) -> BackwardBounds:
        """A functional of `f(x)` as one of `x`, by the lines around `f`."""
        y = self.reference[Ref(index, 0)]
        if index in self.overrides:
            pair = Sided(*(around(side[0], x, y) for side in self.overrides[index]))
        else:
            lines = around(self.lines(index), x, y)
            pair = Sided(lines, lines)
        axis = self._examples(functional, Ref(index, 0))
        return BackwardBounds(
            _substitute(functional.lower, pair.lower[:2], pair.lower[2:], axis),
            _substitute(functional.above, pair.upper[2:], pair.upper[:2], axis),
        )

    def _examples(self, functional: BackwardBounds, ref: Ref) -> int | None:
        """The axis of a value that numbers what each row has a functional of."""
        return self.graph.batch_axes[ref] if functional.lower.by_example else None

    def _joint(
        self,
        ref: Ref,
        node: Node,
        joint: Joint | None,
        functional: BackwardBounds,
        xs: Sequence[Array],
    ) -> list[tuple[Ref, BackwardBounds]]:
        """A functional of `f(x, ...)` as functionals of its operands, by the planes around `f`."""
        index, k = ref
        axes = joint.axes(node) if joint else ()
        y = self.reference[ref]
        if index in self.overrides:
            pair = Sided(*(_planes_around(side[k], xs, y, axes) for side in self.overrides[index]))
        else:
            planes = planes_around(self.planes(index)[k], xs, y, axes)
            pair = Sided(planes, planes)
        if joint and joint.merged:
            pair = Sided(*(Planes(*map(joint.merged, planes)) for planes in pair))
        (below, above), (below_, above_) = pair
        axis = self._examples(functional, ref)
        shapes = [x.shape for x in xs]
        rows, offset = _substitute_jointly(functional.lower, below, above, axes, axis, shapes)
        rows_, offset_ = _substitute_jointly(functional.above, above_, below_, axes, axis, shapes)
        pairs = []
        for ref, a, b in zip(node.perturbed, rows, rows_, strict=True):
            if a is not None and b is not None:
                pairs.append((ref, BackwardBounds(AffineRows(a, offset), AffineRows(b, offset_))))
                offset, offset_ = jnp.zeros_like(offset), jnp.zeros_like(offset_)
        if pairs:
            return pairs
        anchor = self.graph.inputs[0]
        aval = self.graph.aval(anchor)
        nothing = jnp.zeros((len(offset), *aval.shape), aval.dtype)
        return [(anchor, BackwardBounds(AffineRows(nothing, offset), AffineRows(nothing, offset_)))]

    def _affine(
        self, node: Node, outputs: tuple[BackwardBounds | None, ...]
    ) -> tuple[BackwardBounds, ...]:
        lower = self._transpose(node, [f and f.lower for f in outputs])
        if all(f is None or f.upper is None for f in outputs):
            return tuple(map(BackwardBounds, lower))
        upper = self._transpose(node, [f and f.above for f in outputs])
        return tuple(map(BackwardBounds, lower, upper))

    def _transpose(self, node: Node, outputs: list[AffineRows | None]) -> list[AffineRows]:
        """One side through an affine node; the offset goes to the first operand."""
        rows = next(len(side.offset) for side in outputs if side is not None)
        cotangents = tuple(
            jnp.zeros((rows, *aval.shape), aval.dtype) if side is None else side.coefficients
            for side, aval in zip(outputs, node.outputs, strict=True)
        )
        avals = [self.graph.aval(ref) for ref in node.perturbed]
        coefficients = jax.vmap(transpose(node, avals))(cotangents)
        offset = functools.reduce(jnp.add, [side.offset for side in outputs if side is not None])
        offsets = [offset] + [jnp.zeros_like(offset)] * (len(avals) - 1)
        return list(map(AffineRows, coefficients, offsets))


def _planes_around(planes: Planes, xs: Sequence[Array], y: Array, axes: tuple[int, ...]) -> Planes:
    """As `planes_around`, of planes for every row where there are such."""
    if planes.lower.offset.ndim == y.ndim:
        return planes_around(planes, xs, y, axes)
    return jax.vmap(lambda own: planes_around(own, xs, y, axes))(planes)


@traced_once("examples")
def _substitute(
    side: AffineRows, positive: tuple[Array, ...], negative: tuple[Array, ...], examples: int | None
) -> AffineRows:
    """Puts one line where the coefficient is positive and another where it is negative.

    Where either line has overflown, and even if the other is chosen, this ends in a NaN, which says
    that nothing is known: numbers of that size are rounded by more than what is left of them when
    they cancel. Works on flattened entries: arrays of high rank are several times slower.
    """
    shape = side.coefficients.shape
    rows = matrix(side.coefficients)
    up, down = maximum(rows, 0), minimum(rows, 0)
    coefficients, gaps = (
        up * matrix(_by_row(x, shape)) + down * matrix(_by_row(y, shape))
        for x, y in zip(positive, negative, strict=True)
    )
    offset = side.offset + sums(gaps.reshape(shape), examples)
    return AffineRows(coefficients.reshape(shape), offset)


def _by_row(x: Array, shape: tuple[int, ...]) -> Array:
    """Values for every row, or with a leading axis of one where they are the same for all.

    Args:
        x: `[*shape]` or `[rows, *shape]`.
        shape: of coefficients, with the rows in front.
    """
    return x if x.ndim == len(shape) else x[None]


def _substitute_jointly(
    side: AffineRows,
    positive: Plane,
    negative: Plane,
    axes: tuple[int, ...],
    examples: int | None,
    shapes: Sequence[tuple[int, ...]],
) -> tuple[list[Array | None], Array]:
    """Coefficients on every operand, of these shapes, and the offset; as `_substitute`."""
    rows = side.coefficients
    up = maximum(rows, 0)
    down = rows - up
    gaps = [
        (part, _by_row(plane.offset, rows.shape))
        for part, plane in ((up, positive), (down, negative))
    ]
    offset = side.offset + inner_products(gaps, examples)
    behind_rows = tuple(axis + 1 for axis in axes)
    up, down = jnp.expand_dims(up, behind_rows), jnp.expand_dims(down, behind_rows)
    coefficients: list[Array | None] = []
    for slope, slope_, shape in zip(positive.slopes, negative.slopes, shapes, strict=True):
        pairs = (
            (x, _by_row(s, x.shape)) for x, s in ((up, slope), (down, slope_)) if s is not None
        )
        terms = [summed_product(x, s, (len(rows), *shape)) for x, s in pairs]
        coefficients.append(sum(terms[1:], start=terms[0]) if terms else None)
    return coefficients, offset
