"""Forward linear forms: every value between two affine functions of the perturbed inputs.

Inputs are counted in units as large as their sets are, so that a coefficient is about what it makes
of the value. One that is computed as zero, being below the smallest normal number, is then not
missed; only when coefficients are written for the inputs themselves, at the end, is it allowed for
what may be lost, as `underflow` says.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxlirpa._arrays import is_floating, matrix, sums, traced_once, where
from jaxlirpa._domains.interval import IntervalDomain, nonlinear_image
from jaxlirpa._domains.ordered import image
from jaxlirpa._domains.rows import AffineRows, arranged, inner_products, numbered, placed
from jaxlirpa._domains.underflow import missed
from jaxlirpa._graph.graph import Graph, Node, Ref
from jaxlirpa._intervals import Interval, intersect, vacuous_where_nan, vacuous_where_overflown
from jaxlirpa._minmax import maximum, minimum
from jaxlirpa._ops.families import Elementwise, Joint, Nonlinear, Refined
from jaxlirpa._ops.registry import record
from jaxlirpa._relax.lines import Lines, relax
from jaxlirpa._relax.planes import Plane, relax_jointly
from jaxlirpa._types import Array
from jaxlirpa.sets import ArraySet
from jaxlirpa.sets.per_example import concretize_per_example


class AffineForm(NamedTuple):
    """An affine function of the inputs, entry by entry of a value, around the sets' points.

    Attributes:
        coefficients: for each input of `n` entries, `[n, *shape]`, on its deviation from the point
            in units of about half the width there. Where the value has an axis of independent
            examples, `n` is that of one of them, on whose own entries they are.
        offset: `[*shape]`, the value where every input is its set's `point()`.
    """

    coefficients: tuple[Array, ...]
    offset: Array


class ForwardBounds(NamedTuple):
    """A value between two affine forms, and in a box.

    Attributes:
        lower: the form below; None where the value is no real number, a truth value for example.
        upper: the form above; None where it is equal to the one below.
        box: the box.
    """

    lower: AffineForm | None
    upper: AffineForm | None
    box: Interval

    @property
    def pair(self) -> tuple[AffineForm, AffineForm]:
        """The forms below and above."""
        assert self.lower is not None
        return self.lower, self.lower if self.upper is None else self.upper


@dataclasses.dataclass(frozen=True)
class ForwardLinear:
    """The forward domain of linear forms over given sets.

    Attributes:
        graph: for the axes of independent examples.
        sets: of its inputs.
    """

    graph: Graph
    sets: Mapping[Ref, ArraySet]

    def inputs(self) -> dict[Ref, ForwardBounds]:
        """Each input as a form of itself."""
        states = {}
        for ref, own in self.sets.items():
            shape, dtype = own.aval.shape, own.aval.dtype
            form = AffineForm(
                tuple(
                    self._identity(ref) if r == ref else jnp.zeros((n, *shape), dtype)
                    for r, n in self._entries(ref).items()
                ),
                own.point(),
            )
            states[ref] = ForwardBounds(form, None, own.hull())
        return states

    def _entries(self, ref: Ref) -> dict[Ref, int]:
        """Of each input, how many coefficients an entry of a value has."""
        if ref in self.graph.batch_axes:
            return {r: self.graph.size(r) for r in self.sets}
        return {r: math.prod(s.aval.shape) for r, s in self.sets.items()}

    def _identity(self, ref: Ref) -> Array:
        """Coefficients of an input on itself."""
        aval, n = self.graph.aval(ref), self._entries(ref)[ref]
        eye = jnp.eye(n, dtype=aval.dtype)[:, None]
        return self._units[ref][0][None] * placed(eye, aval.shape, self.graph.batch_axes.get(ref))

    @functools.cached_property
    def _units(self) -> dict[Ref, tuple[Array, Array]]:
        """In what inputs are counted, entry by entry, and what is missed in coefficients on them.

        Powers of two, which round nothing: not below one, not so large that coefficients overflow
        before the values do, nor that their inverses are no normal numbers. Nothing is missed
        where the unit is one.
        """

        hulls = {ref: s.hull() for ref, s in self.sets.items()}
        return {ref: (_units_of(hull), missed(hull)) for ref, hull in hulls.items()}

    def joined(self, ref: Ref, value: ForwardBounds) -> ForwardBounds:
        """A value whose examples are independent, with coefficients on the entries of all."""
        axis = self.graph.batch_axes.get(ref)
        if axis is None or value.lower is None:
            return value

        def on_all(coefficients: Array) -> Array:
            """The inputs' examples are along their leading axes."""
            shape = [1] * (coefficients.ndim + 1)
            count = shape[0] = shape[axis + 2] = coefficients.shape[axis + 1]
            same = jnp.eye(count, dtype=bool).reshape(shape)
            return where(same, coefficients, 0).reshape(-1, *coefficients.shape[1:])

        def joint(form: AffineForm) -> AffineForm:
            return AffineForm(tuple(map(on_all, form.coefficients)), form.offset)

        upper = None if value.upper is None else joint(value.upper)
        return ForwardBounds(joint(value.lower), upper, value.box)

    def step(
        self, index: int, node: Node, operands: tuple[ForwardBounds, ...]
    ) -> tuple[ForwardBounds, ...]:
        """Forms and boxes of a node's outputs."""
        found = record(node)
        if isinstance(found, Nonlinear):
            return self._nonlinear(index, node, found, operands)
        boxes = IntervalDomain().step(index, node, tuple(e.box for e in operands))
        if not is_floating(node.outputs[0]):
            return tuple(self._constant(index, box) for box in boxes)
        operands = self._alike(index, node, operands)
        if all(e.upper is None for e in operands):
            exact = _act(node, [e.pair[0] for e in operands])
            return tuple(ForwardBounds(y, None, box) for y, box in zip(exact, boxes, strict=True))
        forms = image(node, found, [e.pair for e in operands], _act)
        return tuple(ForwardBounds(*pair, box) for pair, box in zip(forms, boxes, strict=True))

    def _alike(
        self, index: int, node: Node, operands: tuple[ForwardBounds, ...]
    ) -> tuple[ForwardBounds, ...]:
        """The operands, with coefficients on all examples where the node mixes them."""
        if Ref(index, 0) in self.graph.batch_axes:
            return operands
        return tuple(map(self.joined, node.perturbed, operands))

    def _nonlinear(
        self, index: int, node: Node, found: Nonlinear, operands: tuple[ForwardBounds, ...]
    ) -> tuple[ForwardBounds, ...]:
        """Forms from lines or planes, and boxes from the range over the operands' boxes."""
        boxes = list(map(self.box, node.perturbed, operands))
        images = nonlinear_image(node, found, boxes)
        if isinstance(found, Refined):
            (operand, *_) = self._alike(index, node, operands)
            return (operand._replace(box=images[0]),)
        if not is_floating(node.outputs[0]):
            return tuple(self._constant(index, box) for box in images)
        if isinstance(found, Elementwise | Joint):
            operands = self._alike(index, node, operands)
        if isinstance(found, Elementwise):
            relaxation = (found.beside_box or found.relaxation)(node)
            forms = _between(operands[0], relax(relaxation, boxes[0]))
            lower, upper = (_converted(form, node.outputs[0].dtype) for form in forms)
            return (ForwardBounds(lower, upper, images[0]),)
        if isinstance(found, Joint):
            axes = found.axes(node)
            planes = relax_jointly(found.relaxation(node), boxes, axes)
            below = _compose(operands, planes.lower, axes, above=False)
            above = _compose(operands, planes.upper, axes, above=True)
            if below is not None and above is not None:
                return (ForwardBounds(below, above, images[0]),)
        return tuple(self._constant(index, box) for box in images)

    def _constant(self, index: int, box: Interval) -> ForwardBounds:
        """A value of which nothing but a box is known; of one without forms, as it is no number."""
        if not is_floating(box.lower):
            return ForwardBounds(None, None, box)
        box = vacuous_where_nan(box)
        coefficients = tuple(
            jnp.zeros((n, *box.lower.shape), box.lower.dtype)
            for n in self._entries(Ref(index, 0)).values()
        )
        return ForwardBounds(
            AffineForm(coefficients, box.lower), AffineForm(coefficients, box.upper), box
        )

    def box(self, ref: Ref, value: ForwardBounds) -> Interval:
        """The box of a value: from its forms over the sets, and from its own box."""
        if value.lower is None:
            return value.box
        lower = upper = self.concretize(ref, value.lower)
        if value.upper is not None:
            upper = self.concretize(ref, value.upper)
        box = vacuous_where_overflown(Interval(lower.lower, upper.upper))
        return intersect(vacuous_where_nan(box), value.box)

    def concretize(self, ref: Ref, form: AffineForm) -> Interval:
        """Minimum and maximum of a value's form over the sets."""
        axis = self.graph.batch_axes.get(ref)
        lower = upper = numbered(form.offset, axis)
        rows, lost = self.rows(ref, form)
        for own, coefficients in rows.items():
            s = self.sets[own]
            if axis is None:
                part = s.concretize(coefficients, from_point=True)
            else:
                part = concretize_per_example(s, coefficients, self.graph.batch_axes[own])
            lower, upper = lower + part.lower, upper + part.upper
        dtype, shape = form.offset.dtype, form.offset.shape  # may be shorter than the inputs' type
        limits = lower - lost, upper + lost
        return Interval(*(arranged(x, shape, axis).astype(dtype) for x in limits))

    def rows(self, ref: Ref, form: AffineForm) -> tuple[dict[Ref, Array], Array]:
        """A form's coefficients on the inputs themselves, with its rows first.

        From `[n, *shape]` to `[rows, *input.shape]`. The inputs' examples are along their leading
        axes. And how far off the form may be with these, as they are smaller: shaped as the rows'
        offset, or a number, or one of each example. Outputs are few enough to see which rows are
        zero and lose nothing.
        """
        axis, shape = self.graph.batch_axes.get(ref), form.offset.shape
        size = math.prod(shape) // (1 if axis is None else shape[axis])
        found, lost = {}, jnp.zeros((), form.offset.dtype)
        for (own, s), c in zip(self.sets.items(), form.coefficients, strict=True):
            if axis is None:
                rows = matrix(c).T
            else:
                by_example = jnp.moveaxis(c, axis + 1, -1).reshape(len(c), size, -1)
                rows = jnp.transpose(by_example, (1, 2, 0))
            rows = rows.reshape(size, *s.aval.shape)
            unit, entries = self._units[own]
            found[own] = rows * (1 / unit.astype(c.dtype))[None]
            examples = None if axis is None else self.graph.batch_axes[own]
            part = sums(entries.astype(c.dtype)[None], examples)
            if ref in self.graph.targets:
                part = where(sums(jnp.abs(rows), examples) == 0, 0, part)
            lost += part
        return found, lost


@traced_once()
def _units_of(box: Interval) -> Array:
    """See `ForwardLinear._units`."""
    lower, upper = jax.lax.stop_gradient(box)
    info = jnp.finfo(lower.dtype)
    radius = 0.5 * upper - 0.5 * lower
    _, exponent = jnp.frexp(radius)
    exponent = where(jnp.isinf(radius), info.maxexp, exponent)
    return jnp.ldexp(jnp.ones_like(lower), jnp.clip(exponent - 1, 0, -info.minexp))


def _between(value: ForwardBounds, lines: Lines) -> tuple[AffineForm, AffineForm]:
    """Lines applied to forms: a line of negative slope swaps the two."""
    below, above = value.pair

    def compose(slope: Array, offset: Array, rising: AffineForm, falling: AffineForm) -> AffineForm:
        def mix(a: Array, b: Array) -> Array:
            return maximum(slope, 0) * a + minimum(slope, 0) * b

        coefficients = tuple(map(jax.vmap(mix), rising.coefficients, falling.coefficients))
        return AffineForm(coefficients, mix(rising.offset, falling.offset) + offset)

    lower = compose(lines.lower_slope, lines.lower_offset, below, above)
    return lower, compose(lines.upper_slope, lines.upper_offset, above, below)


def _converted(form: AffineForm, dtype: Any) -> AffineForm:
    """A form in the format of its value, which a conversion may have made a shorter one."""
    return AffineForm(tuple(c.astype(dtype) for c in form.coefficients), form.offset.astype(dtype))


def _compose(
    operands: Sequence[ForwardBounds], plane: Plane, axes: tuple[int, ...], above: bool
) -> AffineForm | None:
    """The lower plane applied to forms, or the upper one; None where it is horizontal."""
    coefficients: tuple[Array, ...] = ()
    offset = plane.offset
    for slope, operand in zip(plane.slopes, operands, strict=True):
        if slope is None:
            continue
        rising, falling = operand.pair[::-1] if above else operand.pair

        def mix(a: Array, b: Array, slope: Array = slope) -> Array:
            return jnp.sum(maximum(slope, 0) * a + minimum(slope, 0) * b, axes)

        parts = tuple(map(jax.vmap(mix), rising.coefficients, falling.coefficients))
        coefficients = tuple(map(jnp.add, coefficients, parts)) if coefficients else parts
        offset = offset + mix(rising.offset, falling.offset)
    return AffineForm(coefficients, offset) if coefficients else None


def compose(
    sides: tuple[AffineRows, AffineRows],
    reference: Array,
    value: ForwardBounds,
    shape: tuple[int, ...],
    axes: tuple[int | None, int | None],
) -> tuple[AffineForm, AffineForm]:
    """Affine rows of a value, between two forms: where a coefficient is negative, the upper form
    of the value bounds from below.

    Args:
        sides: of the value's deviation from `reference`, below and above.
        reference: shaped like the value.
        value: what is known of it.
        shape: of the result, one entry a row.
        axes: of the value and of the result, that number examples.
    """

    def side(rows: AffineRows, rising: AffineForm, falling: AffineForm) -> AffineForm:
        up, down = maximum(rows.coefficients, 0), minimum(rows.coefficients, 0)

        def mix(a: Array, b: Array) -> Array:
            products = inner_products([(up, a[None]), (down, b[None])], axes[0])
            return arranged(products, shape, axes[1])

        coefficients = tuple(map(jax.vmap(mix), rising.coefficients, falling.coefficients))
        offset = mix(rising.offset - reference, falling.offset - reference)
        return AffineForm(coefficients, offset + arranged(rows.offset, shape, axes[1]))

    below, above = sides
    lower, upper = value.pair
    return side(below, lower, upper), side(above, upper, lower)


def add(a: AffineForm, b: AffineForm) -> AffineForm:
    """The sum of two forms."""
    return AffineForm(tuple(map(jnp.add, a.coefficients, b.coefficients)), a.offset + b.offset)


def _act(node: Node, forms: Sequence[AffineForm]) -> list[AffineForm]:
    """An affine node on forms: its linear part on the coefficients, all of it on the offset.

    The linear part is the forward derivative, which for an affine function is the same at every
    point.
    """

    def linear(*values: Array) -> tuple[Array, ...]:
        return jax.jvp(node, tuple(map(jnp.zeros_like, values)), values)[1]

    parts = [jax.vmap(linear)(*c) for c in zip(*(f.coefficients for f in forms), strict=True)]
    offsets = node(*(f.offset for f in forms))
    return [AffineForm(tuple(p[k] for p in parts), offset) for k, offset in enumerate(offsets)]
