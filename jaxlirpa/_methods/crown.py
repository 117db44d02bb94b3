"""CROWN: linear functionals carried backwards from the output to the inputs."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax.numpy as jnp

from jaxlirpa._arrays import is_floating, traced_once, where
from jaxlirpa._graph.graph import Ref
from jaxlirpa._intervals import Interval, vacuous_where_nan
from jaxlirpa._methods.affine_tail import tail_boxes
from jaxlirpa._methods.ibp import ibp
from jaxlirpa._methods.intermediate_boxes import Strategy, Transform, intermediate_boxes
from jaxlirpa._methods.layerwise import BoundValue, Layerwise, by_default_relaxations
from jaxlirpa._methods.named_bounds import NamedBounds, by_ref, check_possible, strategy_of
from jaxlirpa._methods.options import checked, whole_number
from jaxlirpa._methods.problem import Problem
from jaxlirpa._methods.solution import Solution, only_box, output_cost
from jaxlirpa._methods.transform import transform
from jaxlirpa._types import Array, Bounds, LinearBounds, PyTree


@checked
def crown(
    fn: Callable[..., PyTree],
    *,
    intermediate: Transform | NamedBounds | None = None,
    rows_per_chunk: int | None = None,
    argnums: int | tuple[int, ...] | None = None,
    in_axes: PyTree = None,
    out_axes: int = 0,
    linear: bool = False,
) -> Callable[..., Bounds | LinearBounds]:
    """Bounds a function by CROWN (Zhang et al. 2018; Xu et al. 2020).

    Each output is bounded by a linear functional, carried backwards from the output to the inputs.
    At a nonlinear function it passes through two lines that enclose the function on the box of its
    operand (its pre-activation bounds). The result is intersected with interval bounds, so it is
    never looser than `ibp`. `intermediate` selects how those boxes are found:

    * None: a backward pass for every layer. This is CROWN proper, the tightest choice and the most
      expensive. A layer with more than `rows_per_chunk` entries spends rows only on its unstable
      entries, those whose function is not linear on their interval (for relu: whose sign is not
      known). Pass a large `rows_per_chunk` for a row for every entry.
    * `ibp`: intervals, the cheapest choice. This is CROWN-IBP.
    * `forward_crown`, or any other transform: it is called with a function that returns the
      values to bound, and then with the sets of the inputs: `transform(fn)(*sets)`. Your own works
      if it returns a pair of lower and upper limits, each shaped like the function's output.
      Options go in by `functools.partial`.
    * A mapping from names to pairs of limits: the values it names are not bounded again, all others
      are bounded as with None. `intermediate_bounds` returns such a mapping. Limits of your own can
      be added: `intermediate_bounds(fn, intermediate=ibp)(x, eps) | {"mine": (lower, upper)}`.

    A plain dictionary is trusted: the result is sound only if every pair holds for all values that
    the name takes in this call. Bounds that come from `intermediate_bounds` are checked: they are
    used only where the sets lie inside the sets of that earlier call and all known arguments are
    the same, see `IntermediateBounds`. What is not checked is that a name means the same value in
    both calls. It does if both functions call the same network and compute nothing else in the
    network's scopes or on its lines. One call of `intermediate_bounds` then serves every
    specification and every smaller radius. Limits can be traced, mapped and differentiated.

    Args:
        fn: function of pytrees of arrays.
        intermediate: how the operands of nonlinear functions are bounded, see above. Names that
            `fn` does not have are ignored, unless it has none of them.
        rows_per_chunk: how many entries of a layer are bounded in one backward pass, with one row
            each. Fewer rows take less memory. Default: a quarter of the layer, or what fits into
            128 MiB if that is less.
        argnums: the arguments that `eps` perturbs, as for `ibp`; default: the last one.
        in_axes: as for `jax.vmap`: which axis of each argument indexes independent examples. The
            limits in `intermediate` then have the examples along their first axis.
        out_axes: the axis of every output that indexes the examples.
        linear: return `LinearBounds`, the functionals themselves, instead of `Bounds`.

    Returns:
        A function that takes fn's arguments, see `jaxlirpa.ibp`.

    Raises:
        As `jaxlirpa.ibp`; ArgumentError also where given limits do not fit the values.

    Example:
        >>> import jax, jax.numpy as jnp, jaxlirpa
        >>> fn = lambda x: jax.nn.relu(x) - 0.5 * x
        >>> print(*jaxlirpa.ibp(fn)(jnp.array(0.0), 1.0))
        -0.5 1.5
        >>> print(*jaxlirpa.crown(fn)(jnp.array(0.0), 1.0))
        -0.5 0.5
    """
    whole_number("rows_per_chunk", rows_per_chunk, 1)
    strategy, given = strategy_of(intermediate, Layerwise(rows_per_chunk=rows_per_chunk))
    return transform(
        fn,
        functools.partial(solve, strategy=strategy),
        cost if intermediate is None else output_cost,
        argnums=argnums,
        in_axes=in_axes,
        out_axes=out_axes,
        linear=linear,
        given=given,
    )


@checked
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
    problem: Problem,
    strategy: Strategy,
    bound_output: BoundValue = by_default_relaxations,
    given: NamedBounds | None = None,
) -> list[Solution]:
    """Boxes and linear bounds of a program's outputs.

    Args:
        problem: the program, and the sets of its inputs.
        strategy: bounds the values that nonlinear nodes read.
        bound_output: bounds an output, by the relaxations of the nodes before it.
        given: bounds of inner values by name, see `crown`.
    """
    known = by_ref(problem.graph, given)
    inside = intermediate_boxes(problem, strategy, known=known)
    check_possible(problem.graph, known, inside)
    boxes = {**inside.boxes, **tail_boxes(problem, inside.boxes)}
    relaxed = inside.relaxed()

    def solution(ref: Ref, box: Interval) -> Solution:
        """Linear bounds, intersected with the box; a mask or a number has a box only."""
        if not is_floating(box.lower):
            return only_box(box)
        found = bound_output(relaxed, ref)
        return found._replace(box=_around(relaxed.reference[ref], box, found.box))

    return [solution(ref, boxes[ref]) for ref in problem.graph.targets]


@traced_once()
def _around(value: Array, box: Interval, found: Interval) -> Interval:
    """The intersection of two boxes, widened where it misses a value that is attained.

    Both boxes contain the value, up to rounding. Where rounding pushes a limit past the value, the
    value itself becomes the limit. Neither limit is computed from the other side's, so a caller
    that uses one side pays for one. Where the value is NaN the first box is kept.
    """
    found = vacuous_where_nan(found)
    lower, upper = jnp.maximum(box.lower, found.lower), jnp.minimum(box.upper, found.upper)
    return Interval(where(lower > value, value, lower), where(upper < value, value, upper))


def cost(problem: Problem) -> int:
    """Coefficients of a row an entry, on the widest value."""
    graph = problem.graph
    values = [Ref(i, k) for i in graph.live() for k in range(len(graph.nodes[i].outputs))]
    return max(map(graph.size, values), default=0) * graph.width()
