"""The bounds inside a network, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxlirpa._errors import ArgumentError
from jaxlirpa._methods.arguments import Arguments
from jaxlirpa._methods.crown import cost
from jaxlirpa._methods.intermediate_boxes import Transform, intermediate_boxes
from jaxlirpa._methods.layerwise import Layerwise
from jaxlirpa._methods.named_bounds import NamedBounds, by_name, by_ref, check_possible, strategy_of
from jaxlirpa._methods.options import checked, whole_number
from jaxlirpa._methods.problem import TracedFunction, problem_of
from jaxlirpa._methods.saved import IntermediateBounds, remembered
from jaxlirpa._methods.transform import call_of, warn_if_expensive
from jaxlirpa._types import PyTree


@checked
def intermediate_bounds(
    fn: Callable[..., PyTree],
    *,
    intermediate: Transform | NamedBounds | None = None,
    rows_per_chunk: int | None = None,
    argnums: int | tuple[int, ...] | None = None,
    in_axes: PyTree = None,
) -> Callable[..., IntermediateBounds]:
    """Bounds the values inside a function, by name.

    These are the values that nonlinear functions read, with the bounds on which `crown` relaxes
    those functions, and the values that `fn` marks by `jax.ad_checkpoint.checkpoint_name(x, name)`.
    Handed back, as `crown(fn, intermediate=bounds)`, they spare the backward passes in which they
    were found. They know for which sets they were, and are used inside of these only; see
    `IntermediateBounds`.

    A marked value has the name that it was given. Any other is called after the scope that
    computes it and its primitive, as in a profile: `MLP/Dense_0/add`. Scopes are those of
    `jax.named_scope`, and flax's linen modules are such. Outside of any scope the user's line
    stands in its place, as in `network:12/add`. Of values with the same name, the second to be
    computed ends in `:1`, and so on; so do the trips of a loop.

    Args:
        fn: function of pytrees of arrays.
        intermediate: as of `crown`: how the values are bounded. The tightest, to be found once and
            used often: `functools.partial(alpha_crown, optimize_intermediate=True)`.
        rows_per_chunk: as of `crown`. With less than a value has entries, only those are bounded
            by backward passes that matter to the functions that read it, if there are such; the
            others have interval bounds. A large number bounds all.
        argnums: the arguments that `eps` perturbs, as of `ibp`; default: the last one.
        in_axes: as in `jax.vmap`: which axis of which argument numbers independent examples. All
            bounds have one more axis then, in front, that numbers the examples; what follows is
            the value's shape in a batch of one.

    Returns:
        A function of fn's arguments, see `jaxlirpa.ibp`, to `IntermediateBounds`: a mapping of
        names to `Bounds`, in order of computation and marked values last (JAX's transformations
        sort it, so does `in_axes`). What is inside of a loop that is not unrolled is not there.

    Raises:
        As `jaxlirpa.ibp`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxlirpa
        >>> def fn(w, x):
        ...     with jax.named_scope("first"):
        ...         x = jax.nn.relu(w @ x)
        ...     with jax.named_scope("second"):
        ...         return jax.nn.relu(w @ x)
        >>> w, x = jnp.array([[1.0, -1.0], [1.0, 1.0]]), jnp.array([1.0, 0.0])
        >>> bounds = jaxlirpa.intermediate_bounds(fn)(w, x, 0.25)
        >>> for name, (lower, upper) in bounds.items():
        ...     print(name, lower, upper)
        first/dot_general [0.5 0.5] [1.5 1.5]
        second/dot_general [-0.5  1.5] [0.5 2.5]
        >>> margin = lambda w, x: fn(w, x) @ jnp.array([1.0, -1.0])
        >>> print(*jaxlirpa.crown(margin, intermediate=bounds)(w, x, 0.25))
        -2.5 -1.0
    """
    if isinstance(fn, TracedFunction):
        raise ArgumentError(
            "intermediate_bounds is no strategy to bound intermediate values by. Hand in the "
            "bounds that it returns: intermediate=jaxlirpa.intermediate_bounds(fn)(*args)."
        )
    whole_number("rows_per_chunk", rows_per_chunk, 1)
    strategy, known = strategy_of(intermediate, Layerwise(rows_per_chunk=rows_per_chunk))

    def joint(call: Arguments, own: tuple[NamedBounds | None, Any]) -> IntermediateBounds:
        problem, _ = problem_of(fn, call)
        graph = problem.graph
        marked = tuple(dict.fromkeys(graph.names.marked.values()))
        problem = problem.returning(dict.fromkeys((*graph.targets, *marked)))
        if in_axes is None and intermediate is None:
            warn_if_expensive(problem, cost(problem))
        boxes = by_ref(graph, own[0])
        inside = intermediate_boxes(problem, strategy, known=boxes, wanted=marked)
        check_possible(graph, boxes, inside)
        return remembered(by_name(graph, inside), call)

    return call_of(fn, joint, argnums=argnums, in_axes=in_axes, out_axes=None, given=known)
