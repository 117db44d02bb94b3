"""Loops and branches, turned into straight lines while a function is traced.

A loop is unrolled, trip by trip, so that every trip has bounds of its own; a branch that is known
to be taken is entered. What no perturbed value reaches is evaluated on the way, as everywhere in
the tracer. Nothing is approximated here: the graph computes what the loop computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from jaxlirpa._errors import ControlFlowError
from jaxlirpa._graph.graph import Node, Ref, Value, is_same
from jaxlirpa._graph.jaxpr import Branches, Equation, Program, Scan, While
from jaxlirpa._typing import Array, PyTree, Shaped

# A loop beyond these is an endless one, or a graph that nobody waits for.
MOST_TRIPS = 2**14
MOST_NODES = 2**16

Number = TypeVar("Number", int, bool)


class Builder(Protocol):
    """The graph while it grows."""

    nodes: list[Node]

    def run(self, code: Program, arguments: Sequence[Value], source: str) -> list[Value]:
        """Appends a program's nodes."""

    def definition(self, value: Value) -> Node | None:
        """The node that computes a perturbed value."""

    def aval(self, value: Value) -> Shaped:
        """Shape and dtype of a value."""

    def apply(self, fn: Callable[..., PyTree], source: str, *values: Value) -> list[Value]:
        """Appends a function's nodes."""


def enter(
    builder: Builder,
    equation: Equation,
    control: Scan | While | Branches,
    operands: Sequence[Value],
    source: str,
) -> list[Value]:
    """The values of a loop's or branch's outputs, at least one of whose operands is perturbed.

    Raises:
        ControlFlowError: where the number of trips is too large, or not known.
    """
    if isinstance(control, Scan):
        return _scan(builder, equation, control, operands, source)
    if isinstance(control, While):
        return _while(builder, control, operands, source)
    return _branch(builder, equation, control, operands, source)


# ---- loops ---------------------------------------------------------------------------------


def _scan(
    builder: Builder, equation: Equation, loop: Scan, operands: Sequence[Value], source: str
) -> list[Value]:
    first, start = loop.constants, loop.constants + loop.carries
    constants, carries = operands[:first], list(operands[first:start])
    slices = [_slices(builder, x, loop.length, source) for x in operands[start:]]
    written: list[list[Value]] = [[] for _ in equation.avals[loop.carries :]]
    before = len(builder.nodes)
    for t in reversed(range(loop.length)) if loop.reverse else range(loop.length):
        _check_length(builder, "scan", loop.length, before, source)
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


def _while(builder: Builder, loop: While, operands: Sequence[Value], source: str) -> list[Value]:
    first, start = loop.condition_constants, loop.condition_constants + loop.body_constants
    carries = list(operands[start:])
    trips, before = 0, len(builder.nodes)
    while True:
        going = _condition(builder, loop, [*operands[:first], *carries], source)
        some, every = _truths(builder, going, source)
        if not some:
            return carries
        trips += 1
        _check_length(builder, "while", trips, before, source)
        results = builder.run(loop.body, [*operands[first:start], *carries], source)
        if not every:
            pairs = zip(carries, results, strict=True)
            results = [_advance(builder, going, *pair, source) for pair in pairs]
        carries = results


def _condition(builder: Builder, loop: While, arguments: Sequence[Value], source: str) -> Array:
    """The condition on the values of the carries: a scalar or, of a mapped loop, one an example."""
    (condition,) = builder.run(loop.condition, arguments, source)
    if isinstance(condition, Ref):
        raise ControlFlowError(
            f"the number of trips of the loop at {source} depends on a perturbed value, so it is "
            "not known. Loop a fixed number of times: `jax.lax.fori_loop` or `jax.lax.scan`, or "
            "a `while_loop` whose condition reads only what is not perturbed."
        )
    return condition


def _truths(builder: Builder, condition: Array, source: str) -> tuple[bool, bool]:
    """Whether a condition holds for some example, and whether for every one."""
    reduced: Sequence[Value] = (condition, condition)
    if condition.ndim:
        reduced = builder.apply(lambda x: (jnp.any(x), jnp.all(x)), source, condition)
    some, every = (_concrete(bool, x) for x in reduced)
    if some is None or every is None:
        raise ControlFlowError(
            f"the number of trips of the loop at {source} must be concrete, because the loop is "
            "unrolled, but it depends on a value that an outer `jax.jit`, `jax.vmap` or other "
            "transformation traces. Make that value a Python number (in `jax.jit`: "
            "`static_argnums`), or bound the function outside of the transformation."
        )
    return some, every


def _advance(builder: Builder, going: Array, old: Value, new: Value, source: str) -> Value:
    """The carry of a mapped loop, whose leading axes number the examples: some have ended."""
    if is_same(old, new):
        return old

    def advance(going: Array, old: Array, new: Array) -> Array:
        mask = lax.broadcast_in_dim(going, old.shape, range(going.ndim))
        return lax.select_n(mask, old, new)

    return builder.apply(advance, source, going, old, new)[0]


def _check_length(builder: Builder, name: str, trips: int, before: int, source: str) -> None:
    """Refuses a loop of too many trips, or that has appended too many nodes to those before."""
    if trips > MOST_TRIPS or len(builder.nodes) - before > MOST_NODES:
        raise ControlFlowError(
            f"the `{name}` at {source} is too long to be unrolled: the limits are {MOST_TRIPS} "
            f"trips and {MOST_NODES} operations on perturbed values. Shorten it, or compute what "
            "is not perturbed in a loop of its own."
        )


def _slices(builder: Builder, sequence: Value, length: int, source: str) -> list[Value]:
    """What each trip reads of a sequence."""
    if length == 0:
        return []

    def pieces(x: Array) -> list[Array]:
        return [lax.squeeze(piece, (0,)) for piece in lax.split(x, (1,) * length)]

    return builder.apply(pieces, source, sequence)


def _stack(builder: Builder, pieces: Sequence[Value], aval: Shaped, source: str) -> Value:
    """What all trips wrote of a sequence."""
    if not pieces:
        return jnp.zeros(aval.shape, aval.dtype)

    def stack(*arrays: Array) -> Array:
        return lax.concatenate([lax.expand_dims(x, (0,)) for x in arrays], 0)

    return builder.apply(stack, source, *pieces)[0]


# ---- branches ------------------------------------------------------------------------------


def _branch(
    builder: Builder, equation: Equation, control: Branches, operands: Sequence[Value], source: str
) -> list[Value]:
    """The branch that is taken or, where that is not known here, a selection among all."""
    index, *arguments = operands  # jax.lax.switch has clamped the index to the range
    taken = None if isinstance(index, Ref) else _concrete(int, index)
    if taken is not None:
        return builder.run(control.programs[taken], arguments, source)
    results = [builder.run(code, arguments, source) for code in control.programs]
    which = _selector(builder, index, len(results), source)
    return [_select(builder, which, cases, source) for cases in zip(*results, strict=True)]


def _selector(builder: Builder, index: Value, count: int, source: str) -> Value:
    """What selects among so many branches: of two, the truth value that the index came from."""
    if count != 2:
        return index
    node = builder.definition(index)
    if node is not None and "new_dtype" in node.params:  # a conversion, or what a rule made of it
        (truth,) = node.operands
        if builder.aval(truth).dtype == bool:
            return truth
    return builder.apply(lambda i: i != 0, source, index)[0]


def _select(builder: Builder, which: Value, cases: Sequence[Value], source: str) -> Value:
    if all(is_same(x, cases[0]) for x in cases):
        return cases[0]
    return builder.apply(lax.select_n, source, which, *cases)[0]


def _concrete(kind: type[Number], value: Any) -> Number | None:
    """The number that a known scalar is, or None where an outer transformation traces it."""
    try:
        return kind(value)
    except jax.errors.ConcretizationTypeError:
        return None
