"""Interval bound propagation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from jaxlirpa._domains.interval import IntervalDomain
from jaxlirpa._graph.graph import Graph, Ref
from jaxlirpa._methods.chain import affine, merged, merging_cost
from jaxlirpa._methods.exactness import Origin, Quality, origins
from jaxlirpa._methods.options import checked
from jaxlirpa._methods.solution import Solution, enclose
from jaxlirpa._methods.transform import transform
from jaxlirpa._typing import Bounds, Interval, PyTree, intersect
from jaxlirpa._walk import forward
from jaxlirpa.sets import ArraySet


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
    method = functools.partial(solve, merge_output=not isinstance(fn, Graph))
    return transform(fn, method, merging_cost, argnums=argnums, in_axes=in_axes, out_axes=out_axes)


def solve(graph: Graph, sets: Mapping[Ref, ArraySet], merge_output: bool) -> list[Solution]:
    """Boxes of a graph's outputs.

    Args:
        graph: the program.
        sets: of its inputs.
        merge_output: whether the affine functions that end in an output are bounded as one.
            Worthwhile for the few outputs of a function, not for all of its inner values.
    """
    boxes = {ref: s.hull() for ref, s in sets.items()}
    tighten = from_balls(graph, sets, boxes)
    forward(graph, IntervalDomain(tighten), boxes)
    tight = merged(graph, sets, boxes) if merge_output else {}
    return [Solution(tight.get(ref) or tighten(ref, boxes[ref])) for ref in graph.targets]


def from_balls(
    graph: Graph, sets: Mapping[Ref, ArraySet], boxes: Mapping[Ref, Interval]
) -> Callable[[Ref, Interval], Interval]:
    """What betters interval bounds: those of what is affine in sets that are not all boxes.

    Args:
        graph: the program.
        sets: of its inputs.
        boxes: of the values before the one that is asked for.
    """
    origin = origins(graph, sets)
    domain = functools.cache(functools.partial(affine, graph, sets, boxes))

    def tighten(ref: Ref, box: Interval) -> Interval:
        if not _from_ball(origin[ref], sets):
            return box
        return intersect(box, enclose(graph, sets, domain(), ref).box)

    return tighten


def _from_ball(origin: Origin, sets: Mapping[Ref, ArraySet]) -> bool:
    """Whether a value is an affine function of sets that are not all boxes."""
    return (
        origin.quality is Quality.LOOSE
        and origin.sources <= sets.keys()
        and not all(sets[ref].is_box for ref in origin.sources)
    )
