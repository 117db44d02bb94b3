"""What is computed from a norm ball, bounded by the dual norm.

Intervals forget that the entries of a member of a ball cannot all be far out at once. A rule sees
the ball behind an input, and knows better of two kinds of values:

* inner products of a member with known numbers `a`, as behind a first layer of perturbed weights.
  By Hölder's inequality, which is attained, they get as far from their value at the centre as the
  norm of `a r` that is dual to the ball's, and no further. What reads two parts of one ball (a
  kernel and a bias) gets as far as the same norm of the two distances.
* inner products with values `x` that are perturbed themselves. With the centre `c` of the ball,
  `w . x` is `c . x`, which is affine, and `(w - c) . x`, see `jaxlirpa._relax.ball_product`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp

from jaxlirpa._arrays import dual, norm
from jaxlirpa._graph.graph import INPUT, Node, Ref, Value
from jaxlirpa._graph.trace import Builder, Rule
from jaxlirpa._intervals import Interval
from jaxlirpa._ops.families import is_exact
from jaxlirpa._ops.rules.dataflow import PLACING, within
from jaxlirpa._ops.rules.matrices import Arrange, Patches, inner_products, matrices
from jaxlirpa._relax.ball_product import Inner
from jaxlirpa._types import Array
from jaxlirpa.sets import ArraySet, LpBall


def is_one_ball(s: ArraySet) -> bool:
    """Whether a set is one norm ball over all of its entries, of which these rules know."""
    return isinstance(s, LpBall) and not s.is_box and s.axis is None


class Member(NamedTuple):
    """A value whose entries are entries of a member of a ball.

    Attributes:
        root: the input that the ball is of.
        part: the entries of it, flattened, that the value may read.
        center: of the value's shape.
        radius: the same, or one number.
        ord: of the ball's norm.
        once: whether the value reads each of them once at most.
    """

    root: Ref
    part: range
    center: Array
    radius: Array
    ord: float
    once: bool


class Reach(NamedTuple):
    """How far an affine function of a ball gets, entry by entry, from its value at the centre.

    Attributes:
        root: the input that the ball is of.
        parts: the entries of it that the function may read.
        center: the value at the centre.
        spread: the distance, of the value's shape or a number.
        ord: of the ball's norm.
    """

    root: Ref
    parts: tuple[range, ...]
    center: Array
    spread: Array
    ord: float


def member(build: Builder, value: Value) -> Member | None:
    """What is placed, repeated or cut out of a member of a ball."""
    steps: list[tuple[Node, int]] = []
    while isinstance(value, Ref):
        node = build.nodes[value.node]
        if node.primitive not in PLACING | {"split", "slice"}:
            break
        steps.append((node, value.output))
        (value,) = node.perturbed
    if not isinstance(value, Ref) or node.primitive != INPUT or "ball" not in node.params:
        return None
    ball = node.params["ball"]
    center, radius = ball.center, ball.radius
    part, once, vector = range(center.size), True, center.ndim == 1
    for step, output in reversed(steps):
        vector = vector and step.primitive == "split"
        if vector:  # the parts of a vector are told apart, those of an array are not
            start = part.start + sum(step.params["sizes"][:output])
            part = range(start, start + step.params["sizes"][output])
        size, center = center.size, step(center)[output]
        radius = step(radius)[output] if radius.ndim else radius
        once = once and center.size <= size
    return Member(value, part, center, radius, ball.ord, once)


def _reach(build: Builder, value: Value) -> Reach | None:
    """Of a value that a rule below has bounded, or that is placed from a member of a ball."""
    node = build.definition(value)
    if node is not None and is_exact(node):
        return node.params["exact"]
    found = member(build, value)
    return found and Reach(found.root, (found.part,), found.center, found.radius, found.ord)


def _affine(build: Builder, node: Node, reach: Reach) -> Sequence[Value]:
    """An affine node, and how far it gets."""

    def image(boxes: Sequence[Interval]) -> Interval:
        del boxes
        return Interval(reach.center - reach.spread, reach.center + reach.spread)

    (value,) = build.kept(node)
    return within(build, value, (), image, node.source, exact=reach)


def _bounded(build: Builder, node: Node, ball: Member, spread: Array) -> Sequence[Value]:
    """A linear function of a ball alone, and how far it gets."""
    (center,) = node(ball.center)
    return _affine(build, node, Reach(ball.root, (ball.part,), center, spread, ball.ord))


def _sum(build: Builder, node: Node) -> Sequence[Value] | None:
    """A sum or difference of what reads two parts of one ball."""
    if len(node.perturbed) < 2:
        return None
    a, b = (_reach(build, x) for x in node.operands)
    if a is None or b is None or a.root != b.root:
        return None
    if any(p.start < q.stop and q.start < p.stop for p in a.parts for q in b.parts):
        return None
    (center,) = node(a.center, b.center)
    spreads = jnp.broadcast_arrays(a.spread, b.spread)
    spread = norm(jnp.stack(spreads, -1), dual(a.ord))
    return _affine(build, node, Reach(a.root, a.parts + b.parts, center, spread, a.ord))


def _dot(build: Builder, node: Node) -> Sequence[Value] | None:
    """A matrix product with a member of a ball."""
    (aval,), (rows, columns) = node.outputs, matrices(node)
    left, right = node.operands
    for one, other, of_one, of_other in (
        (left, right, rows, columns),
        (right, left, columns, rows),
    ):
        ball = member(build, one)
        if ball is None or not ball.once:
            continue
        radius = _arranged(ball.radius, of_one)
        if isinstance(other, Ref):
            return _around(build, node, (one, of_one, ball), (other, of_other), radius)
        x = of_other(other)
        spread = Inner(radius, ball.ord).largest(jnp.abs(x))
        shapes = of_one(ball.center).shape, x.shape
        spread = jnp.broadcast_to(spread, jnp.broadcast_shapes(*shapes)[:-1])
        return _bounded(build, node, ball, spread.reshape(aval.shape))
    return None


def _convolution(build: Builder, node: Node) -> Sequence[Value] | None:
    """A convolution of a known image with a kernel from a ball."""
    image, kernel = node.operands
    ball = member(build, kernel)
    plain = node.params["batch_group_count"] == 1
    if isinstance(image, Ref) or ball is None or not ball.once or not plain:
        return None
    patches = Patches(node, ball.center.shape)
    radius = _arranged(ball.radius, patches.kernel)
    radius = radius[:, None] if radius.ndim else radius
    seen = patches.image(jnp.abs(image))[:, :, None]
    spread = Inner(radius, ball.ord).largest(seen)
    spread = jnp.broadcast_to(spread, (*spread.shape[:2], patches.features // patches.groups))
    return _bounded(build, node, ball, patches.placed(spread))


def _arranged(x: Array, arrange: Arrange) -> Array:
    return arrange(x) if x.ndim else x


def _around(
    build: Builder,
    node: Node,
    factor: tuple[Value, Arrange, Member],
    other: tuple[Value, Arrange],
    radius: Array,
) -> Sequence[Value]:
    """A matrix product with a member of a ball: that with the centre, and what the ball adds."""
    (one, of_one, ball), (second, of_other) = factor, other
    (aval,), is_left = node.outputs, node.operands[0] is one

    def at_center(y: Array) -> Array:
        return node(*((ball.center, y) if is_left else (y, ball.center)))[0]

    step = build.apply(lambda w: of_one(w - ball.center), node.source, one)[0]
    x = build.apply(of_other, node.source, second)[0]
    found = inner_products(build, "ball_product", (step, x, radius), node.source, ord=ball.ord)
    added = build.apply(lambda z: z.reshape(aval.shape), node.source, found)
    known = build.apply(at_center, node.source, second)
    return build.apply(jnp.add, node.source, *known, *added)


RULES: dict[str, tuple[Rule, ...]] = {
    "add": (_sum,),
    "conv_general_dilated": (_convolution,),
    "dot_general": (_dot,),
    "sub": (_sum,),
}
