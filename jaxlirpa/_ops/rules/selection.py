"""Choices between values where the choice itself is perturbed."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax

from jaxlirpa._graph.graph import Node, Ref, Value, is_same
from jaxlirpa._graph.source import Source
from jaxlirpa._graph.trace import Builder, Rule
from jaxlirpa._intervals import Interval
from jaxlirpa._ops.families import operand_boxes
from jaxlirpa._ops.rules.dataflow import entry, scalar, sole, within
from jaxlirpa._relax.wraparound import is_integer
from jaxlirpa._types import Array

_RISING = {"gt": True, "ge": True, "lt": False, "le": False}


def _choice(build: Builder, node: Node) -> Sequence[Value] | None:
    """`select_n` by a perturbed predicate; one between a value and another that guards it."""
    predicate, *cases = node.operands
    if not isinstance(predicate, Ref):
        return None
    if all(is_same(case, cases[0]) for case in cases):
        return [cases[0]]
    tests = _first_that_holds(build, predicate, len(cases), node.source)
    if tests is not None:
        return [_in_turn(build, tests, cases[0], cases, node.source)]
    (aval,) = node.outputs
    if build.aval(predicate).shape != aval.shape:
        (predicate,) = build.apply(
            lambda p: jnp.broadcast_to(p, aval.shape), node.source, predicate
        )
    operands = (predicate, *cases)
    floating = jnp.issubdtype(aval.dtype, jnp.floating)
    if not floating:
        name = "choose_among"
        return build.append(name, operands, {}, node.bind, node.outputs, node.source)
    if build.aval(predicate).dtype != bool:
        last = len(cases) - 1
        tests = _up_to(build, predicate, last, node.source)
        return [_in_turn(build, tests, cases[last], cases, node.source)]
    (value,) = build.append("choose", operands, {}, node.bind, node.outputs, node.source)
    guard = _guard(build, operands)
    if guard is None:
        return [value]
    others = [x for x in operands if isinstance(x, Ref)]

    def image(boxes: Sequence[Interval]) -> Interval:
        return _guarded(operand_boxes(operands, boxes), *guard)

    return within(build, value, others, image, node.source)


def _up_to(build: Builder, number: Value, last: int, source: Source) -> list[tuple[int, Value]]:
    """Whether a number is at most 0, at most 1 and so on."""

    def tests(number: Array) -> list[Array]:
        return [number <= i for i in range(last)]

    return list(enumerate(build.apply(tests, source, number)))


def _first_that_holds(
    build: Builder, selector: Ref, count: int, source: Source
) -> list[tuple[int, Value]] | None:
    """The tests in their order, where a selector is the place of the first one that holds, or 0.

    `jnp.select` takes that place by `argmax` of truth values. `jnp.piecewise` takes the place of
    the last one, by `argmax` of how many of them hold so far.
    """
    node = build.definition(selector)
    while node is not None and _keeps(build, node, count):
        node = build.definition(node.perturbed[0])
    if node is None or node.primitive != "argmax":
        return None
    (tests,), (axis,) = node.perturbed, node.params["axes"]
    order = range(count)
    counted = build.definition(tests)
    if counted is not None and counted.primitive == "cumsum":
        if counted.params["axis"] != axis or counted.params["reverse"]:
            return None
        truths = sole(build.definition(counted.perturbed[0]), "truncate")
        if truths is None or jnp.iinfo(counted.outputs[0].dtype).max < count:
            return None
        tests, order = truths, order[::-1]
    aval = build.aval(tests)
    if aval.dtype != bool or aval.shape[axis] != count:
        return None
    return [(i, entry(build, tests, axis, i, source)) for i in order]


def _keeps(build: Builder, node: Node, count: int) -> bool:
    """Whether a node leaves all places of so many as they are."""
    if node.primitive == "clamp" and node.positions == (1,):
        low, high = map(scalar, node.known)
        return low is not None and high is not None and low <= 0 and high >= count - 1
    integers = node.primitive == "truncate" and is_integer(build.aval(node.perturbed[0]))
    return integers and jnp.iinfo(node.outputs[0].dtype).max >= count - 1


def _in_turn(
    build: Builder,
    tests: Sequence[tuple[int, Value]],
    otherwise: Value,
    cases: Sequence[Value],
    source: Source,
) -> Value:
    """The case of the first test that holds: one choice a test, each with bounds of its own."""
    result = otherwise
    for number, test in reversed(tests):
        if scalar(test) != 0:
            (result,) = build.apply(lax.select_n, source, test, result, cases[number])
    return result


def _guard(build: Builder, operands: Sequence[Value]) -> tuple[int, bool, Array] | None:
    """Which case (1 or 2) is `x` in a choice by `x > c` or the like, and from which side.

    Returns:
        The position of `x`, whether it is chosen where it is large, and `c`.
    """
    predicate, *cases = operands
    test = build.definition(predicate)
    if test is None or test.primitive not in _RISING or len(test.perturbed) != 1:
        return None
    (x,), (limit,) = test.perturbed, test.known
    large = _RISING[test.primitive] ^ (test.positions == (1,))
    if not isinstance(x, Ref) or x not in [c for c in cases if isinstance(c, Ref)]:
        return None
    position = 2 if x == cases[1] else 1
    return position, large == (position == 2), limit


def _guarded(boxes: Sequence[Interval], position: int, large: bool, limit: Array) -> Interval:
    """The hull of what may be chosen, one case of which is chosen on one side of the limit only."""
    holds, a, b = boxes
    chosen, other = (b, a) if position == 2 else (a, b)
    may_chosen, may_other = holds.upper, ~holds.lower
    if position == 1:
        may_chosen, may_other = may_other, may_chosen
    if large:
        chosen = Interval(jnp.maximum(chosen.lower, limit), chosen.upper)
    else:
        chosen = Interval(chosen.lower, jnp.minimum(chosen.upper, limit))
    may_chosen = may_chosen & (chosen.lower <= chosen.upper)
    lower = jnp.minimum(
        jnp.where(may_chosen, chosen.lower, jnp.inf), jnp.where(may_other, other.lower, jnp.inf)
    )
    upper = jnp.maximum(
        jnp.where(may_chosen, chosen.upper, -jnp.inf), jnp.where(may_other, other.upper, -jnp.inf)
    )
    nothing = ~(may_chosen | may_other)
    return Interval(jnp.where(nothing, -jnp.inf, lower), jnp.where(nothing, jnp.inf, upper))


RULES: dict[str, tuple[Rule, ...]] = {"select_n": (_choice,)}
