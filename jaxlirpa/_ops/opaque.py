"""Functions of which only the range over a box is used: tests, truth values, steps, orders."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlirpa._arrays import is_floating, where
from jaxlirpa._graph.graph import Graph, Node, is_same
from jaxlirpa._intervals import Interval, is_finite
from jaxlirpa._ops.families import LoopFamily, Opaque, Record, operand_boxes
from jaxlirpa._relax.wraparound import converted, is_integer
from jaxlirpa._types import Array

Image = Callable[[Node, Sequence[Interval]], tuple[Interval, ...]]


def _rising(node: Node, boxes: Sequence[Interval]) -> tuple[Interval, ...]:
    """Of a function that rises in every operand."""
    lower, upper = node(*(b.lower for b in boxes)), node(*(b.upper for b in boxes))
    return tuple(map(Interval, lower, upper))


def _truncated(node: Node, boxes: Sequence[Interval]) -> tuple[Interval, ...]:
    """To a whole number.

    Reals out of the format's range become its largest or smallest integer; integers wrap around.
    """
    (box,) = boxes
    (image,) = _rising(node, boxes)
    between_integers = is_integer(box.lower) and is_integer(image.lower)
    return (converted(image, box) if between_integers else image,)


def _falling(node: Node, boxes: Sequence[Interval]) -> tuple[Interval, ...]:
    """Of a function that falls in every operand."""
    return tuple(Interval(b.upper, b.lower) for b in _rising(node, boxes))


def _comparison(
    surely: Callable[[Interval, Interval], Array], never: Callable[[Interval, Interval], Array]
) -> Opaque:
    """A comparison, from where it holds for all values and where for none.

    A NaN makes every comparison false, so that neither is concluded from it.
    """

    def image(node: Node, boxes: Sequence[Interval]) -> tuple[Interval, ...]:
        """Known where the boxes do not overlap, or are the same point.

        A number equals itself, whichever it is: `x != x` asks whether `x` is none.
        """
        x, y = operand_boxes(node.operands, boxes)
        if is_same(*node.operands):
            finite = is_finite(x)
            x = y = Interval(*(where(finite, 1, limit).astype(limit.dtype) for limit in x))
        return (Interval(surely(x, y), ~never(x, y)),)

    return Opaque(image)


# Limits of two values that are equal may miss each other by so many units in the last place.
MISS = 8


def less(x: Interval, y: Interval) -> Array:
    """By more than rounding: one value may have been bounded in two ways."""
    below, above = x.upper, y.lower
    if not is_floating(below):
        return below < above
    eps = jnp.finfo(below.dtype).eps
    sizes = (where(jnp.isinf(limit), 0, jnp.abs(limit)) for limit in (below, above))
    return above - below > MISS * eps * sum(sizes)


def _less_or_equal(x: Interval, y: Interval) -> Array:
    return x.upper <= y.lower


def _swapped(test: Callable[[Interval, Interval], Array]) -> Callable[[Interval, Interval], Array]:
    return lambda x, y: test(y, x)


def _apart(x: Interval, y: Interval) -> Array:
    return less(x, y) | less(y, x)


def _equal(x: Interval, y: Interval) -> Array:
    return (x.lower == y.upper) & (x.upper == y.lower)


def _before(x: Interval, y: Interval) -> Array:
    """In the total order, where values that are no number come first or last."""
    return is_finite(x) & is_finite(y) & less(x, y)


def _not_before(x: Interval, y: Interval) -> Array:
    """Of two zeros the negative one comes first, and a limit does not tell them apart."""
    equal = (x.lower == y.upper) & (x.lower != 0)
    return is_finite(x) & is_finite(y) & ((x.lower > y.upper) | equal)


def _identical(x: Interval, y: Interval) -> Array:
    return _equal(x, y) & (x.lower != 0) & is_finite(x)


def _different(x: Interval, y: Interval) -> Array:
    return _before(x, y) | _before(y, x)


def _is_finite(node: Node, boxes: Sequence[Interval]) -> tuple[Interval, ...]:
    """A finite box has finite members; of any other nothing is known."""
    finite = is_finite(*boxes)
    return (Interval(finite, jnp.ones_like(finite)),)


def _is_nonzero(node: Node, boxes: Sequence[Interval]) -> tuple[Interval, ...]:
    """Whether zero is in the box, or nothing else."""
    ((lower, upper),) = boxes
    return (Interval((lower > 0) | (upper < 0), ~((lower == 0) & (upper == 0))),)


def _exclusive(node: Node, boxes: Sequence[Interval]) -> tuple[Interval, ...]:
    """Known where both truth values are."""
    x, y = operand_boxes(node.operands, boxes)
    known = (x.lower == x.upper) & (y.lower == y.upper)
    value = x.lower ^ y.lower
    return (Interval(value & known, value | ~known),)


def _among(node: Node, boxes: Sequence[Interval]) -> tuple[Interval, ...]:
    """The hull of the cases that the selector may name."""
    selector, *cases = operand_boxes(node.operands, boxes)
    wanted = [
        (selector.lower.astype(int) <= i) & (i <= selector.upper.astype(int))
        for i in range(len(cases))
    ]
    everything = Interval(
        functools.reduce(jnp.minimum, [c.lower for c in cases]),
        functools.reduce(jnp.maximum, [c.upper for c in cases]),
    )
    # The highest limits of all are a start that every case that is wanted can only better.
    lower, upper = everything.upper, everything.lower
    for ok, case in zip(wanted, cases, strict=True):
        lower = where(ok, jnp.minimum(lower, case.lower), lower)
        upper = where(ok, jnp.maximum(upper, case.upper), upper)
    return (Interval(lower, upper),)


def _angle(node: Node, boxes: Sequence[Interval]) -> tuple[Interval, ...]:
    """The angle of a point of the plane, which jumps between -pi and pi.

    A rectangle without the origin is seen under the angles between those of its corners. One that
    the half-line of the jump meets, zeros of either sign included, may have any angle.
    """
    y, x = operand_boxes(node.operands, boxes)
    corners = [jnp.arctan2(a, b) for a in y for b in x]
    lower, upper = (functools.reduce(f, corners) for f in (jnp.minimum, jnp.maximum))
    error = 4 * jnp.finfo(lower.dtype).eps
    clear = (x.lower > 0) | (y.lower > 0) | (y.upper < 0)
    half_turn = (1 + error) * jnp.pi
    return (
        Interval(
            where(clear, lower - error * jnp.abs(lower), -half_turn),
            where(clear, upper + error * jnp.abs(upper), half_turn),
        ),
    )


def _lost(node: Node, boxes: Sequence[Interval]) -> tuple[Interval, ...]:
    """What rounding may take from a sum: a share of the sum of all moduli."""
    ((_, upper),) = boxes
    most = node.params["share"] * upper
    return (Interval(-most, most),)


def _wins(node: Node, boxes: Sequence[Interval]) -> tuple[Interval, ...]:
    """Which entry of a window is the largest: known where no other one can be as large.

    Equal entries leave it open, since the order in which they are compared is the compiler's.
    """
    mask, slices, sign = (node.params[key] for key in ("mask", "slices", "sign"))
    ((lower, upper),) = boxes
    if sign < 0:
        lower, upper = -upper, -lower
    lower, upper = (where(mask, slices(x), -jnp.inf) for x in (lower, upper))
    return (Interval(lower > _largest_other(upper), ~(upper < _largest_other(lower))),)


def _largest_other(x: Array) -> Array:
    """For every entry, the largest of the others along the first axis."""
    start = jnp.full_like(x[:1], -jnp.inf)
    before = jnp.concatenate([start, lax.cummax(x, 0)[:-1]])
    after = jnp.concatenate([lax.cummax(x, 0, reverse=True)[1:], start])
    return jnp.maximum(before, after)


def _truth_values(graph: Graph, node: Node) -> str | None:
    dtypes = {graph.aval(ref).dtype for ref in node.perturbed}
    if dtypes == {np.dtype(bool)}:
        return None
    return "it acts on the bits of integers, and a perturbed value has none"


def _one_array(graph: Graph, node: Node) -> str | None:
    del graph
    if len(node.operands) == 1:
        return None
    return "sorting several arrays by the order of one moves entries to places that are perturbed"


_LOGIC = functools.partial(Opaque, objection=_truth_values)

RECORDS: dict[str, Record] = {
    "and": _LOGIC(_rising),
    "atan2": Opaque(_angle),
    "choose_among": Opaque(_among),
    "eq": _comparison(_equal, _apart),
    "eq_to": _comparison(_identical, _different),
    "ge": _comparison(_swapped(_less_or_equal), less),
    "gt": _comparison(_swapped(less), _less_or_equal),
    "is_finite": Opaque(_is_finite),
    "is_nonzero": Opaque(_is_nonzero),
    "le": _comparison(_less_or_equal, _swapped(less)),
    "le_to": _comparison(_swapped(_not_before), _swapped(_before)),
    "loop": LoopFamily(),
    "lost": Opaque(_lost),
    "lt": _comparison(less, _swapped(_less_or_equal)),
    "lt_to": _comparison(_before, _not_before),
    "ne": _comparison(_apart, _equal),
    "nextafter": Opaque(_rising),
    "not": _LOGIC(_falling),
    "or": _LOGIC(_rising),
    "reduce_and": _LOGIC(_rising),
    "reduce_or": _LOGIC(_rising),
    "sort": Opaque(_rising, objection=_one_array),
    "truncate": Opaque(_truncated),
    "wins": Opaque(_wins),
    "xor": _LOGIC(_exclusive),
}
