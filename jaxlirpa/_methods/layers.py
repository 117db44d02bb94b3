"""Bounds of the values inside a network, layer by layer, as CROWN needs them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Protocol

import jax.numpy as jnp

from jaxlirpa._domains.interval import IntervalDomain
from jaxlirpa._domains.rows import arranged, numbered
from jaxlirpa._domains.windowed_linear import WindowedLinear
from jaxlirpa._domains.windows import Layout, layout_of
from jaxlirpa._graph.graph import INPUT, Ref
from jaxlirpa._methods.chunks import by_chunks
from jaxlirpa._methods.exactness import Quality, origins
from jaxlirpa._methods.relaxed import Relaxed, nonlinear
from jaxlirpa._methods.solution import Solution, enclose
from jaxlirpa._ops.families import Affine, Bilinear, Elementwise, Move, Opaque, Repeated
from jaxlirpa._ops.registry import record
from jaxlirpa._relax.lines import relax
from jaxlirpa._special.convolution import turnable
from jaxlirpa._typing import Array, Interval, vacuous_where_overflown
from jaxlirpa._walk import backward


class Bound(Protocol):
    """Bounds a value, or the entries of it with the given numbers, see `enclose`."""

    def __call__(self, relaxed: Relaxed, target: Ref, rows: Array | None = None) -> Solution: ...


# Sums of pairs, one row each, up to which they are bounded as sums and not from the two parts.
_MOST_PAIRS = 4096
# A chunk is a part of the rows, of a multiple of some; and its coefficients on one value take at
# most so many bytes. About ten times as much is held at once; by a search for relaxations, which
# holds those of every row and their derivatives, fifty times. That is slow, and gains nothing from
# large chunks, so it gets less.
_PARTS, _LEAST = 4, 32
_BUDGET, _SEARCHED = 2**27, 2**21


def plain(relaxed: Relaxed, target: Ref, rows: Array | None = None) -> Solution:
    """The bounds of a value by the default relaxations."""
    return enclose(relaxed.graph, relaxed.sets, relaxed.domain, target, rows)


class Layers:
    """Bounds of intermediate values, each by a backward pass of its own."""

    def __init__(
        self,
        relaxed: Relaxed,
        tighten: Callable[[Ref], Interval],
        bound_value: Bound,
        rows_per_chunk: int | None,
    ):
        self.relaxed, self.tighten, self.bound_value = relaxed, tighten, bound_value
        self.rows_per_chunk = rows_per_chunk
        self.graph, self.sets = relaxed.graph, relaxed.sets
        self.origin = origins(self.graph, self.sets)
        self.nonlinear = nonlinear(self.graph)
        self.whole = self._whole()

    def bound(self, ref: Ref, box: Interval) -> Interval:
        """The box of a value.

        Not by a pass where its interval is known to be exact, behind the first layer of a box say,
        nor where it repeats the entries of another value, nor where it is a function of one value
        whose box is tight: the range over that box lies inside of all that lines around the
        function can tell. Where the value is an image, the rows are carried as windows.
        """
        graph, sets, origin = self.graph, self.sets, self.origin[ref]
        if origin.quality >= Quality.EXACT and origin.sources <= sets.keys():
            return box
        if isinstance(record(graph.nodes[ref.node]), Elementwise | Opaque | Repeated):
            return box
        if self._repeats(ref):
            node = graph.nodes[ref.node]
            operands = tuple(self.tighten(operand) for operand in node.perturbed)
            return IntervalDomain().step(ref.node, node, operands)[ref.output]
        layout = layout_of(graph, sets, ref) if self.bound_value is plain else None
        if layout is None:
            return self._by_rows(ref, box)
        return self._by_windows(ref, box, layout)

    def _by_windows(self, ref: Ref, box: Interval, layout: Layout) -> Interval:
        """By rows that are windows, all channels of a pixel at once; pixels in chunks if many."""

        def bound(pixels: Array | None) -> Interval:
            own = dataclasses.replace(layout, pixels=pixels)
            relaxed = self.relaxed
            domain = WindowedLinear(self.graph, relaxed.domain.reference, relaxed.lines, own)
            identity = domain.identity(ref)
            reached = backward(self.graph, domain, ref, identity, self.sets.__contains__)
            return vacuous_where_overflown(domain.box(reached, self.sets))

        dtype = self.graph.aval(ref).dtype
        rows = Interval(*map(layout.rows, box))
        pixels, channels = rows.lower.shape
        fitting = _BUDGET // (layout.widest * dtype.itemsize)
        chunk = max(1, (self.rows_per_chunk or fitting) // channels)
        if pixels <= chunk:
            found = bound(None)
        else:
            self.relaxed.prepare(ref)
            needed = jnp.any(layout.rows(self._open(ref, box)), -1)
            found = by_chunks(bound, rows, needed, chunk)
        lower, upper = (layout.image(limit) for limit in found)
        axis = self.graph.examples.get(ref)
        lost = self.relaxed.domain.underflow.behind(ref, self.sets.keys())
        lost = jnp.broadcast_to(lost, numbered(lower, axis).shape)
        lost = arranged(lost, lower.shape, axis)
        return Interval((lower - lost).astype(dtype), (upper + lost).astype(dtype))

    def _by_rows(self, ref: Ref, box: Interval) -> Interval:
        """By dense rows, for the entries that need it; at once where they are few."""
        shape, axis = box.lower.shape, self.graph.examples.get(ref)
        chunk = self.rows_per_chunk or self._default_chunk(ref)
        if self.graph.size(ref) <= chunk:
            return self.bound_value(self.relaxed, ref).box

        def bound(rows: Array) -> Interval:
            return self.bound_value(self.relaxed, ref, rows).box

        self.relaxed.prepare(ref)
        entries = Interval(*(numbered(limit, axis) for limit in box))
        found = by_chunks(bound, entries, numbered(self._open(ref, box), axis), chunk)
        return Interval(*(arranged(limit, shape, axis) for limit in found))

    def _default_chunk(self, ref: Ref) -> int:
        """As many rows as fit into memory, and a part of all, so that few are computed in vain.

        The second not where rows pass convolutions in groups, say, whose transposes XLA computes
        slowly in a loop on CPUs.
        """
        size = self.graph.size(ref)
        behind = self.graph.returning((ref,))
        budget = _BUDGET if self.bound_value is plain else _SEARCHED
        fitting = max(1, budget // (behind.width() * self.graph.aval(ref).dtype.itemsize))
        nodes = [self.graph.nodes[index] for index in behind.live()]
        slow = any(n.primitive == "conv_general_dilated" and not turnable(n) for n in nodes)
        part = size if slow else -(-size // (_PARTS * _LEAST)) * _LEAST
        return min(part, fitting)

    def _open(self, ref: Ref, box: Interval) -> Array:
        """For which entries a better box may help: not where functions of them are lines on it.

        All entries of a value that others repeat, or that is asked for though no function reads it.
        """
        nodes = [self.graph.nodes[index] for index in self.nonlinear]
        found = [(node, record(node)) for node in nodes if ref in node.perturbed]
        alone = all(isinstance(reader, Elementwise) for _, reader in found)
        if ref in self.whole or not found or not alone:
            return jnp.ones(box.lower.shape, bool)
        needed = jnp.zeros(box.lower.shape, bool)
        for node, reader in found:
            assert isinstance(reader, Elementwise)
            lines = relax(reader.relaxation(node), box)
            straight = lines.lower_slope == lines.upper_slope
            needed |= ~(straight & (lines.lower_offset == lines.upper_offset))
        return needed

    def _whole(self) -> frozenset[Ref]:
        """The values that operands of nonlinear functions are told from, instead of by rows."""
        asked = {ref for index in self.nonlinear for ref in self.graph.nodes[index].perturbed}
        told: set[Ref] = set()
        for index in reversed(self.graph.live()):
            node = self.graph.nodes[index]
            outputs = (Ref(index, k) for k in range(len(node.outputs)))
            if node.primitive != INPUT and any(r in asked and self._repeats(r) for r in outputs):
                asked.update(node.perturbed)
                told.update(node.perturbed)
        return frozenset(told)

    def _repeats(self, ref: Ref) -> bool:
        """Whether a value holds the entries of one that is no larger, or many more sums of pairs.

        The first is no loss at all, the second spares a row for each of all pairs.
        """
        node = self.graph.nodes[ref.node]
        found, size = record(node), math.prod(self.graph.aval(ref).shape)
        if isinstance(found, Move):
            return len(node.perturbed) == 1 and size >= self._size(node.perturbed[0])
        if isinstance(found, Affine | Bilinear) and not found.mixes:
            many = self.graph.size(ref) > _MOST_PAIRS
            return many and all(self._spread(operand) for operand in node.perturbed)
        return False

    def _spread(self, ref: Ref) -> bool:
        node = self.graph.nodes[ref.node]
        return (
            node.primitive != INPUT
            and isinstance(record(node), Move)
            and len(node.perturbed) == 1
            and self._size(ref) > self._size(node.perturbed[0])
        )

    def _size(self, ref: Ref) -> int:
        return math.prod(self.graph.aval(ref).shape)
