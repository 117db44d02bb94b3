"""CROWN: linear functionals carried backwards from the output to the inputs."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax.numpy as jnp

from jaxlirpa._arrays import is_floating, traced_once
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

    Every output is bounded by a linear functional that is carried backwards to the inputs, through
    each nonlinear function by the lines around it on the box of its operand. The result is
    intersected with interval bounds, so it is never looser than `ibp`. Where the boxes of the
    operands come from is the strategy, `intermediate`:

    * None: a backward pass for each, layer by layer: CROWN itself, the tightest and the most
      expensive. Values of more entries than `rows_per_chunk` have rows only for those whose
      functions are not straight on the interval (for relu: whose sign is open), a large number
      makes a row for every entry.
    * `ibp`: intervals, the cheapest; the result is CROWN-IBP. `forward_crown`: forward bounds.
      Any other transform, with options by `functools.partial`.
    * A mapping of names to pairs of limits: values in it are not bounded anew, the others are as
      by None. `intermediate_bounds` returns one, which limits of your own can join:
      `intermediate_bounds(fn, intermediate=ibp)(x, eps) | {"mine": (lower, upper)}`.

    A dictionary is taken at its word (and intersected with intervals): the result is sound only
    if each pair holds for all values that its name has in this call. What an earlier call of
    `intermediate_bounds` returned is used only where the sets are inside those of that call, and
    the known arguments the same, see `IntermediateBounds`. It is left to you that the same is
    computed under a name; as it is if both functions call one network and compute nothing in the
    scopes, or the lines, that are the network's. So one call of `intermediate_bounds` serves all
    specifications, and all smaller radii. Limits may be traced by `jax.jit`, mapped and
    differentiated.

    Args:
        fn: function of pytrees of arrays.
        intermediate: how the operands of nonlinear functions are bounded, see above. Names that
            `fn` does not have are passed over, unless it has none of them.
        rows_per_chunk: how many inner values are bounded at once, by a backward pass with as many
            rows: fewer take less memory. Default: a part of all, and what fits into some hundred
            megabytes.
        argnums: the arguments that `eps` perturbs, as of `ibp`; default: the last one.
        in_axes: as in `jax.vmap`: which axis of which argument numbers independent examples. The
            first axis of all limits in `intermediate` then does.
        out_axes: the axis of every output that numbers the examples.
        linear: return `LinearBounds`, the functionals themselves, instead of `Bounds`.

    Returns:
        A function of fn's arguments, see `jaxlirpa.ibp`.

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
    """A box inside two others that hold an attained value.

    Rounding may let the two miss each other, or that value, which is then the limit. So no limit
    depends on the other side: who only uses one pays for one. Where the value cannot be computed,
    neither is what was found around it.
    """
    found = vacuous_where_nan(found)
    lower, upper = jnp.maximum(box.lower, found.lower), jnp.minimum(box.upper, found.upper)
    return Interval(jnp.where(lower > value, value, lower), jnp.where(upper < value, value, upper))


def cost(problem: Problem) -> int:
    """Coefficients of a row an entry, on the widest value."""
    graph = problem.graph
    values = [Ref(i, k) for i in graph.live() for k in range(len(graph.nodes[i].outputs))]
    return max(map(graph.size, values), default=0) * graph.width()
