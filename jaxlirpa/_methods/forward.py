"""Forward linear bound propagation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from jaxlirpa._domains.backward_linear import BackwardBounds
from jaxlirpa._domains.forward_linear import AffineForm, ForwardBounds, ForwardLinear, add, compose
from jaxlirpa._domains.rows import numbered
from jaxlirpa._graph.graph import Ref
from jaxlirpa._methods.affine_tail import affine, starts, tail_boxes
from jaxlirpa._methods.options import checked
from jaxlirpa._methods.problem import Problem
from jaxlirpa._methods.solution import InputRows, Solution, only_box
from jaxlirpa._methods.transform import transform
from jaxlirpa._types import Bounds, LinearBounds, PyTree
from jaxlirpa._walk import backward, forward


@checked
def forward_crown(
    fn: Callable[..., PyTree],
    *,
    argnums: int | tuple[int, ...] | None = None,
    in_axes: PyTree = None,
    out_axes: int = 0,
    linear: bool = False,
) -> Callable[..., Bounds | LinearBounds]:
    """Bounds a function by linear forms in its inputs, propagated forwards from node to node.

    The cost grows with the number of perturbed entries, not with the number of outputs or layers,
    so it suits functions of few inputs and many outputs. It is tighter than `ibp` and looser than
    `crown`.

    Args:
        fn: function of pytrees of arrays.
        argnums: the arguments that `eps` perturbs, as for `ibp`; default: the last one.
        in_axes: as for `jax.vmap`: which axis of each argument indexes independent examples.
        out_axes: the axis of every output that indexes the examples.
        linear: return `LinearBounds` instead of `Bounds`.

    Returns:
        A function that takes fn's arguments, see `jaxlirpa.ibp`.

    Raises:
        As `jaxlirpa.ibp`.

    Example:
        >>> import jax.numpy as jnp, jaxlirpa
        >>> lower, upper = jaxlirpa.forward_crown(lambda x: jnp.abs(x) - x)(jnp.array(1.0), 0.5)
        >>> print(lower, upper)
        0.0 0.0
    """
    return transform(
        fn, solve, _cost, argnums=argnums, in_axes=in_axes, out_axes=out_axes, linear=linear
    )


def solve(problem: Problem) -> list[Solution]:
    """Boxes and linear bounds of a program's outputs."""
    graph = problem.graph
    forms = ForwardLinear(graph, problem.sets)
    values = forward(graph, forms, forms.inputs())
    values.update(_tails(problem, forms, values))
    return [_solution(forms, ref, values[ref]) for ref in graph.targets]


def _solution(forms: ForwardLinear, ref: Ref, value: ForwardBounds) -> Solution:
    box = forms.box(ref, value)
    if value.lower is None:
        return only_box(box)
    axis = forms.graph.batch_axes.get(ref)

    def rows(form: AffineForm, outwards: int) -> InputRows:
        coefficients, lost = forms.rows(ref, form)
        return InputRows(coefficients, numbered(form.offset, axis) + outwards * lost)

    below, above = value.pair
    return Solution(box, rows(below, -1), rows(above, +1))


def _tails(
    problem: Problem, forms: ForwardLinear, values: Mapping[Ref, ForwardBounds]
) -> dict[Ref, ForwardBounds]:
    """Better enclosures of the outputs whose affine tail has several links."""
    graph = problem.graph
    known = {ref: value.box for ref, value in values.items()}
    domain = affine(problem, known)
    begin = [ref for ref in values if starts(graph, ref)]
    found = {}
    for ref, box in tail_boxes(problem, known).items():
        reached = backward(graph, domain, domain.start(ref), begin.__contains__)
        axis, shape = graph.batch_axes.get(ref), graph.aval(ref).shape

        def composed(r: Ref, f: BackwardBounds, axis: int | None = axis, shape: Any = shape) -> Any:
            value = forms.joined(r, values[r]) if axis is None else values[r]
            own = None if axis is None else graph.batch_axes[r]
            return compose(f.loosened(), domain.reference[r], value, shape, (own, axis))

        parts = [composed(r, f) for r, f in reached.items()]
        lower, upper = (functools.reduce(add, side) for side in zip(*parts, strict=True))
        found[ref] = ForwardBounds(lower, upper, box)
    return found


def _cost(problem: Problem) -> int:
    """Coefficients of the widest value."""
    return sum(map(problem.graph.size, problem.sets)) * problem.graph.width()
