"""The boxes of the values inside a program, on which its nonlinear nodes are relaxed.

A walk of intervals goes through the program. Wherever it comes to a value that a nonlinear node
reads, a strategy may better the interval: by a backward pass through what lies before (`Layerwise`,
as CROWN does), by what is affine in norm balls (`ByIntervals`, as IBP does), or by the results of
another transform (`ByTransform`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol, TypeAlias

from jaxlirpa._arrays import is_floating
from jaxlirpa._domains.interval import IntervalDomain
from jaxlirpa._graph.graph import INPUT, Graph, Ref
from jaxlirpa._intervals import Interval, intersect, vacuous_where_nan
from jaxlirpa._methods.affine_tail import affine
from jaxlirpa._methods.exactness import Origin, Quality
from jaxlirpa._methods.problem import Problem, TracedFunction
from jaxlirpa._methods.relaxed_graph import RelaxedGraph, nonlinear
from jaxlirpa._methods.solution import enclose
from jaxlirpa._ops.families import Nonlinear
from jaxlirpa._ops.registry import record
from jaxlirpa._types import Array
from jaxlirpa.sets import ArraySet

Transform: TypeAlias = Callable[..., Callable[..., Any]]


class Tighten(Protocol):
    """Betters intervals during the walk.

    Attributes:
        relaxes: whether it needs the relaxations of what lies before a value.
        besides: values that are to be bettered besides those that nonlinear nodes read.
    """

    @property
    def relaxes(self) -> bool: ...

    @property
    def besides(self) -> frozenset[Ref]: ...

    def __call__(self, before: RelaxedGraph, ref: Ref, box: Interval) -> Interval | None:
        """Another box of a value; None where the interval cannot be bettered.

        Args:
            before: what is known of the values before it.
            ref: the value.
            box: its interval.
        """


Strategy: TypeAlias = Callable[[Problem, Collection[Ref]], Tighten]
"""From a program, and values that are to be bettered besides, to what betters intervals."""


@dataclasses.dataclass(frozen=True, eq=False)
class Intermediate:
    """What is known inside a program.

    Attributes:
        problem: the program, and the sets of its inputs.
        boxes: of all live values, by intervals from the others.
        tight: of the values that nonlinear nodes read, and of what else was asked for.
        walked: the relaxations that the strategy has needed already, if any.
    """

    problem: Problem
    boxes: Mapping[Ref, Interval]
    tight: Mapping[Ref, Interval]
    walked: RelaxedGraph | None

    def relaxed(self, reference: Mapping[Ref, Array] | None = None) -> RelaxedGraph:
        """The program with its nonlinear nodes relaxed on the boxes.

        Args:
            reference: the values around which functionals are written; default: those at a point.
        """
        before = self.walked
        if before is None:
            before = RelaxedGraph(self.problem, reference or at_a_point(self.problem))
        elif reference is not None:
            before = dataclasses.replace(before, reference=reference)
        return before.bounded({**self.boxes, **self.tight})


def at_a_point(problem: Problem) -> dict[Ref, Array]:
    """The value of every node at a point of the sets."""
    return problem.graph.evaluate([s.point() for s in problem.sets.values()])


def intermediate_boxes(
    problem: Problem,
    strategy: Strategy,
    *,
    known: Mapping[Ref, Interval] | None = None,
    wanted: Collection[Ref] = (),
) -> Intermediate:
    """Boxes of the values inside a program.

    Args:
        problem: the program, and the sets of its inputs.
        strategy: betters the intervals of what nonlinear nodes read.
        known: boxes that are taken at their word instead.
        wanted: live values that are bettered as well.
    """
    graph, known = problem.graph, known or {}
    tighten = strategy(problem, wanted)
    asked = {*_read(graph, known), *wanted, *tighten.besides}
    boxes: dict[Ref, Interval] = {ref: s.hull() for ref, s in problem.sets.items()}
    tight: dict[Ref, Interval] = {}
    before = RelaxedGraph(problem, at_a_point(problem) if tighten.relaxes else {})
    for index in graph.live():
        node = graph.nodes[index]
        if node.primitive != INPUT:
            best = tight if isinstance(record(node), Nonlinear) else {}
            operands = tuple(best.get(ref, boxes[ref]) for ref in node.perturbed)
            images = IntervalDomain().step(index, node, operands)
            boxes.update({Ref(index, k): box for k, box in enumerate(images)})
        for ref in (Ref(index, k) for k in range(len(node.outputs))):
            if ref not in asked:
                continue
            box = tight[ref] = boxes[ref]
            if not is_floating(graph.aval(ref)):
                continue
            if ref in known:
                found: Interval | None = known[ref]
            else:
                so_far = {**boxes, **tight}
                before = (
                    before.bounded(so_far, until=index)
                    if tighten.relaxes
                    else dataclasses.replace(before, boxes=so_far)
                )
                found = tighten(before, ref, box)
            if found is not None:
                tight[ref] = intersect(box, vacuous_where_nan(found))
    return Intermediate(problem, boxes, tight, before if tighten.relaxes else None)


def _read(graph: Graph, known: Mapping[Ref, Interval]) -> set[Ref]:
    """What nonlinear nodes read; what may lie within another box only if that is known."""
    refs = {ref for index in nonlinear(graph) for ref in graph.nodes[index].perturbed}
    read = {ref for index in graph.live() for ref in graph.nodes[index].perturbed}
    return refs | (read & known.keys())


# ---- strategies ----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ByIntervals:
    """The strategy of IBP: intervals, and those of what is affine in sets that are no boxes."""

    def __call__(self, problem: Problem, wanted: Collection[Ref]) -> Tighten:
        """What betters intervals."""
        del wanted
        return _FromBalls(problem)


@dataclasses.dataclass(frozen=True, eq=False)
class _FromBalls:
    problem: Problem
    relaxes = False
    besides: frozenset[Ref] = frozenset()

    def __call__(self, before: RelaxedGraph, ref: Ref, box: Interval) -> Interval | None:
        if not _from_ball(self.problem.origins[ref], self.problem.sets):
            return None
        return enclose(self.problem, affine(self.problem, before.boxes, self.points), ref).box

    @functools.cached_property
    def points(self) -> dict[Ref, Array]:
        return at_a_point(self.problem)


def _from_ball(origin: Origin, sets: Mapping[Ref, ArraySet]) -> bool:
    """Whether a value is an affine function of sets that are not all boxes."""
    return (
        origin.quality is Quality.LOOSE
        and origin.sources <= sets.keys()
        and not all(sets[ref].is_box for ref in origin.sources)
    )


@dataclasses.dataclass(frozen=True)
class ByTransform:
    """Bounds what nonlinear nodes read by a transform, all of it at once.

    Attributes:
        transform: such as `jaxlirpa.forward_crown`, or the user's own.
    """

    transform: Transform

    def __call__(self, problem: Problem, wanted: Collection[Ref]) -> Tighten:
        """What betters intervals."""
        graph = problem.graph
        nodes = (graph.nodes[i] for i in nonlinear(graph))
        operands = dict.fromkeys([*(r for node in nodes for r in node.perturbed), *wanted])
        floating = tuple(ref for ref in operands if is_floating(graph.aval(ref)))
        fn = TracedFunction(graph.returning(floating))
        lower, upper = self.transform(fn)(*problem.sets.values())
        return _Found(dict(zip(floating, map(Interval, lower, upper), strict=True)))


@dataclasses.dataclass(frozen=True, eq=False)
class _Found:
    boxes: Mapping[Ref, Interval]
    relaxes = False
    besides: frozenset[Ref] = frozenset()

    def __call__(self, before: RelaxedGraph, ref: Ref, box: Interval) -> Interval:
        return self.boxes[ref]
