"""Places of entries: of the largest, of a value among sorted ones, and what is at a place.

A place is an integer, and its box an interval of integers.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax

from jaxlirpa._arrays import is_floating, where
from jaxlirpa._graph.graph import Graph, Node
from jaxlirpa._intervals import Interval, is_finite
from jaxlirpa._ops.families import Opaque, Record, operand_boxes
from jaxlirpa._ops.opaque import MISS, less


def _largest(node: Node, boxes: Sequence[Interval]) -> tuple[Interval, ...]:
    """From the first to the last place that can win.

    An entry cannot if another one is larger for sure, or as large and earlier. What may be no
    number may win, as that counts as the largest.
    """
    (box,), (axis,) = boxes, node.params["axes"]
    if node.primitive == "argmin":
        box = _negated(box)
    lower, upper = (x.astype(int) if x.dtype == bool else x for x in box)
    count = upper.shape[axis]
    some, rest = lax.slice_in_dim(upper, 1, count, axis=axis), count - 1
    earlier = lax.slice_in_dim(lax.cummax(lower, axis), 0, rest, axis=axis)
    later = lax.slice_in_dim(lax.cummax(lower, axis, reverse=True), 1, count, axis=axis)
    most = lax.slice_in_dim(upper, 0, rest, axis=axis)
    none = jnp.zeros_like(lax.slice_in_dim(upper, 0, 1, axis=axis), bool)
    beaten = jnp.concatenate([none, some <= earlier], axis)
    beaten |= jnp.concatenate([less(Interval(most, most), Interval(later, later)), none], axis)
    if is_floating(upper):
        beaten &= is_finite(box)
    dtype = node.outputs[0].dtype
    first, last = (lax.argmin(x, axis, dtype) for x in (beaten, jnp.flip(beaten, axis)))
    return (Interval(first, rest - last),)


def _negated(box: Interval) -> Interval:
    """A box in the other order."""
    negate = jnp.negative if is_floating(box.lower) else jnp.invert
    return Interval(negate(box.upper), negate(box.lower))


def _numbered(graph: Graph, node: Node) -> str | None:
    (ref,), (axis,) = node.perturbed, node.params["axes"]
    dtype = node.outputs[0].dtype
    if graph.aval(ref).shape[axis] - 1 <= jnp.iinfo(dtype).max:
        return None
    return f"its places cannot all be numbered in {dtype}"


def _inserted(node: Node, boxes: Sequence[Interval]) -> tuple[Interval, ...]:
    """Where a value belongs among entries that are meant to be sorted.

    Whatever the entries are, every way to search ends between the first entry that is not before
    the value and the place behind the last one that is. Equal values may miss each other by
    rounding, and what may be no number may belong anywhere.
    """
    boxes = operand_boxes(node.operands, boxes)
    dtype = jnp.result_type(*(box.lower for box in boxes))
    entries, values = (Interval(*(x.astype(dtype) for x in box)) for box in boxes)
    side, count = node.params["side"], len(entries.lower)
    lowest, highest = lax.cummin(entries.lower, reverse=True), lax.cummax(entries.upper)
    first, last = values
    if is_floating(values.lower):
        room = [3 * MISS * jnp.finfo(dtype).eps * jnp.abs(limit) for limit in values]
        first, last = (first - room[0], last) if side == "left" else (first, last + room[1])
    places = [jnp.searchsorted(x, v, side) for x, v in ((highest, first), (lowest, last))]
    if is_floating(values.lower):
        numbers = is_finite(entries) if 0 in node.positions else ~jnp.isnan(entries.lower)
        known = jnp.all(numbers) & (is_finite(values) if 1 in node.positions else True)
        places = [where(known, p, x) for p, x in zip(places, (0, count), strict=True)]
    return (Interval(*(p.astype(node.outputs[0].dtype) for p in places)),)


def _chosen(node: Node, boxes: Sequence[Interval]) -> tuple[Interval, ...]:
    """The hull of the entries, along the leading axis, at the places that are possible."""
    place, entries = operand_boxes(node.operands, boxes)
    count = len(entries.lower)
    numbers = jnp.arange(count).reshape(-1, *[1] * place.lower.ndim)
    low, high = (jnp.clip(x, 0, count - 1) for x in place)
    possible = (low <= numbers) & (numbers <= high)
    widest = Interval(entries.lower.min(0), entries.upper.max(0))
    lower = where(possible, entries.lower, widest.upper).min(0)
    upper = where(possible, entries.upper, widest.lower).max(0)
    return (Interval(lower, upper),)


RECORDS: dict[str, Record] = {
    "argmax": Opaque(_largest, objection=_numbered),
    "argmin": Opaque(_largest, objection=_numbered),
    "entry": Opaque(_chosen),
    "searchsorted": Opaque(_inserted),
}
