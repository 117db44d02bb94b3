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
from jaxlirpa._methods.pooled_values import pooled_values
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

    These are the intermediate (pre-activation) bounds: the boxes on which `crown` relaxes nonlinear
    functions, one for each value that such a function reads. Values that `fn` marks by
    `jax.ad_checkpoint.checkpoint_name(x, name)` are bounded as well, and so are the operand and the
    result of max pooling. Pass the bounds on, as in `crown(fn, intermediate=bounds)`, to save the
    backward passes that found them. They remember the sets they were found for and are used only
    inside them; see `IntermediateBounds`.

    A marked value keeps the name it was given. Any other is named after its scope and primitive, as
    in a profile: `MLP/Dense_0/add`. Scopes are those of `jax.named_scope`; every flax linen module
    is one. A value outside all scopes is named after the line that computes it: `network:12/add`.
    Where several values share a name, the second ends in `:1`, the third in `:2`, and so on, as do
    the iterations of a loop.

    Args:
        fn: function of pytrees of arrays.
        intermediate: how the values are bounded, as for `crown`. The tightest choice, worthwhile
            for bounds that are used often:
            `functools.partial(alpha_crown, optimize_intermediate=True)`.
        rows_per_chunk: as for `crown`. A value with more entries than this is bounded by backward
            passes only where it is unstable; its other entries have interval bounds. Pass a large
            number to bound every entry by a backward pass.
        argnums: the arguments that `eps` perturbs, as for `ibp`; default: the last one.
        in_axes: as for `jax.vmap`: which axis of each argument indexes independent examples. All
            bounds then have the examples along a new first axis, followed by the value's shape in
            a batch of one.

    Returns:
        A function that takes fn's arguments, see `jaxlirpa.ibp`, and returns `IntermediateBounds`:
        a mapping from names to `Bounds` in order of computation, marked values last. (JAX's
        transformations, and `in_axes`, sort it by name.) Values inside a loop that is not unrolled
        are left out.

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
        marked = tuple(dict.fromkeys(problem.graph.names.marked.values()))
        problem = problem.returning(dict.fromkeys((*problem.graph.targets, *marked)))
        graph = problem.graph
        if in_axes is None and intermediate is None:
            warn_if_expensive(problem, cost(problem))
        boxes = by_ref(graph, own[0])
        wanted = dict.fromkeys((*marked, *sorted(pooled_values(graph).ends)))
        inside = intermediate_boxes(problem, strategy, known=boxes, wanted=wanted)
        check_possible(graph, boxes, inside)
        return remembered(by_name(graph, inside), call)

    return call_of(fn, joint, argnums=argnums, in_axes=in_axes, out_axes=None, given=known)
