"""CROWN: linear functionals carried backwards from the output to the inputs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from jaxlirpa._domains.interval import IntervalDomain
from jaxlirpa._graph.graph import Graph, Ref
from jaxlirpa._methods.chain import merged
from jaxlirpa._methods.ibp import from_balls, ibp
from jaxlirpa._methods.layers import Bound, Layers, plain
from jaxlirpa._methods.relaxed import Relaxed, nonlinear
from jaxlirpa._methods.solution import Solution, only_box, output_cost
from jaxlirpa._methods.transform import transform
from jaxlirpa._typing import (
    Array,
    Bounds,
    Interval,
    LinearBounds,
    PyTree,
    intersect,
    is_floating,
    vacuous_where_nan,
)
from jaxlirpa._walk import forward
from jaxlirpa.sets import ArraySet

Transform = Callable[..., Callable[..., Any]]


def crown(
    fn: Callable[..., PyTree],
    *,
    intermediate: Transform | None = None,
    rows_per_chunk: int | None = None,
    argnums: int | tuple[int, ...] | None = None,
    in_axes: PyTree = None,
    out_axes: int = 0,
    linear: bool = False,
) -> Callable[..., Bounds | LinearBounds]:
    """Bounds a function by CROWN (Zhang et al. 2018; Xu et al. 2020).

    Every output is bounded by a linear functional that is carried backwards to the inputs, through
    each nonlinear function by the lines around it on the box of its operand. Those intermediate
    boxes come from another transform. The result is intersected with interval bounds, so it is
    never looser than `ibp`.

    Args:
        fn: function of pytrees of arrays.
        intermediate: the transform that bounds the operands of nonlinear functions: `ibp` (the
            result is CROWN-IBP), `forward_crown` (forward+backward), any other transform, or None
            for CROWN itself, layer by layer: the tightest and the most expensive.
        rows_per_chunk: how many inner values are bounded at once, by a backward pass with as many
            rows: fewer take less memory. Default: what fits into some hundred megabytes.
        argnums: the arguments that a final `eps` perturbs; default: the last one.
        in_axes: as in `jax.vmap`: which axis of which argument numbers independent examples.
        out_axes: the axis of every output that numbers the examples.
        linear: return `LinearBounds`, the functionals themselves, instead of `Bounds`.

    Returns:
        A function of fn's arguments, see `jaxlirpa.ibp`.

    Raises:
        As `jaxlirpa.ibp`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxlirpa
        >>> fn = lambda x: jax.nn.relu(x) - 0.5 * x
        >>> print(*jaxlirpa.ibp(fn)(jnp.array(0.0), 1.0))
        -0.5 1.5
        >>> print(*jaxlirpa.crown(fn)(jnp.array(0.0), 1.0))
        -0.5 0.5
    """
    merge_output = not isinstance(fn, Graph)
    method = functools.partial(
        solve,
        intermediate=intermediate,
        merge_output=merge_output,
        rows_per_chunk=rows_per_chunk,
    )
    return transform(
        fn,
        method,
        cost if intermediate is None else output_cost,
        argnums=argnums,
        in_axes=in_axes,
        out_axes=out_axes,
        linear=linear,
    )


def crown_ibp(
    fn: Callable[..., PyTree],
    *,
    argnums: int | tuple[int, ...] | None = None,
    in_axes: PyTree = None,
    out_axes: int = 0,
    linear: bool = False,
) -> Callable[..., Bounds | LinearBounds]:
    """Bounds a function by CROWN with interval bounds inside (Zhang et al. 2020).

    One forward pass of intervals and one backward pass: cheap enough to train with. The same as
    `crown(fn, intermediate=ibp)`, whose documentation describes the arguments.

    Example:
        >>> import jax, jax.numpy as jnp, jaxlirpa
        >>> lower, upper = jaxlirpa.crown_ibp(jax.nn.relu)(jnp.array([-1.0, 2.0]), 0.5)
        >>> print(lower, upper)
        [0.  1.5] [0.  2.5]
    """
    return crown(
        fn,
        intermediate=ibp,
        argnums=argnums,
        in_axes=in_axes,
        out_axes=out_axes,
        linear=linear,
    )


def solve(
    graph: Graph,
    sets: Mapping[Ref, ArraySet],
    intermediate: Transform | None,
    merge_output: bool,
    bound_output: Bound = plain,
    bound_layer: Bound | None = None,
    rows_per_chunk: int | None = None,
) -> list[Solution]:
    """Boxes and linear bounds of a graph's outputs.

    Args:
        graph: the program.
        sets: of its inputs.
        intermediate: see `crown`.
        merge_output: see `jaxlirpa._methods.ibp.solve`.
        bound_output: bounds an output, by the relaxations of the nodes before it.
        bound_layer: bounds an intermediate value in the same way; default: as CROWN does.
        rows_per_chunk: see `crown`.
    """
    boxes: dict[Ref, Interval] = {ref: s.hull() for ref, s in sets.items()}
    tight: dict[Ref, Interval] = {}
    relaxed = Relaxed(graph, sets, tight)

    def tighten(ref: Ref, box: Interval) -> Interval:
        if ref not in tight:
            tight[ref] = _improved(box, bound(ref, box)) if is_floating(graph.aval(ref)) else box
        return tight[ref]

    if intermediate is None:
        layers = Layers(relaxed, lambda ref: tighten(ref, boxes[ref]), bound_layer, rows_per_chunk)
        bound: Callable[[Ref, Interval], Interval] = layers.bound
    elif intermediate is ibp:  # Its boxes are those of the walk below.
        bound = from_balls(graph, sets)
    else:
        bound = _by_transform(graph, sets, intermediate)
    forward(graph, IntervalDomain(tighten, recall=tight.get), boxes)
    if merge_output:
        boxes.update(merged(graph, sets, boxes))

    def solution(ref: Ref, box: Interval) -> Solution:
        """Linear bounds, intersected with the box; a mask or a number has a box only."""
        if not is_floating(box.lower):
            return only_box(box)
        found = bound_output(relaxed, ref)
        value = relaxed.domain.reference[ref]
        return found._replace(box=_around(value, box, found.box))

    return [solution(ref, boxes[ref]) for ref in graph.targets]


def _improved(box: Interval, found: Interval) -> Interval:
    """A box inside another one, which says nothing where it could not be computed."""
    return intersect(box, vacuous_where_nan(found))


def _around(value: Array, box: Interval, found: Interval) -> Interval:
    """A box inside two others that hold an attained value.

    Rounding may let the two miss each other, or that value, which is then the limit. So no limit
    depends on the other side: who only uses one pays for one. Where the value cannot be computed,
    neither is what was found around it.
    """
    found = vacuous_where_nan(found)
    lower, upper = jnp.maximum(box.lower, found.lower), jnp.minimum(box.upper, found.upper)
    return Interval(jnp.where(lower > value, value, lower), jnp.where(upper < value, value, upper))


def _by_transform(
    graph: Graph, sets: Mapping[Ref, ArraySet], intermediate: Transform
) -> Callable[[Ref, Interval], Interval]:
    """Bounds all intermediate values at once, as the outputs of one function."""
    nodes = (graph.nodes[i] for i in nonlinear(graph))
    operands = tuple(dict.fromkeys(ref for node in nodes for ref in node.perturbed))
    operands = tuple(ref for ref in operands if is_floating(graph.aval(ref)))
    lower, upper = intermediate(graph.returning(operands))(*sets.values())
    boxes = dict(zip(operands, map(Interval, lower, upper), strict=True))
    return lambda ref, box: boxes[ref]


def cost(graph: Graph, sets: Mapping[Ref, ArraySet]) -> int:
    """Coefficients of a row an entry, on the widest value."""
    del sets
    return graph.width() ** 2
