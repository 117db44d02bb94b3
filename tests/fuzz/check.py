"""Bounds of every node of a program over many sets at once, held against sampled members.

Nothing is compiled: values, gradients and bounds are each traced once and computed in NumPy.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import arithmetic
import jax
import jax.numpy as jnp
import numpy as np
import oracles

import jaxlirpa
from fuzz.programs import OPERATIONS, SHAPES, Operation, Program, random_program
from fuzz.sets import Batch, between, convert, farthest, members, pick, put_back, random_batch
from jaxlirpa._arrays import is_floating
from jaxlirpa._graph.graph import INPUT, Graph, Node, Ref
from jaxlirpa._graph.trace import trace
from jaxlirpa._methods.problem import TracedFunction

# Sets of one program, sampled members of a set, and climbs from each of them.
SETS, POINTS, CLIMBS = 16, 16, 2
_TRIALS = 16


Pair = tuple[np.ndarray, np.ndarray]
"""The lower and upper bounds of a value."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A program and sets of its inputs.

    Attributes:
        program: the program.
        sets: for every input, by its number, a batch of sets.
        dtype: the precision.
        seed: of the sampled members.
    """

    program: Program
    sets: Mapping[int, Batch]
    dtype: np.dtype
    seed: int

    @property
    def inputs(self) -> list[Batch]:
        """The sets in the order of the program's arguments."""
        return [self.sets[line.number] for line in self.program.inputs]

    def only(self, index: int) -> Case:
        """With one of the sets alone."""
        sets = {number: pick(batch, index) for number, batch in self.sets.items()}
        return dataclasses.replace(self, sets=sets)

    def within(self, dtype: np.dtype) -> Case:
        """In another precision."""
        sets = {number: convert(batch, dtype) for number, batch in self.sets.items()}
        return dataclasses.replace(self, sets=sets, dtype=dtype)

    def traced(self) -> Graph:
        """The program as it is bounded."""
        avals = [SHAPES[line.kind] for line in self.program.inputs]
        middle = [jaxlirpa.Box(*[jnp.zeros(shape, self.dtype)] * 2) for shape in avals]
        graph, _ = oracles.trace(self.program.function(self.dtype), *middle)
        return graph

    def written(self) -> Graph:
        """The program as it is written: nothing is recognised or rewritten."""
        avals = [jax.ShapeDtypeStruct(SHAPES[x.kind], self.dtype) for x in self.program.inputs]
        return trace(self.program.function(self.dtype), avals, {})[0]

    def graph(self) -> Graph:
        """The same, with every live value as an output."""
        return _whole(self.traced())


def _whole(graph: Graph) -> Graph:
    return graph.returning(oracles.live_refs(graph))


@dataclasses.dataclass(frozen=True)
class Violation:
    """A value outside of its bounds.

    Attributes:
        method: the transform.
        ref: the node's value.
        node: the node's primitive and the line of the program.
        place: which set, and which entry of the value.
        value: what was computed there.
        lower, upper: the bounds.
        rounded: whether the rounding of the program itself explains it.
    """

    method: str
    ref: Ref
    node: str
    place: tuple[int, ...]
    value: float
    lower: float
    upper: float
    rounded: bool = False

    def __str__(self) -> str:
        return (
            f"{self.method}: {self.node}, entry {self.place[1:]} of set {self.place[0]}: "
            f"{self.value!r} is not in [{self.lower!r}, {self.upper!r}]"
        )


def random_case(seed: int, dtype: np.dtype, operations: Sequence[Operation] = OPERATIONS) -> Case:
    """The case of a seed."""
    rng = np.random.default_rng(seed)
    length = int(rng.integers(1, 4))
    program = random_program(seed, rng, length, operations)
    batches = {x.number: random_batch(rng, SETS, SHAPES[x.kind], dtype) for x in program.inputs}
    return Case(program, batches, dtype, seed)


# ---- members and bounds --------------------------------------------------------------------


def _at(fn: Callable[..., Any], points: Sequence[np.ndarray]) -> list[np.ndarray]:
    """A function of several results at `[sets, points, *shape]` of every argument."""
    lead = points[0].shape[:2]
    results = oracles.each(fn, [x.reshape(-1, *x.shape[2:]) for x in points])
    return [np.reshape(x, (*lead, *np.shape(x)[1:])) for x in results]


def _values(graph: Graph) -> Callable[..., list[jax.Array]]:
    """The values of all outputs of a graph, as a function."""

    def run(*arrays: jax.Array) -> list[jax.Array]:
        found = graph.evaluate(arrays)
        return [found[ref] for ref in graph.targets]

    return run


def _climbed(
    graph: Graph, case: Case, points: list[np.ndarray], rng: np.random.Generator
) -> list[np.ndarray]:
    """Members from which some node is larger, or smaller: one step towards the best of them.

    Every point has an entry of a node for itself; its gradient says where the step goes.
    """
    real = graph.returning([r for r in graph.targets if _is_climbed(graph.aval(r))])
    lead = points[0].shape[:2]
    chosen = rng.integers(len(real.targets), size=lead)
    weights = []
    for number, aval in enumerate(map(real.aval, real.targets)):
        flat = np.zeros((*lead, math.prod(aval.shape)), aval.dtype)
        entry = rng.integers(flat.shape[2], size=lead)
        sign = np.where(rng.uniform(size=lead) < 0.5, -1, 1)
        wanted = np.where(chosen == number, sign, 0).astype(aval.dtype)
        np.put_along_axis(flat, entry[..., None], wanted[..., None], 2)
        weights.append(flat.reshape(*lead, *aval.shape))

    def gradients(*arrays: jax.Array) -> Sequence[jax.Array]:
        _, pull = jax.vjp(_values(real), *arrays[: len(points)])
        return pull(list(arrays[len(points) :]))

    found = []
    share = rng.choice([1, 1, 0.5, 0.1], lead)
    directions = _at(gradients, [*points, *weights])
    for batch, x, direction in zip(case.inputs, points, directions, strict=True):
        goal = farthest(batch, np.nan_to_num(direction), rng)
        found.append(between(batch, x, goal, share.reshape(*lead, *[1] * (x.ndim - 2))))
    return found


def _is_climbed(aval: jax.ShapeDtypeStruct) -> bool:
    return is_floating(aval) and 0 not in aval.shape


def values_at(
    case: Case, traced: Graph, points: Sequence[np.ndarray]
) -> dict[Ref | int, np.ndarray]:
    """The values of all nodes at `[sets, points, *shape]` of every input.

    The program itself is run as well, whatever the graph makes of it: its values stand behind
    those of the node that an output is, or under the output's number where the graph says that it
    is a constant. Where what is written overflows and the graph does not, there is no such value:
    bounds are those of the function of real numbers. Where it is not defined, there is none either.
    """
    graph = _whole(traced)
    values = _at(_values(graph), points)
    found: dict[Ref | int, np.ndarray] = dict(
        zip(graph.targets, map(np.array, values), strict=True)
    )
    undefined = _forget_undefined(graph, found)
    results = _at(case.program.function(case.dtype), points)
    for number, (out, result) in enumerate(zip(traced.outputs, results, strict=True)):
        if isinstance(out, Ref):  # of which there may be several
            value = found[out][:, : result.shape[1]]
            result = np.where(np.isinf(result) & ~np.isinf(value), value, result)
            if out in undefined:
                result[undefined[out]] = np.nan
        parts = [found[out], result] if isinstance(out, Ref) else [result]
        found[out if isinstance(out, Ref) else number] = np.concatenate(parts, 1)
    return found


def _forget_undefined(graph: Graph, values: dict[Ref | int, np.ndarray]) -> dict[Ref, np.ndarray]:
    """Leaves NaN of what is computed of NaN: the largest of some numbers may be another of them.

    At the points where it is so, which are returned; a selection may be what keeps it out, and
    stays as it is. A truth value or an integer that is computed of NaN is NaN among numbers. And
    of entries that overflow inside of a node of several operations, which need not be infinite.
    """
    undefined = {}
    for index in graph.live():
        node = graph.nodes[index]
        if node.primitive == "select_n":
            continue
        operands = [values[ref] for ref in node.perturbed if is_floating(values[ref])]
        if not operands:
            continue
        lost = np.any([np.isnan(x).any(axis=tuple(range(2, x.ndim))) for x in operands], 0)
        for k, aval in enumerate(node.outputs):
            own = Ref(index, k)
            if lost.any():
                undefined[own] = lost
                values[own] = values[own] if is_floating(aval) else values[own].astype(float)
                values[own][lost] = np.nan
            if is_floating(aval):
                overflown = np.isinf(values[own])
                if overflown.any() and _steps(graph, node):
                    values[own][overflown] = np.nan
    return undefined


def _steps(graph: Graph, node: Node) -> Graph | None:
    """What a node computes, if that is several operations."""
    steps, _ = trace(node.__call__, [graph.aval(ref) for ref in node.perturbed], {})
    several = all(n.primitive != node.primitive for n in steps.nodes)
    return steps if several and len(steps.targets) == len(steps.outputs) else None


def sampled(graph: Graph, case: Case) -> list[np.ndarray]:
    """Members of the sets."""
    rng = np.random.default_rng(case.seed)
    points = [members(batch, rng, POINTS) for batch in case.inputs]
    rounds = [points]
    for _ in range(CLIMBS):
        try:
            rounds.append(_climbed(graph, case, rounds[-1], rng))
        except NotImplementedError:  # a step function without a derivative
            break
    return [np.concatenate(parts, 1) for parts in zip(*rounds, strict=True)]


def bounded(graph: Graph, case: Case, method: str) -> list[Pair]:
    """The bounds of all nodes over every set."""
    solve = jax.vmap(oracles.METHODS[method](TracedFunction(graph)))
    lower, upper = arithmetic.call(solve, *case.inputs)
    return [(np.asarray(a), np.asarray(b)) for a, b in zip(lower, upper, strict=True)]


def _excess(values: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """How far values are outside of `[lower, upper]`, beyond rounding; negative inside.

    Rounding is that of `oracles.contains`, of each set for itself.
    """
    if values.dtype == bool:
        values, lower, upper = (x.astype(int) for x in (values, lower, upper))
    room = [oracles.slack(*terms) for terms in zip(values, lower, upper, strict=True)]
    lower, upper = lower[:, None], upper[:, None]
    with np.errstate(invalid="ignore"):
        outside = np.maximum(lower - values, values - upper).astype(float)
    outside = np.where((values == upper) | (values == lower), 0, outside)
    outside = np.where(np.isnan(values), -np.inf, outside)
    broken = ~(lower <= upper)
    return np.where(broken, np.inf, outside - np.reshape(room, (-1, *[1] * (values.ndim - 1))))


# ---- the check -----------------------------------------------------------------------------


def violations(case: Case, methods: Sequence[str] = tuple(oracles.METHODS)) -> list[Violation]:
    """Where a bound does not hold: the worst entry of the first such node, by method."""
    traced = case.traced()
    graph = _whole(traced)
    points = sampled(graph, case)
    values = values_at(case, traced, points)
    _check_constants(traced, values)
    found = []
    for method in methods:
        bounds = bounded(graph, case, method)
        for ref, (lower, upper) in zip(graph.targets, bounds, strict=True):
            excess = _excess(values[ref], lower, upper)
            if (excess > 0).any():
                place = np.unravel_index(np.argmax(excess), excess.shape)
                entry = (place[0], *place[2:])
                node = graph.nodes[ref.node]
                violation = Violation(
                    method,
                    ref,
                    f"{node.primitive} {ref} at {node.source}",
                    tuple(map(int, entry)),
                    values[ref][place].item(),
                    lower[entry].item(),
                    upper[entry].item(),
                )
                rounded = _rounded(case, traced, violation, bounds, points)
                found.append(dataclasses.replace(violation, rounded=rounded))
                break
    return found


def _check_constants(traced: Graph, values: Mapping[Ref | int, np.ndarray]) -> None:
    """Asserts that what is constant in the graph is so."""
    for number, out in enumerate(traced.outputs):
        if not isinstance(out, Ref):
            limit = np.broadcast_to(out, (len(values[number]), *np.shape(out)))
            outside = (_excess(values[number], limit, limit) > 0) & np.isfinite(values[number])
            assert not outside.any(), f"output {number} is not constantly {out}"


def _rounded(
    case: Case,
    traced: Graph,
    violation: Violation,
    bounds: Sequence[Pair],
    points: Sequence[np.ndarray],
) -> bool:
    """Whether a violation is rounding, and nothing else.

    The true values are those in double precision. They may be outside of the bounds by no more
    than what the values of the program move if everything before them is off by as many units in
    the last place as `oracles.contains` allows, in the graph or, for an output, as it is written.
    In the graph, these are units of the limits of a value, with which bounds are computed. And the
    same must be true of the bounds that are computed in double precision, whose units are smaller.
    """
    crossed = violation.lower if violation.value < violation.lower else violation.upper
    if not np.isfinite(crossed):
        return False
    if not np.isfinite(violation.value) and case.dtype == np.float64:
        return False  # else what overflowed may be a number in double precision
    chosen, *entry = violation.place
    one = slice(chosen, chosen + 1)
    case, points = case.only(chosen), [x[one] for x in points]
    double, precise = case, traced
    if case.dtype != np.float64:
        double = case.within(np.dtype(np.float64))
        precise = double.traced()
        if [n.primitive for n in traced.nodes] != [n.primitive for n in precise.nodes]:
            double, precise = case, traced
    position = _whole(traced).targets.index(violation.ref)
    pairs = zip(double.inputs, points, strict=True)
    points64 = [put_back(batch, x.astype(double.dtype)) for batch, x in pairs]
    truth = values_at(double, precise, points64)[_whole(precise).targets[position]]
    truth = truth[(0, slice(None), *entry)].astype(float)

    def explained(
        traced: Graph, case: Case, bounds: Sequence[Pair], points: Sequence[np.ndarray]
    ) -> bool:
        graph = _whole(traced)
        lower, upper = (float(x[(0, *entry)]) for x in bounds[position])
        sizes = {
            ref: np.fmax(*(np.nan_to_num(np.abs(x[0]), posinf=0) for x in box))
            for ref, box in zip(graph.targets, bounds, strict=True)
            if is_floating(graph.aval(ref))
        }
        outside = np.nanmax(np.maximum(lower - truth, truth - upper))
        if outside <= 0:
            return True
        written = case.written()
        outputs = zip(traced.outputs, written.outputs, strict=True)
        computed = [(written, own) for out, own in outputs if out == graph.targets[position]]
        return any(
            outside <= spread_by_rounding(way, ref, own, (0, *entry), points, case.seed)
            for way, ref, own in [
                (graph, graph.targets[position], sizes),
                *((way, ref, {}) for way, ref in computed if isinstance(ref, Ref)),
            ]
        )

    own = [(lower[one], upper[one]) for lower, upper in bounds]
    if not explained(traced, case, own, points):
        return False
    if double is case:
        return True
    return explained(precise, double, bounded(_whole(precise), double, violation.method), points64)


def spread_by_rounding(
    graph: Graph,
    ref: Ref,
    sizes: Mapping[Ref, np.ndarray],
    place: tuple[int, ...],
    points: Sequence[np.ndarray],
    seed: int,
) -> float:
    """How much one entry of a value moves if all values before it are off a little.

    By units in the last place of what they are themselves, or of `sizes` where that is larger;
    and by what is lost of numbers below the normal ones. What stands for a value counts with its
    own rounding, as in the bounds; a node of several operations with that of each. Where a value is
    used several times, every use is off by itself: linear bounds have a coefficient for each, and
    what they add up to is rounded, though the uses may cancel.
    """
    rng = np.random.default_rng(seed)

    def off(x: np.ndarray, units: int, size: np.ndarray | float = 0.0) -> np.ndarray:
        info, sign = np.finfo(x.dtype), rng.choice([-1, 0, 1], x.shape)
        step = units * float(info.eps) * np.maximum(np.abs(x), size) + float(info.tiny)
        return x + (sign * step).astype(x.dtype)

    chosen, *entry = place
    graph, points = graph.returning([ref]), [x[chosen : chosen + 1] for x in points]
    base = _at(_values(graph), points)[0][(0, slice(None), *entry)]
    with np.errstate(all="ignore"):
        inputs = [off(np.broadcast_to(x, (_TRIALS, *x.shape[1:])), 4) for x in points]
        (found,) = _moved(graph, inputs, sizes, off)
        moved = found[(slice(None), slice(None), *entry)]
        return float(np.nanmax(np.abs(moved.astype(float) - base.astype(float))))


def _moved(
    graph: Graph,
    inputs: Sequence[np.ndarray],
    sizes: Mapping[Ref, np.ndarray],
    off: Callable[..., np.ndarray],
) -> list[np.ndarray]:
    """The outputs of a graph all of whose values are off."""
    values, uses = dict(zip(graph.inputs, inputs, strict=True)), graph.uses

    def rounded(ref: Ref, x: np.ndarray) -> np.ndarray:
        return off(x, oracles.ULPS, sizes.get(ref, 0.0)) if is_floating(x) else x

    for index in graph.live():
        node = graph.nodes[index]
        if node.primitive == INPUT:
            continue
        operands = [rounded(r, values[r]) if uses[r] > 1 else values[r] for r in node.perturbed]
        if node.primitive == "refined":
            results = operands[:1]
        elif steps := _steps(graph, node):
            results = _moved(steps, operands, {}, off)
        else:
            results = _at(node.__call__, operands)
        for k, y in enumerate(results):
            values[Ref(index, k)] = rounded(Ref(index, k), y)
    return [values[ref] for ref in graph.targets]
