"""Bounds of inner values by name: what a user hands in, and what is handed back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import jax.numpy as jnp

from jaxlirpa._arrays import is_floating, where
from jaxlirpa._errors import ArgumentError
from jaxlirpa._graph.graph import INPUT, Graph, Ref
from jaxlirpa._graph.jaxpr import is_traced
from jaxlirpa._intervals import Interval, intersect, vacuous_where_nan
from jaxlirpa._methods.ibp import ibp
from jaxlirpa._methods.intermediate_boxes import (
    ByIntervals,
    ByTransform,
    Intermediate,
    Strategy,
    Transform,
)
from jaxlirpa._methods.pooled_values import pooled_values, with_slices
from jaxlirpa._methods.relaxed_graph import nonlinear
from jaxlirpa._types import Bounds, Shaped

NamedBounds: TypeAlias = Mapping[str, Any]
"""Pairs of a lower and an upper limit, by the names of values."""

_FEW = 8
# How far two enclosures of one value may miss each other, relative to its size.
_ROUNDING = 1e-3


def strategy_of(
    intermediate: Transform | NamedBounds | None, layerwise: Strategy
) -> tuple[Strategy, NamedBounds | None]:
    """The strategy and the given bounds that an `intermediate` argument stands for.

    Args:
        intermediate: the argument.
        layerwise: what bounds values where nothing else does.

    Raises:
        ArgumentError: where it is none of what it may be.
    """
    if intermediate is None:
        return layerwise, None
    if isinstance(intermediate, Mapping):
        return layerwise, intermediate
    if callable(intermediate):
        # The walk goes by intervals anyway: theirs need no other one.
        return ByIntervals() if intermediate == ibp else ByTransform(intermediate), None
    raise ArgumentError(
        "intermediate must be a transform (jaxlirpa.ibp), the bounds that "
        f"jaxlirpa.intermediate_bounds returned, or None, and not {intermediate!r}."
    )


def by_ref(graph: Graph, given: NamedBounds | None) -> dict[Ref, Interval]:
    """The given boxes of a graph's values.

    Names of values that the graph does not have are passed over: the bounds may be those of a
    function that computes more, a loss say.

    Raises:
        ArgumentError: where the graph has none of the names, or a box is not one of its value.
    """
    boxes: dict[Ref, Interval] = {}
    if given is None:
        return boxes
    for name, limits in given.items():
        ref = graph.names.find(name)
        if ref is not None:
            box = _box(name, limits, graph.aval(ref))
            boxes[ref] = intersect(boxes[ref], box) if ref in boxes else box
    if given and not boxes:
        raise ArgumentError(
            f"the bounds given as intermediate are those of {_listed(given)}, but the function "
            f"has no values of these names. It reads {_listed(_read(graph))}. {_ADVICE}"
        )
    floating = {ref: box for ref, box in boxes.items() if is_floating(graph.aval(ref))}
    return with_slices(graph, floating)


_ADVICE = "jaxlirpa.intermediate_bounds(fn)(...) returns bounds that fit, by name."


def _box(name: str, limits: Any, aval: Shaped) -> Interval:
    """Limits as a box that promises nothing where they contradict each other."""
    kind = jnp.dtype(aval.dtype).name
    if not isinstance(limits, tuple | list) or len(limits) != 2:
        raise ArgumentError(
            f"intermediate[{name!r}] must be a pair of limits, a lower and an upper one, of shape "
            f"{aval.shape} and type {kind}, and not {type(limits).__name__}. {_ADVICE}"
        )
    lower, upper = (jnp.asarray(limit) for limit in limits)
    for limit in (lower, upper):
        if (limit.shape, limit.dtype) != (aval.shape, aval.dtype):
            raise ArgumentError(
                f"intermediate[{name!r}] has limits of shape {limit.shape} and type {limit.dtype}, "
                f"but the value of that name has shape {aval.shape} and type {kind}. {_ADVICE} "
                "(With in_axes, one more axis, in front, numbers the examples.)"
            )
    if not is_floating(aval):
        return Interval(lower, upper)
    box = vacuous_where_nan(Interval(lower, upper))
    ordered = box.lower <= box.upper
    return Interval(where(ordered, box.lower, -jnp.inf), where(ordered, box.upper, jnp.inf))


def check_possible(graph: Graph, given: Mapping[Ref, Interval], inside: Intermediate) -> None:
    """Refuses given boxes that intervals prove wrong; not inside `jax.jit`, where none can be.

    Raises:
        ArgumentError: where a given box and that by intervals are further apart than by rounding.
    """
    for ref in sorted(given.keys() & inside.tight.keys()):
        box, known = given[ref], inside.boxes[ref]
        gap = jnp.maximum(box.lower - known.upper, known.lower - box.upper)
        size = jnp.maximum(jnp.abs(known.lower), jnp.abs(known.upper))
        wrong = gap > _ROUNDING * (1 + size)
        if not is_traced(wrong) and bool(jnp.any(wrong)):
            raise ArgumentError(
                f"the bounds given as intermediate[{_called(graph)[ref]!r}] cannot hold: interval "
                f"bounds miss them by {float(jnp.max(gap)):.3g}. They must be those of the same "
                "computation, with the same weights, on a set that contains the present one."
            )


def by_name(graph: Graph, inside: Intermediate) -> dict[str, Bounds]:
    """What is known inside a graph, by name and in order of computation; marked values last.

    Of max pooling, that is what it pools and what it returns, and not the slices in between.
    """
    names, slices = graph.names.first(), pooled_values(graph).slices
    bounded = sorted(ref for ref in inside.tight if graph.nodes[ref.node].primitive != INPUT)
    real = [ref for ref in bounded if ref not in slices and is_floating(graph.aval(ref))]
    found = {names[ref]: ref for ref in real if ref in names}
    found.update(graph.names.marked)
    boxes = {name: vacuous_where_nan(inside.tight[ref]) for name, ref in found.items()}
    return {name: Bounds(*box) for name, box in boxes.items()}


def _called(graph: Graph) -> dict[Ref, str]:
    """A name for every value that has one."""
    return {**graph.names.first(), **{ref: name for name, ref in graph.names.marked.items()}}


def _read(graph: Graph) -> list[str]:
    """The names of what nonlinear functions read."""
    names, pooled = _called(graph), pooled_values(graph)
    nodes = (graph.nodes[index] for index in nonlinear(graph))
    refs = {ref for node in nodes for ref in node.perturbed} | pooled.ends
    return [names[ref] for ref in sorted(refs - pooled.slices) if ref in names]


def _listed(names: Any) -> str:
    few = ", ".join(f"{name!r}" for name in [*names][:_FEW])
    return f"{few}, ..." if len(names) > _FEW else few or "none"
