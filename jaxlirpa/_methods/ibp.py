"""Interval bound propagation."""

from __future__ import annotations

from collections.abc import Callable

from jaxlirpa._methods.affine_tail import fusing_cost, tail_boxes
from jaxlirpa._methods.intermediate_boxes import ByIntervals, intermediate_boxes
from jaxlirpa._methods.options import checked
from jaxlirpa._methods.problem import Problem
from jaxlirpa._methods.solution import Solution
from jaxlirpa._methods.transform import transform
from jaxlirpa._types import Bounds, PyTree


@checked
def ibp(
    fn: Callable[..., PyTree],
    *,
    argnums: int | tuple[int, ...] | None = None,
    in_axes: PyTree = None,
    out_axes: int = 0,
) -> Callable[..., Bounds]:
    """Bounds a function by intervals (Gowal et al. 2018): the cheapest method and the loosest.

    About the cost of two evaluations of `fn`. A chain of affine functions is bounded as one where
    that costs little: the last layer together with what is computed from it (a margin), and what
    is computed from a norm ball (by the dual norm) before the first nonlinear function.

    Args:
        fn: function of pytrees of arrays.
        argnums: the arguments that `eps` perturbs, by number; default: the last one. Of several,
            each may have a radius of its own: `eps` is a tuple of these.
        in_axes: as in `jax.vmap`, one entry an argument: which axis of which argument numbers
            independent examples. `fn` is then called with batches of one.
        out_axes: the axis of every output that numbers the examples.

    Returns:
        A function of fn's arguments, any leaf of which may be a set (`Box`, `LpBall`), to `Bounds`
        shaped like fn's output. Where no argument holds a set it takes one more, the radius `eps`,
        last or by name (last only, where fn has an `eps` of its own). What fn has to be given may
        be named and counts as if it were not. What has a default, or has no position, is known
        exactly where it is named, and there for all examples: `ibp(fn)(x, eps=0.1, train=False)`.

    Raises:
        UnsupportedPrimitiveError, ControlFlowError, EffectError, ArgumentError, SetError: by the
            returned function, where `fn` or its arguments do not allow a sound bound.

    Example:
        >>> import jax.numpy as jnp, jaxlirpa
        >>> fn = lambda w, x: jnp.maximum(w @ x, 0)
        >>> lower, upper = jaxlirpa.ibp(fn)(jnp.array([1.0, -1.0]), jnp.array([3.0, 1.0]), 0.5)
        >>> print(lower, upper)
        1.0 3.0
    """
    return transform(fn, solve, fusing_cost, argnums=argnums, in_axes=in_axes, out_axes=out_axes)


def solve(problem: Problem) -> list[Solution]:
    """Boxes of a program's outputs."""
    targets = problem.graph.targets
    found = intermediate_boxes(problem, ByIntervals(), wanted=targets)
    tight = {**found.tight, **tail_boxes(problem, found.boxes)}
    return [Solution(tight[ref]) for ref in targets]
