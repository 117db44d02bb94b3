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
    """Bounds a function by intervals (Gowal et al. 2018): the cheapest and loosest method.

    It costs about two evaluations of `fn`. Where it costs little, a chain of affine functions is
    bounded as one function: the last layer with the margins computed from it, and what lies between
    a norm ball and the first nonlinear function (by the dual norm).

    Args:
        fn: function of pytrees of arrays.
        argnums: the positions of the arguments that `eps` perturbs; default: the last one. With
            several, `eps` may be a tuple of one radius for each.
        in_axes: as for `jax.vmap`, one entry for each argument: which axis indexes independent
            examples. `fn` is then called with batches of one.
        out_axes: the axis of every output that indexes the examples.

    Returns:
        A function that takes fn's arguments and returns `Bounds` shaped like fn's output. Any leaf
        of an argument may be a set (`Box`, `LpBall`). If none is, the function takes one more
        argument, the radius `eps`, in the last position or by keyword (in the last position only if
        fn has an `eps` of its own). Optional and keyword-only arguments of fn are passed by
        keyword; they are known exactly, and shared by all examples:
        `ibp(fn)(x, eps=0.1, train=False)`.

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
