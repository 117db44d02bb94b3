"""CROWN's own strategy: intermediate values are bounded layer by layer, by backward passes."""

from __future__ import annotations

import collections
import dataclasses
import logging
import math
from collections.abc import Callable, Collection
from typing import Protocol

import jax.numpy as jnp

from jaxlirpa._domains.interval import IntervalDomain
from jaxlirpa._domains.rows import arranged, numbered
from jaxlirpa._domains.windowed_linear import WindowedLinear
from jaxlirpa._domains.windows import Layout, layout_of
from jaxlirpa._graph.graph import INPUT, Ref
from jaxlirpa._intervals import Interval, vacuous_where_overflown
from jaxlirpa._methods.chunks import by_chunks
from jaxlirpa._methods.exactness import Quality
from jaxlirpa._methods.intermediate_boxes import Tighten
from jaxlirpa._methods.problem import Problem
from jaxlirpa._methods.relaxed_graph import RelaxedGraph, nonlinear
from jaxlirpa._methods.solution import Solution, enclose
from jaxlirpa._ops.families import Affine, Bilinear, Elementwise, LoopFamily, Move, Opaque
from jaxlirpa._ops.registry import record
from jaxlirpa._relax.lines import is_straight, relax
from jaxlirpa._transpose.convolution import turnable
from jaxlirpa._types import Array
from jaxlirpa._walk import backward

_LOG = logging.getLogger("jaxlirpa")


class BoundValue(Protocol):
    """Bounds a value, or those of its entries whose indices are given, see `enclose`."""

    def __call__(
        self, relaxed: RelaxedGraph, target: Ref, rows: Array | None = None
    ) -> Solution: ...


# The largest number of pairwise sums that get a row each. More are bounded from both operands.
_MOST_PAIRS = 4096
# A chunk holds a quarter of the rows, rounded up to a multiple of 32, unless its coefficients on a
# value would exceed a budget in bytes. A pass holds about ten times that budget at once. A search
# for alphas holds about fifty times, for the relaxations of every row and their derivatives; large
# chunks do not make it faster, so its budget is smaller.
_PARTS, _LEAST = 4, 32
_BUDGET, _SEARCHED = 2**27, 2**21


def by_default_relaxations(
    relaxed: RelaxedGraph, target: Ref, rows: Array | None = None
) -> Solution:
    """The bounds of a value by the default relaxations."""
    return enclose(relaxed.problem, relaxed.domain, target, rows)


@dataclasses.dataclass(frozen=True)
class Layerwise:
    """The strategy of CROWN: a backward pass for each value that a nonlinear node reads.

    Attributes:
        bound_value: bounds one value; default: a backward pass by the default relaxations.
        rows_per_chunk: see `jaxlirpa.crown`.
    """

    bound_value: BoundValue = by_default_relaxations
    rows_per_chunk: int | None = None

    def __call__(self, problem: Problem, wanted: Collection[Ref]) -> Tighten:
        """What tightens the intervals of one problem."""
        return _Layers(problem, self, wanted)


class _Layers:
    """Bounds intermediate values, each by a backward pass of its own."""

    relaxes = True

    def __init__(self, problem: Problem, strategy: Layerwise, wanted: Collection[Ref]):
        self.problem, self.graph = problem, problem.graph
        self.bound_value, self.rows_per_chunk = strategy.bound_value, strategy.rows_per_chunk
        self.nonlinear = nonlinear(self.graph)
        read = {ref for index in self.nonlinear for ref in self.graph.nodes[index].perturbed}
        self.covered = self._covered({*read, *wanted})
        self.whole = self._told(read, self._repeats)
        self.besides = self._told({*read, *wanted}, self._is_told)

    def __call__(self, before: RelaxedGraph, ref: Ref, box: Interval) -> Interval | None:
        """The box of a value; None where no pass could improve on its interval.

        Three kinds of values need no pass. The interval of some is exact: the first layer's over a
        box, say. Some only rearrange the entries of another value. And the image of a tight box
        under an elementwise function is inside whatever two lines could tell of it.

        The rows of an image are carried as windows where that is possible.
        """
        graph, sets = self.graph, self.problem.sets
        if self._is_exact(ref):
            return None
        if self._is_image(ref):
            return None
        if self._repeats(ref):
            node = graph.nodes[ref.node]
            operands = tuple(before.boxes[operand] for operand in node.perturbed)
            return IntervalDomain().step(ref.node, node, operands)[ref.output]
        default = self.bound_value is by_default_relaxations
        layout = layout_of(graph, sets, ref) if default else None
        if _LOG.isEnabledFor(logging.DEBUG):
            kind = "dense rows" if layout is None else "windows"
            _LOG.debug("%d rows of %s, as %s", graph.size(ref), graph.equation(ref.node), kind)
        if layout is None:
            return self._by_rows(before, ref, box)
        return self._by_windows(before, ref, box, layout)

    def _by_windows(
        self, before: RelaxedGraph, ref: Ref, box: Interval, layout: Layout
    ) -> Interval:
        """By windowed rows: all channels of a pixel at once, many pixels in chunks."""
        dense = before.domain

        def bound(pixels: Array | None) -> Interval:
            own = dataclasses.replace(layout, pixels=pixels)
            domain = WindowedLinear(
                self.graph, dense.reference, dense.lines, dense.planes, dense.slack, own, ref
            )
            reached = backward(self.graph, domain, domain.start(), self.problem.sets.__contains__)
            return vacuous_where_overflown(domain.box(reached, self.problem.sets))

        dtype = self.graph.aval(ref).dtype
        rows = Interval(*map(layout.rows, box))
        pixels, channels = rows.lower.shape
        fitting = _BUDGET // (layout.widest * dtype.itemsize)
        chunk = max(1, (self.rows_per_chunk or fitting) // channels)
        if pixels <= chunk:
            found = bound(None)
        else:
            needed = jnp.any(layout.rows(self._open(ref, box)), -1)
            found = by_chunks(bound, rows, needed, chunk)
        return Interval(*(layout.image(limit).astype(dtype) for limit in found))

    def _by_rows(self, before: RelaxedGraph, ref: Ref, box: Interval) -> Interval:
        """By dense rows, in chunks of the unstable entries unless all fit into one chunk."""
        shape, axis = box.lower.shape, self.graph.batch_axes.get(ref)
        chunk = self.rows_per_chunk or self._default_chunk(ref)
        if self.graph.size(ref) <= chunk:
            return self.bound_value(before, ref).box

        def bound(rows: Array) -> Interval:
            return self.bound_value(before, ref, rows).box

        entries = Interval(*(numbered(limit, axis) for limit in box))
        found = by_chunks(bound, entries, numbered(self._open(ref, box), axis), chunk)
        return Interval(*(arranged(limit, shape, axis) for limit in found))

    def _default_chunk(self, ref: Ref) -> int:
        """How many rows a chunk has: a part of all rows, and no more than fit into memory.

        Small chunks waste little on stable entries that fill up the last one. They are avoided for
        convolutions, in groups say, whose transposes XLA would compute slowly in a loop on CPUs.
        """
        size = self.graph.size(ref)
        behind = self.graph.returning((ref,))
        budget = _BUDGET if self.bound_value is by_default_relaxations else _SEARCHED
        fitting = max(1, budget // (behind.width() * self.graph.aval(ref).dtype.itemsize))
        nodes = [self.graph.nodes[index] for index in behind.live()]
        slow = any(n.primitive == "conv_general_dilated" and not turnable(n) for n in nodes)
        part = size if slow else -(-size // (_PARTS * _LEAST)) * _LEAST
        return min(part, fitting)

    def _open(self, ref: Ref, box: Interval) -> Array:
        """Which entries a better box may help: those where a function that reads them is unstable.

        All entries, if other values are bounded from this one, or if no elementwise function reads
        it.
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
            needed |= ~is_straight(lines)
        return needed

    def _is_exact(self, ref: Ref) -> bool:
        """Whether the interval of a value is exact, so that no method can tighten it."""
        origin = self.problem.origins[ref]
        return origin.quality >= Quality.EXACT and origin.sources <= self.problem.sets.keys()

    def _is_image(self, ref: Ref) -> bool:
        """Whether a value is the image of tight boxes under elementwise functions, moved about."""
        node = self.graph.nodes[ref.node]
        found = None if node.primitive == INPUT else record(node)
        if isinstance(found, Move):
            return all(map(self._is_image, node.perturbed))
        return isinstance(found, Elementwise | Opaque | LoopFamily)

    def _covered(self, asked: Collection[Ref]) -> collections.Counter[Ref]:
        """How many entries of values that are asked for are moved there from each value."""
        counts: collections.Counter[Ref] = collections.Counter()
        for ref in asked:
            node = self.graph.nodes[ref.node]
            if node.primitive != INPUT and isinstance(record(node), Move):
                for operand in node.perturbed:
                    counts[operand] += self._size(ref)
        return counts

    def _is_told(self, ref: Ref) -> bool:
        """Whether a value is bounded from its operands' boxes, see `_repeats`."""
        return not self._is_exact(ref) and self._repeats(ref)

    def _told(self, asked: set[Ref], is_told: Callable[[Ref], bool]) -> frozenset[Ref]:
        """The values from whose boxes other values are bounded, instead of by rows of their own.

        Args:
            asked: the values to bound; their operands are added as the search goes back.
            is_told: whether a value is bounded from its operands' boxes.
        """
        told: set[Ref] = set()
        for index in reversed(self.graph.live()):
            node = self.graph.nodes[index]
            outputs = (Ref(index, k) for k in range(len(node.outputs)))
            if node.primitive != INPUT and any(r in asked and is_told(r) for r in outputs):
                asked.update(node.perturbed)
                told.update(node.perturbed)
        return frozenset(told)

    def _repeats(self, ref: Ref) -> bool:
        """Whether a value is bounded from its operands' boxes, by intervals.

        Values that rearrange the entries of one no larger than they are together lose nothing by
        it, as the slices that max pooling reads. A value that adds or multiplies every entry of one
        operand with every entry of another (as `x[:, None] + y`) would need a row for each of many
        pairs.
        """
        node = self.graph.nodes[ref.node]
        found, size = record(node), math.prod(self.graph.aval(ref).shape)
        if isinstance(found, Move):
            if len(node.perturbed) != 1:
                return False
            (operand,) = node.perturbed
            return max(size, self.covered[operand]) >= self._size(operand)
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
