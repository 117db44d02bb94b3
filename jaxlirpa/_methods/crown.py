"""CROWN: linear functionals carried backwards from the output to the inputs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from jaxlirpa._domains.backward_linear import BackwardLinear
from jaxlirpa._domains.interval import IntervalDomain
from jaxlirpa._domains.windowed_linear import WindowedLinear
from jaxlirpa._domains.windows import layout_of
from jaxlirpa._graph.graph import INPUT, Graph, Ref
from jaxlirpa._methods.chain import merged
from jaxlirpa._methods.exactness import Quality, origins
from jaxlirpa._methods.ibp import ibp
from jaxlirpa._methods.solution import Solution, enclose, output_cost, reference
from jaxlirpa._methods.transform import transform
from jaxlirpa._ops.families import Elementwise
from jaxlirpa._ops.registry import record
from jaxlirpa._relax.lines import Lines, relax
from jaxlirpa._typing import (
    Bounds,
    Interval,
    LinearBounds,
    PyTree,
    intersect,
    vacuous_where_overflown,
)
from jaxlirpa._walk import backward, forward
from jaxlirpa.sets import ArraySet

Transform = Callable[..., Callable[..., Any]]


def crown(
    fn: Callable[..., PyTree],
    *,
    intermediate: Transform | None = None,
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
    method = functools.partial(solve, intermediate=intermediate, merge_output=merge_output)
    return transform(
        fn,
        method,
        _cost if intermediate is None else output_cost,
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
) -> list[Solution]:
    """Boxes and linear bounds of a graph's outputs.

    Args:
        graph: the program.
        sets: of its inputs.
        intermediate: see `crown`.
        merge_output: see `jaxlirpa._methods.ibp.solve`.
    """
    tight: dict[Ref, Interval] = {}

    @functools.cache
    def lines(index: int) -> Lines:
        node = graph.nodes[index]
        found = record(node)
        assert isinstance(found, Elementwise)
        return relax(found.relaxation(node), tight[node.perturbed[0]])

    domain = BackwardLinear(graph, reference(graph, sets), lines)
    bound = _layer_by_layer(graph, sets, domain)
    if intermediate is not None:
        bound = _by_transform(graph, sets, intermediate)

    def tighten(ref: Ref, box: Interval) -> Interval:
        if ref not in tight:
            tight[ref] = intersect(box, bound(ref, box))
        return tight[ref]

    boxes = forward(graph, IntervalDomain(tighten), {ref: s.hull() for ref, s in sets.items()})
    if merge_output:
        boxes.update(merged(graph, sets, boxes))
    found = [(ref, enclose(graph, sets, domain, ref)) for ref in graph.targets]
    return [s._replace(box=intersect(boxes[ref], s.box)) for ref, s in found]


def _layer_by_layer(
    graph: Graph, sets: Mapping[Ref, ArraySet], domain: BackwardLinear
) -> Callable[[Ref, Interval], Interval]:
    """Bounds an intermediate value by a backward pass of its own.

    Not where its interval is known to be exact: behind the first layer of a box, say. Where the
    value is an image, the rows are carried as windows.
    """
    origin = origins(graph, sets)

    def bound(ref: Ref, box: Interval) -> Interval:
        if origin[ref].quality >= Quality.EXACT and origin[ref].sources <= sets.keys():
            return box
        layout = layout_of(graph, sets, ref)
        if layout is None:
            return enclose(graph, sets, domain, ref).box
        local = WindowedLinear(graph, domain.reference, domain.lines, layout)
        reached = backward(graph, local, ref, local.identity(ref), sets.__contains__)
        return vacuous_where_overflown(local.box(reached, sets, ref))

    return bound


def _by_transform(
    graph: Graph, sets: Mapping[Ref, ArraySet], intermediate: Transform
) -> Callable[[Ref, Interval], Interval]:
    """Bounds all intermediate values at once, as the outputs of one function."""
    nonlinear = [graph.nodes[i] for i in graph.live() if graph.nodes[i].primitive != INPUT]
    nonlinear = [node for node in nonlinear if isinstance(record(node), Elementwise)]
    operands = tuple(dict.fromkeys(node.perturbed[0] for node in nonlinear))
    lower, upper = intermediate(graph.returning(operands))(*sets.values())
    boxes = dict(zip(operands, map(Interval, lower, upper), strict=True))
    return lambda ref, box: boxes[ref]


def _cost(graph: Graph, sets: Mapping[Ref, ArraySet]) -> int:
    """Coefficients of a row an entry, on the widest value."""
    del sets
    return graph.width() ** 2
