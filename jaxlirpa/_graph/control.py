"""Loops, branches and shards, turned into straight lines while a function is traced.

A loop is unrolled, trip by trip, so that every trip has bounds of its own; one that is too long
for that becomes one node (`loops.py`). A branch that is known to be taken is entered. What no
perturbed value reaches is evaluated on the way, as everywhere in the tracer. Nothing is
approximated here: the graph computes what the loop computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from jaxlirpa._errors import ControlFlowError
from jaxlirpa._graph import loops
from jaxlirpa._graph.graph import Graph, Node, Ref, Value, is_same
from jaxlirpa._graph.loops import unknown_trips, whole
from jaxlirpa._graph.programs import Branches, Equation, Scan, Sharded, While
from jaxlirpa._graph.shards import on_all_devices
from jaxlirpa._graph.source import Source
from jaxlirpa._types import Array, PyTree, Shaped

# A loop of more trips is kept whole: to compile a graph takes time with the square of its length.
MOST_TRIPS = 256
# Beyond these a loop is a graph that nobody waits for.
MOST_NODES = 2**16

Number = TypeVar("Number", int, bool)


class Builder(loops.Builder, Protocol):
    """The graph while it grows."""

    def definition(self, value: Value) -> Node | None:
        """The node that computes a perturbed value."""

    def aval(self, value: Value) -> Shaped:
        """Shape and dtype of a value."""

    def apply(self, fn: Callable[..., PyTree], source: Source, *values: Value) -> list[Value]:
        """Appends a function's nodes."""

    def step(
        self, equation: Equation, operands: tuple[Value, ...], source: Source
    ) -> Sequence[Value]:
        """The values of one equation's outputs."""

    def append(
        self,
        primitive: str,
        operands: tuple[Value, ...],
        params: Any,
        bind: Callable[..., tuple[Array, ...]],
        avals: tuple[Shaped, ...],
        source: Source,
    ) -> list[Value]:
        """Appends a node."""

    def forget(self, since: int) -> None:
        """Removes the nodes from a number on."""

    def empty(self) -> Builder:
        """Another one, of the same kind, without nodes."""


def enter(
    builder: Builder,
    equation: Equation,
    control: Scan | While | Branches | Sharded,
    operands: Sequence[Value],
    source: Source,
) -> list[Value]:
    """The values of a loop's or branch's outputs, at least one of whose operands is perturbed.

    Raises:
        ControlFlowError: where the number of trips depends on a perturbed value, or the loop has
            too many operations to be unrolled.
    """
    if isinstance(control, Scan):
        return _scan(builder, equation, control, operands, source)
    if isinstance(control, While):
        return _while(builder, equation, control, operands, source)
    if isinstance(control, Sharded):
        return on_all_devices(builder, control, operands, source)
    return _branch(builder, equation, control, operands, source)


# ---- loops ---------------------------------------------------------------------------------


def _scan(
    builder: Builder, equation: Equation, loop: Scan, operands: Sequence[Value], source: Source
) -> list[Value]:
    if loop.length > MOST_TRIPS and not loop.unrolled:
        return _whole(builder, equation, loop, operands, source)
    first, start = loop.constants, loop.constants + loop.carries
    constants, carries = operands[:first], list(operands[first:start])
    slices = [_slices(builder, x, loop.length, source) for x in operands[start:]]
    written: list[list[Value]] = [[] for _ in equation.avals[loop.carries :]]
    before = len(builder.nodes)
    for t in reversed(range(loop.length)) if loop.reverse else range(loop.length):
        _check_length(builder, "scan", before, source)
        arguments = [*constants, *carries, *(pieces[t] for pieces in slices)]
        results = builder.run(loop.body, arguments, source)
        carries = results[: loop.carries]
        for pieces, piece in zip(written, results[loop.carries :], strict=True):
            pieces.append(piece)
    stacked = [
        _stack(builder, pieces[::-1] if loop.reverse else pieces, aval, source)
        for pieces, aval in zip(written, equation.avals[loop.carries :], strict=True)
    ]
    return [*carries, *stacked]


def _while(
    builder: Builder, equation: Equation, loop: While, operands: Sequence[Value], source: Source
) -> list[Value]:
    first, start = loop.condition_constants, loop.condition_constants + loop.body_constants
    carries = list(operands[start:])
    before = len(builder.nodes)
    for _ in range(MOST_TRIPS + 1):
        going = _condition(builder, loop, [*operands[:first], *carries], source)
        some, every = _truths(builder, going, source)
        if some is None:
            break
        if not some:
            return carries
        _check_length(builder, "while", before, source)
        results = builder.run(loop.body, [*operands[first:start], *carries], source)
        if not every:
            pairs = zip(carries, results, strict=True)
            results = [_advance(builder, going, *pair, source) for pair in pairs]
        carries = results
    builder.forget(before)
    return _whole(builder, equation, loop, operands, source)


def _whole(
    builder: Builder,
    equation: Equation,
    control: Scan | While,
    operands: Sequence[Value],
    source: Source,
) -> list[Value]:
    """A loop as one node; its outputs that are not perturbed are computed."""
    loop, reached = whole(control, operands, equation.operand_avals, builder.empty, source)
    results: list[Any] = [None] * len(reached)
    if not all(reached):
        known = [None if unknown else x for x, unknown in zip(operands, loop.unknown, strict=True)]
        results = loop.run(known, _known_outputs, lambda x: None)

    def bind(*values: Array) -> tuple[Array, ...]:
        pairs = zip(equation.bind(*values), reached, strict=True)
        return tuple(x for x, unknown in pairs if unknown)

    avals = tuple(x for x, unknown in zip(equation.avals, reached, strict=True) if unknown)
    found = iter(builder.append("loop", tuple(operands), {"loop": loop}, bind, avals, source))
    return [next(found) if unknown else x for x, unknown in zip(results, reached, strict=True)]


def _known_outputs(graph: Graph, states: Sequence[Any]) -> list[Any]:
    del states
    return [None if isinstance(x, Ref) else x for x in graph.outputs]


def _condition(builder: Builder, loop: While, arguments: Sequence[Value], source: Source) -> Array:
    """The condition on the values of the carries: a scalar or, of a mapped loop, one an example."""
    (condition,) = builder.run(loop.condition, arguments, source)
    if isinstance(condition, Ref):
        raise unknown_trips(source)
    return condition


def _truths(
    builder: Builder, condition: Array, source: Source
) -> tuple[bool, bool] | tuple[None, None]:
    """Whether a condition holds for some example, and whether for every one.

    None where an outer transformation of JAX traces it.
    """
    reduced: Sequence[Value] = (condition, condition)
    if condition.ndim:
        reduced = builder.apply(lambda x: (jnp.any(x), jnp.all(x)), source, condition)
    some, every = (_concrete(bool, x) for x in reduced)
    return (None, None) if some is None or every is None else (some, every)


def _advance(builder: Builder, going: Array, old: Value, new: Value, source: Source) -> Value:
    """The carry of a mapped loop, whose leading axes number the examples: some have ended."""
    if is_same(old, new):
        return old

    def advance(going: Array, old: Array, new: Array) -> Array:
        mask = lax.broadcast_in_dim(going, old.shape, range(going.ndim))
        return lax.select_n(mask, old, new)

    return builder.apply(advance, source, going, old, new)[0]


def _check_length(builder: Builder, name: str, before: int, source: Source) -> None:
    """Refuses a loop that has appended too many nodes to those before."""
    if len(builder.nodes) - before > MOST_NODES:
        raise ControlFlowError(
            f"the `{name}` at {source} is too long to be unrolled: the limit is {MOST_NODES} "
            "operations on perturbed values. Shorten it, or compute what is not perturbed in a "
            "loop of its own."
        )


def _slices(builder: Builder, sequence: Value, length: int, source: Source) -> list[Value]:
    """What each trip reads of a sequence."""
    if length == 0:
        return []

    def pieces(x: Array) -> list[Array]:
        return [lax.squeeze(piece, (0,)) for piece in lax.split(x, (1,) * length)]

    return builder.apply(pieces, source, sequence)


def _stack(builder: Builder, pieces: Sequence[Value], aval: Shaped, source: Source) -> Value:
    """What all trips wrote of a sequence."""
    if not pieces:
        return jnp.zeros(aval.shape, aval.dtype)

    def stack(*arrays: Array) -> Array:
        return lax.concatenate([lax.expand_dims(x, (0,)) for x in arrays], 0)

    return builder.apply(stack, source, *pieces)[0]


# ---- branches ------------------------------------------------------------------------------


def _branch(
    builder: Builder,
    equation: Equation,
    control: Branches,
    operands: Sequence[Value],
    source: Source,
) -> list[Value]:
    """The branch that is taken or, where that is not known here, a selection among all."""
    index, *arguments = operands  # jax.lax.switch has clamped the index to the range
    taken = None if isinstance(index, Ref) else _concrete(int, index)
    if taken is not None:
        return builder.run(control.programs[taken], arguments, source)
    results = [builder.run(code, arguments, source) for code in control.programs]
    which = _selector(builder, index, len(results), source)
    return [_select(builder, which, cases, source) for cases in zip(*results, strict=True)]


def _selector(builder: Builder, index: Value, count: int, source: Source) -> Value:
    """What selects among so many branches: of two, the truth value that the index came from."""
    if count != 2:
        return index
    node = builder.definition(index)
    if node is not None and "new_dtype" in node.params:  # a conversion, or what a rule made of it
        (truth,) = node.operands
        if builder.aval(truth).dtype == bool:
            return truth
    return builder.apply(lambda i: i != 0, source, index)[0]


def _select(builder: Builder, which: Value, cases: Sequence[Value], source: Source) -> Value:
    if all(is_same(x, cases[0]) for x in cases):
        return cases[0]
    return builder.apply(lax.select_n, source, which, *cases)[0]


def _concrete(kind: type[Number], value: Any) -> Number | None:
    """The number that a known scalar is, or None where an outer transformation traces it."""
    try:
        return kind(value)
    except jax.errors.ConcretizationTypeError:
        return None
