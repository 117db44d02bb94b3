"""Choices between values where the choice itself is perturbed."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp

from jaxlirpa._graph.graph import Node, Ref, Value, is_same
from jaxlirpa._graph.trace import Builder, Rule
from jaxlirpa._ops.families import operand_boxes
from jaxlirpa._ops.rules.dataflow import within
from jaxlirpa._typing import Array, Interval

_RISING = {"gt": True, "ge": True, "lt": False, "le": False}


def _choice(build: Builder, node: Node) -> Sequence[Value] | None:
    """`select_n` by a perturbed predicate; one between a value and another that guards it."""
    predicate, *cases = node.operands
    if not isinstance(predicate, Ref):
        return None
    (aval,) = node.outputs
    if build.aval(predicate).shape != aval.shape:
        (predicate,) = build.apply(
            lambda p: jnp.broadcast_to(p, aval.shape), node.source, predicate
        )
    operands = (predicate, *cases)
    floating = jnp.issubdtype(aval.dtype, jnp.floating)
    if build.aval(predicate).dtype != bool or not floating:
        name = "choose_among"
        return build.append(name, operands, {}, node.bind, node.outputs, node.source)
    if all(is_same(case, cases[0]) for case in cases):
        return [cases[0]]
    (value,) = build.append("choose", operands, {}, node.bind, node.outputs, node.source)
    guard = _guard(build, operands)
    if guard is None:
        return [value]
    others = [x for x in operands if isinstance(x, Ref)]

    def image(boxes: Sequence[Interval]) -> Interval:
        return _guarded(operand_boxes(operands, boxes), *guard)

    return within(build, value, others, image, node.source)


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
