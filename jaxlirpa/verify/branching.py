"""The search: subproblems are bounded, and split where their bounds do not suffice."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxlirpa._intervals import Interval
from jaxlirpa.verify.bounders import Bounder
from jaxlirpa.verify.condensed import Parameters, Subproblems
from jaxlirpa.verify.optimise import Optimised
from jaxlirpa.verify.strategies import NeuronSplits, Strategy
from jaxlirpa.verify.tree import Floats, Forest, Leaf, Part, Split


class Met(NamedTuple):
    """Where bounds are attained, for an attack to begin at.

    Attributes:
        points: deviations of the inputs, `[count, n]`.
        clauses: the number of the clause of each.
    """

    points: Floats
    clauses: list[int]


class Search:
    """The search that proves some clauses, worst subproblems first.

    Attributes:
        forest: the subproblems.
        leaves: what proves those that are proved, by number.
        stuck: those that are not proved and that nothing can be split of.
        bounded: how many subproblems have been bounded.
        proved: the lower bound of all that is proved.
    """

    def __init__(
        self,
        bounder: Bounder,
        clauses: Mapping[int, NDArray[np.integer[Any]]],
        strategy: Strategy,
        inputs: Floats | None,
        least: float,
    ):
        """A search that has not begun.

        Args:
            bounder: bounds the subproblems.
            clauses: the rows of each clause that is to be proved, by its number, all of one length.
            strategy: how to split.
            inputs: limits of the inputs' deviations, if these are split.
            least: what a bound must exceed.
        """
        self.bounder, self.strategy, self.least = bounder, strategy, least
        self.clauses = clauses
        self.forest, self.leaves = Forest(list(clauses)), dict[int, Leaf]()
        self.heap: list[tuple[float, int]] = []
        self.parts: dict[int, Part] = {}
        self.stuck: list[Part] = []
        self.bounded, self.proved = 0, dict.fromkeys(clauses, np.inf)
        low, up = (np.asarray(limit) for limit in bounder.box)
        alpha = np.asarray(bounder.start())
        self.whole = Part(0, 0, low, up, inputs, alpha, np.zeros_like(low), -np.inf, ())
        self.batch = 2 * strategy.batch
        self.tried = self.batch * getattr(strategy, "candidates", 1)

    @property
    def open(self) -> int:
        """How many subproblems are not proved."""
        return len(self.heap) + len(self.stuck)

    @property
    def bytes(self) -> int:
        """How much memory the subproblems take, about."""
        inputs = 0 if self.whole.inputs is None else self.whole.inputs.nbytes
        each = 4 * self.whole.low.nbytes + inputs
        return each * (len(self.parts) + len(self.leaves))

    @property
    def lower(self) -> dict[int, float]:
        """The lower bound of each clause on the whole set, as far as it is known."""
        if not self.bounded:
            return dict.fromkeys(self.clauses, -np.inf)
        bounds = dict(self.proved)
        for part in (*self.parts.values(), *self.stuck):
            bounds[part.clause] = min(bounds[part.clause], part.bound)
        return bounds

    @property
    def worst(self) -> float:
        """The least bound of what is not proved."""
        bounds = [part.bound for part in self.stuck]
        bounds += [self.heap[0][0]] if self.heap else []
        return min(bounds, default=np.inf)

    def begin(self) -> Met:
        """Bounds every clause on the whole set; returns where the bounds are attained."""
        steps = self.strategy.root_steps if isinstance(self.strategy, NeuronSplits) else 1
        return self._file(self.forest.wholes(self.whole), steps)

    def step(self) -> Met:
        """Splits the worst subproblems; returns where the bounds of their parts are attained."""
        count = min(self.strategy.batch, len(self.heap))
        worst = [self.parts.pop(heapq.heappop(self.heap)[1]) for _ in range(count)]
        chosen = self._look_ahead(worst)
        halves = []
        for part, split in zip(worst, chosen, strict=True):
            numbers = self.forest.split(part.number, split)
            for number, half in zip(numbers, part.halves(split), strict=True):
                halves.append(dataclasses.replace(half, number=number))
        return self._file(halves, self.strategy.steps)

    def reopen(self, numbers: Collection[int], least: float) -> None:
        """Takes back that some leaves are proved, and asks more of all that is bounded from now.

        Args:
            numbers: of the leaves.
            least: what a bound must exceed.
        """
        self.least = least
        parts = self.forest.parts(self.whole)
        again = []
        for number in numbers:
            leaf = self.leaves.pop(number)
            part = parts[number]
            again.append(dataclasses.replace(part, alpha=leaf.alpha, mu=leaf.mu, bound=-np.inf))
        self._file(again, self.strategy.steps, proves=False)

    def _look_ahead(self, parts: Sequence[Part]) -> list[Split]:
        """Of each subproblem the split whose parts have the best bounds by its own parameters.

        What a part is better than proved by is worth nothing.
        """
        tried = [
            (i, s) for i, part in enumerate(parts) if len(part.splits) > 1 for s in part.splits
        ]
        halves = [half for i, split in tried for half in parts[i].halves(split)]
        if not halves:
            return [part.splits[0] for part in parts]
        full = halves + [halves[0]] * (self.tried - len(halves))
        found = np.asarray(self.bounder.quick_bounds(*self._arrays(full)[:2]))
        bounds = np.minimum(found[: len(halves)], 0).reshape(-1, 2).sum(1)
        best: dict[int, tuple[float, Split]] = {}
        for (i, split), value in zip(tried, bounds, strict=True):
            if i not in best or value > best[i][0]:
                best[i] = float(value), split
        return [best[i][1] if i in best else part.splits[0] for i, part in enumerate(parts)]

    def _bounds(self, parts: Sequence[Part], steps: int) -> Iterator[tuple[list[Part], Optimised]]:
        """Bounds of subproblems, in batches of one size; the parts with their better boxes."""
        for at in range(0, len(parts), self.batch):
            some = list(parts[at : at + self.batch])
            full = some + [some[0]] * (self.batch - len(some))
            sub, start, free = self._arrays(full)
            real = jnp.arange(self.batch) < len(some)
            box, found = self.bounder.bounds(sub, start, free, real, steps)
            low, up = (np.asarray(limit) for limit in box)
            yield (
                [dataclasses.replace(p, low=low[i], up=up[i]) for i, p in enumerate(some)],
                jax.tree.map(np.asarray, found),
            )

    def _arrays(self, parts: Sequence[Part]) -> tuple[Subproblems, Parameters, jax.Array]:
        dtype = self.bounder.dtype
        rows = np.stack([self.clauses[p.clause] for p in parts])
        low, up = (np.stack([getattr(p, side) for p in parts]) for side in ("low", "up"))
        inputs, free = None, (low != self.whole.low) | (up != self.whole.up)
        if self.whole.inputs is not None:
            limits = np.stack([p.inputs for p in parts if p.inputs is not None], 1)
            inputs, free = Interval(*map(jnp.asarray, limits)), np.zeros_like(free)
        box = Interval(jnp.asarray(low), jnp.asarray(up))
        sub = Subproblems(jnp.asarray(rows), jnp.ones(rows.shape, dtype), box, inputs)
        start = Parameters(
            jnp.asarray(np.stack([p.alpha for p in parts], 1), dtype),
            jnp.asarray(np.stack([p.mu for p in parts]), dtype),
        )
        return sub, start, jnp.asarray(free)

    def _file(self, parts: Sequence[Part], steps: int, proves: bool = True) -> Met:
        """Bounds subproblems, and keeps them as leaves or to be split."""
        points, clauses = [], []
        for some, found in self._bounds(parts, steps):
            self.bounded += len(some)
            xs = np.array(found.found.x)[: len(some)]
            for i, part in enumerate(some):
                better = self._keep(i, part, found, proves)
                xs[i] = xs[i] if better is None else better
            points.append(xs)
            clauses += [part.clause for part in some]
        return Met(np.concatenate(points), clauses)

    def _keep(self, i: int, part: Part, found: Optimised, proves: bool) -> Floats | None:
        """Files the i-th subproblem of a batch; returns a minimiser, if there is a better one."""
        alpha = np.asarray(found.parameters.alpha)[:, i]
        mu, own = np.asarray(found.parameters.mu)[i], float(found.found.lower[i])
        if proves and own > self.least:
            self.leaves[part.number] = Leaf(alpha, mu)
            self.proved[part.clause] = min(self.proved[part.clause], own)
            return None
        splits = self._splits(i, part, found)
        # What is known of the whole of which this is a part holds for it as well.
        bound = max(own, part.bound)
        half = alpha.astype(np.float16)
        kept = dataclasses.replace(part, alpha=half, mu=mu, bound=bound, splits=splits)
        if not splits:
            return self._settled(dataclasses.replace(kept, alpha=alpha))
        self.parts[kept.number] = kept
        heapq.heappush(self.heap, (bound, kept.number))
        return None

    def _settled(self, part: Part) -> Floats | None:
        """Files a part that cannot be split, with the best multipliers; returns its minimiser."""
        x = None
        for row in dict.fromkeys(self.clauses[part.clause].tolist()):
            found = self.bounder.dual(row, part)
            if found is None:
                continue
            x = found.x
            own = dataclasses.replace(part, mu=found.mu.astype(self.bounder.dtype))
            sub, parameters, _ = self._arrays([own] * self.tried)
            bound = float(self.bounder.quick_bounds(sub, parameters)[0])
            if bound > part.bound:
                part = dataclasses.replace(own, bound=bound)
            if bound > self.least:
                self.leaves[part.number] = Leaf(part.alpha, part.mu)
                self.proved[part.clause] = min(self.proved[part.clause], bound)
                return None
        self.stuck.append(part)
        return x

    def _splits(self, i: int, part: Part, found: Optimised) -> tuple[Split, ...]:
        """What to split a subproblem by, the most promising first."""
        if part.inputs is not None:
            width = part.inputs[1] - part.inputs[0]
            size = np.asarray(found.found.sizes)[i] * width
            best = int(np.argmax(np.where(np.isfinite(size), size, 0) + 1e-6 * width))
            low, up = part.inputs[:, best]
            middle = low + (up - low) / 2
            split = Split(len(part.low) + best, float(middle))
            return (split,) if low < middle < up else ()
        chosen: Any = (np.asarray(x)[i] for x in found.candidates)
        triples = zip(*chosen, strict=True)
        return tuple(Split(int(n), float(p)) for n, p, gap in triples if gap >= 0)
