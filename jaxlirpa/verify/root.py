"""What is known before the search: bounds on the whole set, and the condensed network."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxlirpa._arrays import matrix
from jaxlirpa._graph.graph import INPUT, Ref
from jaxlirpa._intervals import Interval, vacuous_where_nan
from jaxlirpa._methods.arguments import Arguments
from jaxlirpa._methods.intermediate_boxes import ByIntervals, intermediate_boxes
from jaxlirpa._methods.layerwise import Layerwise
from jaxlirpa._methods.problem import Problem, problem_of
from jaxlirpa._methods.relaxed_graph import RelaxedGraph, nonlinear
from jaxlirpa._methods.solution import enclose
from jaxlirpa._ops.families import Elementwise, Nonlinear, Refined
from jaxlirpa._ops.registry import record
from jaxlirpa._relax.lines import is_straight, relax
from jaxlirpa._types import Array
from jaxlirpa._walk import backward
from jaxlirpa.verify.call import Frame, Values
from jaxlirpa.verify.condensed import Block, Condensed
from jaxlirpa.verify.condensing import Condensing, Entries, Kept
from jaxlirpa.verify.kinds import Kind, kind_of, known_at
from jaxlirpa.verify.properties import Property

# Blocks of neurons are filled up to these sizes, so that networks share what is compiled.
_SIZES = (0, 16, 32, 64, 128, 256, 512, 1024)


Clauses = Sequence[Sequence[int]]
"""The rows of each clause, of which one must be positive."""


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Layer:
    """A nonlinear function of a network.

    Attributes:
        index: its node.
        ref: what it reads.
        kind: what it computes.
    """

    index: int
    ref: Ref
    kind: Kind


class Root(NamedTuple):
    """Bounds on the whole set.

    Attributes:
        margins: of the rows of the specification, `[rows]` each.
        layers: the nonlinear functions, in order; None where some reads several values, so that
            the network cannot be condensed.
        boxes: of their operands, flattened.
        unstable: which entries of each are not straight on their boxes.
    """

    margins: Interval
    layers: tuple[Layer, ...] | None
    boxes: tuple[Interval, ...]
    unstable: tuple[Array, ...]

    def lower(self, clauses: Clauses) -> list[float]:
        """The lower bound of each clause: that of its best alternative."""
        lower = np.asarray(self.margins.lower)
        return [float(max(lower[list(clause)])) for clause in clauses]

    @property
    def size(self) -> float:
        """One more than the margins' largest modulus, in which rounding is measured."""
        size = float(np.max(np.abs(np.asarray(self.margins)), initial=0))
        return 1 + size if np.isfinite(size) else 1


def alike(clauses: Clauses) -> NDArray[np.integer[Any]]:
    """The rows of clauses as one array: a clause with fewer alternatives repeats them."""
    alternatives = max(map(len, clauses))
    return np.array([np.resize(clause, alternatives) for clause in clauses], np.int32)


def traced_problem(prop: Property, call: Arguments) -> Problem:
    """The property's margins as a program, whose rows are not told apart by examples."""
    problem, _ = problem_of(prop.margins, call)
    return problem.as_one_example()


def root_bounds(prop: Property, call: Arguments) -> Root:
    """CROWN's bounds of a property's margins, and of all that nonlinear functions read."""
    problem = traced_problem(prop, call)
    graph = problem.graph
    if not graph.targets:
        (value,) = graph.outputs
        certain = jnp.asarray(value)
        return Root(Interval(certain, certain), (), (), ())
    inside = intermediate_boxes(problem, Layerwise())
    relaxed = inside.relaxed()
    (target,) = graph.targets
    found, by_interval = enclose(problem, relaxed.domain, target).box, inside.boxes[target]
    found, by_interval = vacuous_where_nan(found), vacuous_where_nan(by_interval)
    margins = Interval(
        jnp.maximum(found.lower, by_interval.lower), jnp.minimum(found.upper, by_interval.upper)
    )
    layers = _layers(problem)
    if layers is None:
        return Root(margins, None, (), ())
    boxes = tuple(inside.tight[layer.ref] for layer in layers)
    unstable = []
    for layer, box in zip(layers, boxes, strict=True):
        node = graph.nodes[layer.index]
        found_record = record(node)
        assert isinstance(found_record, Elementwise)
        lines = relax(found_record.relaxation(node), box)
        unstable.append(~is_straight(lines).reshape(-1))
    flat = tuple(Interval(*(limit.reshape(-1) for limit in box)) for box in boxes)
    return Root(margins, layers, flat, tuple(unstable))


def _layers(problem: Problem) -> tuple[Layer, ...] | None:
    """The nonlinear functions, if each is one of one value, entry by entry."""
    graph = problem.graph
    nodes = {i: graph.nodes[i] for i in graph.live() if graph.nodes[i].primitive != INPUT}
    found = {i: record(node) for i, node in nodes.items()}
    others = [
        x for x in found.values() if isinstance(x, Nonlinear) and not isinstance(x, Elementwise)
    ]
    if any(not isinstance(x, Refined) for x in others):
        return None
    return tuple(
        Layer(i, graph.nodes[i].perturbed[0], kind_of(graph.nodes[i])) for i in nonlinear(graph)
    )


def condense(
    prop: Property,
    call: Arguments,
    indices: tuple[int, ...],
    boxes: Sequence[Interval],
    entries: Sequence[Entries],
) -> Condensed:
    """The property's margins, condensed to chosen entries of its nonlinear functions.

    Args:
        prop: the property.
        call: the arguments.
        indices: of the layers that have chosen entries, among all of them.
        boxes: of the operands of all layers, flattened.
        entries: those chosen, of each of these; all others must be straight on their boxes.
    """
    problem = traced_problem(prop, call)
    graph, layers = problem.graph, _layers(problem)
    assert layers is not None
    known: dict[Ref, Interval] = {}
    for layer, box in zip(layers, boxes, strict=True):
        shape = graph.aval(layer.ref).shape
        own = Interval(*(limit.reshape(shape) for limit in box))
        known[layer.ref] = own
    inside = intermediate_boxes(problem, ByIntervals(), known=known)
    relaxed: RelaxedGraph = inside.relaxed()
    chosen = [layers[i] for i in indices]
    by_node = {layer.index: own for layer, own in zip(chosen, entries, strict=True)}
    domain = Condensing(relaxed.domain, by_node)

    def rows(ref: Ref, numbers: Array | None) -> tuple[Array, Array, Interval]:
        functionals = domain.start(ref, numbers)
        reached = backward(graph, domain, functionals, problem.sets.__contains__)
        return _rows(problem, reached, by_node)

    (target,) = graph.targets
    parts = [rows(target, None)]
    parts += [rows(layer.ref, own.numbers) for layer, own in zip(chosen, entries, strict=True)]
    real = [jnp.ones(len(parts[0][0]), bool), *(own.real for own in entries)]
    filled = [_masked(part, mask) for part, mask in zip(parts, real, strict=True)]
    inputs, neurons, low, high = (jnp.concatenate(x) for x in zip(*filled, strict=True))
    limits = [
        [jnp.where(own.real, limit[own.numbers], -1.0) for limit in boxes[i]]
        for i, own in zip(indices, entries, strict=True)
    ]
    dtype = inputs.dtype
    nothing = [jnp.zeros(0, dtype)]
    lower, upper = (jnp.concatenate([*(x[side] for x in limits), *nothing]) for side in (0, 1))
    return Condensed(
        sets=tuple(problem.sets.values()),
        inputs=inputs,
        neurons=neurons,
        offset=Interval(low, high),
        known=tuple(
            known_at(graph.nodes[layer.index], layer.kind, own.numbers)
            for layer, own in zip(chosen, entries, strict=True)
        ),
        box=Interval(lower, upper),
        blocks=tuple(
            Block(layer.kind, len(own.numbers)) for layer, own in zip(chosen, entries, strict=True)
        ),
    )


def _rows(
    problem: Problem, reached: Mapping[Ref, Kept], entries: Mapping[int, Entries]
) -> tuple[Array, Array, Interval]:
    """Coefficients on the inputs and on the chosen entries, and limits of the offset."""
    functionals = [kept.functional for kept in reached.values()]
    count, dtype = len(functionals[0].lower.offset), functionals[0].lower.offset.dtype
    inputs = [
        matrix(reached[ref].functional.lower.coefficients)
        if ref in reached
        else jnp.zeros((count, int(np.prod(own.aval.shape))), dtype)
        for ref, own in problem.sets.items()
    ]
    neurons = []
    for index, own in entries.items():
        parts = [k.coefficients[index] for k in reached.values() if index in k.coefficients]
        nothing = jnp.zeros((count, len(own.numbers)), dtype)
        neurons.append(functools.reduce(jnp.add, parts, nothing))
    sides = [f.loosened() for f in functionals]
    low, high = (functools.reduce(jnp.add, [side[i].offset for side in sides]) for i in (0, 1))
    on_neurons = jnp.concatenate([*neurons, jnp.zeros((count, 0), dtype)], 1)
    return jnp.concatenate(inputs, 1), on_neurons, Interval(low, high)


def _masked(part: tuple[Array, Array, Interval], real: Array) -> tuple[Array, Array, Array, Array]:
    """Rows that only fill up are the constant -1, which is what their boxes say."""
    inputs, neurons, (low, high) = part
    mask = real[:, None]
    return (
        jnp.where(mask, inputs, 0),
        jnp.where(mask, neurons, 0),
        jnp.where(real, low, -1),
        jnp.where(real, high, -1),
    )


# ---- compiled ------------------------------------------------------------------------------


def clauses_of(prop: Property, frame: Frame, values: Values) -> Clauses:
    """The clauses of a property of a call."""
    call = frame.call(values)
    points = call.fill([own.point() for own in call.sets])
    return prop.clauses(prop.sizes(*points, **call.named))


@functools.partial(jax.jit, static_argnums=(0, 1))
def root_of(prop: Property, frame: Frame, values: Values) -> Root:
    """CROWN's bounds of a property's margins and of all neurons."""
    return root_bounds(prop, frame.call(values))


def condensed_at(
    prop: Property, frame: Frame, values: Values, root: Root, chosen: Sequence[NDArray[Any]]
) -> Condensed:
    """The property's margins, condensed to some entries of each layer, filled up to few sizes."""
    indices = tuple(i for i, own in enumerate(chosen) if len(own))
    entries = []
    for i in indices:
        count, size = len(chosen[i]), _filled(len(chosen[i]))
        numbers = np.pad(chosen[i], (0, size - count)).astype(np.int32)
        entries.append(Entries(jnp.asarray(numbers), jnp.arange(size) < count))
    return _condense(prop, frame, values, indices, root.boxes, entries)


def neurons_of(chosen: Sequence[NDArray[Any]]) -> list[tuple[tuple[int, int], bool]]:
    """The layer and the number of every neuron of `condensed_at`, and whether it is one."""
    found: list[tuple[tuple[int, int], bool]] = []
    for i, own in enumerate(chosen):
        found += [((i, int(number)), True) for number in own]
        found += [((-1, -1), False)] * (_filled(len(own)) - len(own))
    return found


def _filled(count: int) -> int:
    """The size of a block of so many neurons."""
    step = _SIZES[-1] // 2
    return next((size for size in _SIZES if size >= count), -(-count // step) * step)


@functools.partial(jax.jit, static_argnums=(0, 1, 3))
def _condense(
    prop: Property,
    frame: Frame,
    values: Values,
    indices: tuple[int, ...],
    boxes: Sequence[Interval],
    entries: Sequence[Entries],
) -> Condensed:
    return condense(prop, frame.call(values), indices, boxes, entries)
