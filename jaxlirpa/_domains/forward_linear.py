"""Forward linear forms: every value between two affine functions of the perturbed inputs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxlirpa._domains.interval import IntervalDomain, nonlinear_image
from jaxlirpa._domains.ordered import image
from jaxlirpa._domains.rows import Side
from jaxlirpa._graph.graph import Node, Ref
from jaxlirpa._ops.families import Elementwise, Joint, Nonlinear, Within
from jaxlirpa._ops.registry import record
from jaxlirpa._relax.lines import Lines, relax
from jaxlirpa._relax.planes import Plane, relax_jointly
from jaxlirpa._typing import (
    Array,
    Interval,
    inner,
    intersect,
    is_floating,
    matrix,
    vacuous_where_nan,
    vacuous_where_overflown,
)
from jaxlirpa.sets import ArraySet


class Form(NamedTuple):
    """An affine function of the inputs, entry by entry of a value, around the sets' points.

    Attributes:
        coefficients: for each input of `n` entries, `[n, *shape]`.
        offset: `[*shape]`, the value where every input is its set's `point()`.
    """

    coefficients: tuple[Array, ...]
    offset: Array


class Enclosure(NamedTuple):
    """A value between two forms (one object twice where they are equal), and in a box.

    A value that is no real number, a truth value say, has a box only.
    """

    lower: Form | None
    upper: Form | None
    box: Interval


@dataclasses.dataclass(frozen=True)
class ForwardLinear:
    """The forward domain of linear forms over given sets."""

    sets: Mapping[Ref, ArraySet]

    def inputs(self) -> dict[Ref, Enclosure]:
        """Each input as a form of itself."""
        states = {}
        for ref, own in self.sets.items():
            shape, dtype = own.aval.shape, own.aval.dtype
            coefficients = tuple(
                jnp.eye(n, dtype=dtype).reshape(n, *shape)
                if s is own
                else jnp.zeros((n, *shape), dtype)
                for s in self.sets.values()
                for n in [math.prod(s.aval.shape)]
            )
            form = Form(coefficients, own.point())
            states[ref] = Enclosure(form, form, own.hull())
        return states

    def step(
        self, index: int, node: Node, operands: tuple[Enclosure, ...]
    ) -> tuple[Enclosure, ...]:
        """Forms and boxes of a node's outputs."""
        found = record(node)
        if isinstance(found, Nonlinear):
            return self._nonlinear(node, found, operands)
        boxes = IntervalDomain().step(index, node, tuple(e.box for e in operands))
        if not is_floating(node.outputs[0]):
            return tuple(self._constant(box) for box in boxes)
        forms = image(node, found, [(e.lower, e.upper) for e in operands], _act)
        return tuple(Enclosure(*pair, box) for pair, box in zip(forms, boxes, strict=True))

    def _nonlinear(
        self, node: Node, found: Nonlinear, operands: tuple[Enclosure, ...]
    ) -> tuple[Enclosure, ...]:
        """Forms from lines or planes, and boxes from the range over the operands' boxes."""
        boxes = [self.box(operand) for operand in operands]
        images = nonlinear_image(node, found, boxes)
        if isinstance(found, Within):
            return (operands[0]._replace(box=images[0]),)
        if not is_floating(node.outputs[0]):
            return tuple(self._constant(box) for box in images)
        if isinstance(found, Elementwise):
            relaxation = (found.beside_box or found.relaxation)(node)
            forms = _between(operands[0], relax(relaxation, boxes[0]))
            lower, upper = (_converted(form, node.outputs[0].dtype) for form in forms)
            return (Enclosure(lower, upper, images[0]),)
        if isinstance(found, Joint):
            axes = found.axes(node)
            planes = relax_jointly(found.relaxation(node), boxes, axes)
            below = _compose([(e.lower, e.upper) for e in operands], planes.lower, axes)
            above = _compose([(e.upper, e.lower) for e in operands], planes.upper, axes)
            if below is not None and above is not None:
                return (Enclosure(below, above, images[0]),)
        return tuple(self._constant(box) for box in images)

    def _constant(self, box: Interval) -> Enclosure:
        """A value of which nothing but a box is known; of one without forms, as it is no number."""
        if not is_floating(box.lower):
            return Enclosure(None, None, box)
        box = vacuous_where_nan(box)
        coefficients = tuple(
            jnp.zeros((math.prod(s.aval.shape), *box.lower.shape), box.lower.dtype)
            for s in self.sets.values()
        )
        return Enclosure(Form(coefficients, box.lower), Form(coefficients, box.upper), box)

    def box(self, value: Enclosure) -> Interval:
        """The box of a value: from its forms over the sets, and from its own box."""
        if value.lower is None or value.upper is None:
            return value.box
        lower, upper = self.extrema(value.lower), self.extrema(value.upper)
        box = vacuous_where_overflown(Interval(lower.lower, upper.upper))
        return intersect(vacuous_where_nan(box), value.box)

    def extrema(self, form: Form) -> Interval:
        """Minimum and maximum of a form over the sets."""
        shape = form.offset.shape
        lower = upper = form.offset.reshape(-1)
        for s, coefficients in zip(self.sets.values(), form.coefficients, strict=True):
            rows = matrix(coefficients).T
            part = s.extrema(rows.reshape(len(rows), *s.aval.shape), s.point())
            lower, upper = lower + part.lower, upper + part.upper
        dtype = form.offset.dtype  # may be shorter than that of the inputs
        return Interval(*(x.reshape(shape).astype(dtype) for x in (lower, upper)))


def _between(value: Enclosure, lines: Lines) -> tuple[Form, Form]:
    """Lines applied to forms: a line of negative slope turns the two around."""
    assert value.lower is not None and value.upper is not None

    def compose(slope: Array, offset: Array, rising: Form, falling: Form) -> Form:
        def mix(a: Array, b: Array) -> Array:
            return jnp.maximum(slope, 0) * a + jnp.minimum(slope, 0) * b

        coefficients = tuple(map(jax.vmap(mix), rising.coefficients, falling.coefficients))
        return Form(coefficients, mix(rising.offset, falling.offset) + offset)

    lower = compose(lines.lower_slope, lines.lower_offset, value.lower, value.upper)
    return lower, compose(lines.upper_slope, lines.upper_offset, value.upper, value.lower)


def _converted(form: Form, dtype: Any) -> Form:
    """A form in the format of its value, which a conversion may have made a shorter one."""
    return Form(tuple(c.astype(dtype) for c in form.coefficients), form.offset.astype(dtype))


def _compose(
    operands: Sequence[tuple[Form | None, Form | None]], plane: Plane, axes: tuple[int, ...]
) -> Form | None:
    """A plane applied to forms, rising and falling ones an operand; None where it is horizontal."""
    coefficients: tuple[Array, ...] = ()
    offset = plane.offset
    for slope, (rising, falling) in zip(plane.slopes, operands, strict=True):
        if slope is None:
            continue
        assert rising is not None and falling is not None

        def mix(a: Array, b: Array, slope: Array = slope) -> Array:
            return jnp.sum(jnp.maximum(slope, 0) * a + jnp.minimum(slope, 0) * b, axes)

        parts = tuple(map(jax.vmap(mix), rising.coefficients, falling.coefficients))
        coefficients = tuple(map(jnp.add, coefficients, parts)) if coefficients else parts
        offset = offset + mix(rising.offset, falling.offset)
    return Form(coefficients, offset) if coefficients else None


def compose(
    rows: Side, reference: Array, value: Enclosure, shape: tuple[int, ...]
) -> tuple[Form, Form]:
    """Affine rows of a value, between two forms: where a coefficient is negative, the upper form
    of the value bounds from below.

    Args:
        rows: of the value's deviation from `reference`.
        reference: shaped like the value.
        value: what is known of it.
        shape: of the result, one entry a row.
    """
    flat = matrix(rows.coefficients)
    up, down = jnp.maximum(flat, 0), jnp.minimum(flat, 0)

    def side(rising: Form, falling: Form) -> Form:
        def mix(a: Array, b: Array) -> Array:
            return (inner(up, a) + inner(down, b)).reshape(shape)

        coefficients = tuple(map(jax.vmap(mix), rising.coefficients, falling.coefficients))
        offset = mix(rising.offset - reference, falling.offset - reference)
        return Form(coefficients, offset + rows.offset.reshape(shape))

    assert value.lower is not None and value.upper is not None
    return side(value.lower, value.upper), side(value.upper, value.lower)


def add(a: Form, b: Form) -> Form:
    """The sum of two forms."""
    return Form(tuple(map(jnp.add, a.coefficients, b.coefficients)), a.offset + b.offset)


def _act(node: Node, forms: Sequence[Form]) -> list[Form]:
    """An affine node on forms: its linear part on the coefficients, all of it on the offset.

    The linear part is the forward derivative, which for an affine function is the same at every
    point.
    """

    def linear(*values: Array) -> tuple[Array, ...]:
        return jax.jvp(node, tuple(map(jnp.zeros_like, values)), values)[1]

    parts = [jax.vmap(linear)(*c) for c in zip(*(f.coefficients for f in forms), strict=True)]
    offsets = node(*(f.offset for f in forms))
    return [Form(tuple(p[k] for p in parts), offset) for k, offset in enumerate(offsets)]
