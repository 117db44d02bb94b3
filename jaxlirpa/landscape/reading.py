"""Which weights a function reads: a landscape in a direction that it does not is no result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from jaxlirpa._errors import ArgumentError
from jaxlirpa._methods.arguments import arguments
from jaxlirpa._methods.problem import problem_of
from jaxlirpa._types import PyTree
from jaxlirpa.sets import LpBall
from jaxlirpa.sets.base import is_set


def require_read(fn: Callable[..., PyTree], *args: Any) -> None:
    """Raises an ArgumentError unless `fn` depends on every leaf that is in a set.

    Args:
        fn: function of pytrees.
        args: its arguments, some leaves of which are sets.
    """
    call = arguments(fn, args, None)
    supply, names = iter(call.sets), []
    paths, _ = jax.tree_util.tree_flatten_with_path(args, is_leaf=is_set)
    leaves = list(call.leaves)
    for position, structure in call.slots:
        points = [next(supply).point() for _ in range(structure.num_leaves)]
        center = structure.unflatten(points)
        leaves[position] = LpBall(center, 0.0)
        outer = jax.tree_util.keystr(paths[position][0])
        inner = (path for path, _ in jax.tree_util.tree_leaves_with_path(center))
        names += [outer + jax.tree_util.keystr(path) for path in inner]
    apart = arguments(fn, jax.tree.unflatten(call.structure, leaves), None)
    graph = problem_of(fn, apart)[0].graph
    live = {*graph.live()}
    unread = [n for n, ref in zip(names, graph.inputs, strict=True) if ref.node not in live]
    if unread:
        name = getattr(fn, "__name__", "the function")
        raise ArgumentError(
            f"{name} does not read arguments{', arguments'.join(unread)}, which is in a set: "
            "nothing would be said about it. Take it out of the neighbourhood, or out of the "
            "parameters."
        )
