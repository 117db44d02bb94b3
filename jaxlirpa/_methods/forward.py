"""Forward linear bound propagation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from jaxlirpa._domains.forward_linear import Enclosure, Form, ForwardLinear, add, compose
from jaxlirpa._domains.rows import arranged, numbered
from jaxlirpa._graph.graph import Graph, Ref
from jaxlirpa._methods.chain import affine, merged, starts
from jaxlirpa._methods.options import checked
from jaxlirpa._methods.solution import AffineRows, Solution, only_box
from jaxlirpa._methods.transform import transform
from jaxlirpa._typing import Bounds, LinearBounds, PyTree
from jaxlirpa._walk import backward, forward
from jaxlirpa.sets import ArraySet


@checked
def forward_crown(
    fn: Callable[..., PyTree],
    *,
    argnums: int | tuple[int, ...] | None = None,
    in_axes: PyTree = None,
    out_axes: int = 0,
    linear: bool = False,
) -> Callable[..., Bounds | LinearBounds]:
    """Bounds a function by linear forms in its inputs, carried forwards from node to node.

    The cost grows with the number of perturbed entries, and not with that of outputs or layers:
    the method for few inputs and many outputs. Between `ibp` and `crown` in tightness.

    Args:
        fn: function of pytrees of arrays.
        argnums: the arguments that `eps` perturbs, as of `ibp`; default: the last one.
        in_axes: as in `jax.vmap`: which axis of which argument numbers independent examples.
        out_axes: the axis of every output that numbers the examples.
        linear: return `LinearBounds` instead of `Bounds`.

    Returns:
        A function of fn's arguments, see `jaxlirpa.ibp`.

    Raises:
        As `jaxlirpa.ibp`.

    Example:
        >>> import jax.numpy as jnp, jaxlirpa
        >>> lower, upper = jaxlirpa.forward_crown(lambda x: jnp.abs(x) - x)(jnp.array(1.0), 0.5)
        >>> print(lower, upper)
        0.0 0.0
    """
    method = functools.partial(solve, merge_output=not isinstance(fn, Graph))
    return transform(
        fn, method, _cost, argnums=argnums, in_axes=in_axes, out_axes=out_axes, linear=linear
    )


def solve(graph: Graph, sets: Mapping[Ref, ArraySet], merge_output: bool) -> list[Solution]:
    """Boxes and linear bounds of a graph's outputs.

    Args:
        graph: the program.
        sets: of its inputs.
        merge_output: see `jaxlirpa._methods.ibp.solve`.
    """
    forms = ForwardLinear(graph, sets)
    values = forward(graph, forms, forms.inputs())
    if merge_output:
        values.update(_merged(graph, sets, forms, values))
    return [_solution(forms, ref, values[ref]) for ref in graph.targets]


def _solution(forms: ForwardLinear, ref: Ref, value: Enclosure) -> Solution:
    box = forms.box(ref, value)
    if value.lower is None or value.upper is None:
        return only_box(box)
    axis = forms.graph.examples.get(ref)

    def rows(form: Form, outwards: int) -> AffineRows:
        coefficients, lost = forms.rows(ref, form)
        return AffineRows(coefficients, numbered(form.offset, axis) + outwards * lost)

    lower, upper = rows(value.lower, -1), rows(value.upper, +1)
    return Solution(box, lower, upper)


def _merged(
    graph: Graph,
    sets: Mapping[Ref, ArraySet],
    forms: ForwardLinear,
    values: Mapping[Ref, Enclosure],
) -> dict[Ref, Enclosure]:
    """Better enclosures of the outputs whose affine chain has several links."""
    known = {ref: value.box for ref, value in values.items()}
    domain = affine(graph, sets, known)
    boxes = merged(graph, sets, known)
    begin = [ref for ref in values if starts(graph, ref)]
    found = {}
    for ref, box in boxes.items():
        value, functional = domain.start(ref)
        lost = domain.lost(ref, begin, value, functional)
        reached = backward(graph, domain, value, functional, begin.__contains__)
        axis = graph.examples.get(ref)
        parts = [
            compose(
                f.lower,
                domain.reference[r],
                forms.joined(r, values[r]) if axis is None else values[r],
                graph.aval(ref).shape,
                (None if axis is None else graph.examples[r], axis),
            )
            for r, f in reached.items()
        ]
        lower, upper = (functools.reduce(add, forms) for forms in zip(*parts, strict=True))
        lost = arranged(lost, box.lower.shape, axis)
        lower = lower._replace(offset=lower.offset - lost)
        upper = upper._replace(offset=upper.offset + lost)
        found[ref] = Enclosure(lower, upper, box)
    return found


def _cost(graph: Graph, sets: Mapping[Ref, ArraySet]) -> int:
    """Coefficients of the widest value."""
    return sum(map(graph.size, sets)) * graph.width()
