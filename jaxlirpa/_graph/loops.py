"""Loops that are kept as one node: a domain bounds their trips in a loop of its own.

What is perturbed in some trip is taken for perturbed in all of them. What is not, a counter say, is
computed beside the states of the domain, so that each trip knows it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from jaxlirpa._errors import ControlFlowError
from jaxlirpa._graph.graph import Graph, Node, Ref, Value
from jaxlirpa._graph.programs import Program, Scan, While
from jaxlirpa._graph.source import Source
from jaxlirpa._mesh import shaped, vary, varying
from jaxlirpa._types import Array, PyTree, Shaped

State: TypeAlias = PyTree
"""What is known of a perturbed value, as arrays; or a known array."""


class Builder(Protocol):
    """A graph while it grows."""

    nodes: list[Node]

    def input(self, aval: Shaped) -> Ref:
        """Appends an input."""

    def run(self, code: Program, arguments: Sequence[Value], source: Source) -> list[Value]:
        """Appends a program's nodes."""


@dataclasses.dataclass(frozen=True, eq=False)
class Loop:
    """A loop, some of whose operands are perturbed.

    Attributes:
        control: what it does.
        inputs: shape and dtype of each operand of the body.
        perturbed: which of these are perturbed in some trip.
        builder: makes an empty graph.
        source: the user's line.
    """

    control: Scan | While
    inputs: tuple[Shaped, ...]
    perturbed: tuple[bool, ...]
    builder: Callable[[], Builder]
    source: Source

    @property
    def first(self) -> int:
        """The loop's first operand that the body reads; those before are the condition's."""
        return self.control.condition_constants if isinstance(self.control, While) else 0

    @property
    def unknown(self) -> tuple[bool, ...]:
        """Which operands of the loop are perturbed; those of the condition alone never are."""
        return (*[False] * self.first, *self.perturbed)

    @property
    def carried(self) -> slice:
        """The operands of the body that are carries."""
        loop = self.control
        if isinstance(loop, Scan):
            return slice(loop.constants, loop.constants + loop.carries)
        return slice(loop.body_constants, len(self.inputs))

    def trip(self, arguments: Sequence[State]) -> Graph:
        """What one trip computes of its perturbed operands; the states of those are not read."""
        return self._graph(self.control.body, arguments, slice(None))

    def _graph(self, code: Program, arguments: Sequence[State], where: slice) -> Graph:
        builder = self.builder()
        known = arguments[: len(arguments) - len(self.inputs[where])]
        described = zip(
            arguments[len(known) :], self.inputs[where], self.perturbed[where], strict=True
        )
        values = [builder.input(aval) if unknown else x for x, aval, unknown in described]
        outputs = builder.run(code, [*known, *values], self.source)
        return Graph(tuple(builder.nodes), tuple(outputs))

    def run(
        self,
        operands: Sequence[State],
        outputs: Callable[[Graph, Sequence[State]], Sequence[State]],
        point: Callable[[Array], State],
    ) -> list[State]:
        """The states of the outputs.

        Args:
            operands: states of all operands, known arrays where they are not perturbed.
            outputs: the states of a graph's outputs, from those of its inputs.
            point: the state of a known array.
        """
        carried = self.carried

        def step(arguments: Sequence[State]) -> list[State]:
            """The carries, and what a scan writes."""
            graph = self.trip(arguments)
            pairs = zip(arguments, self.perturbed, strict=True)
            results = list(outputs(graph, [x for x, unknown in pairs if unknown]))
            for k, unknown in enumerate(self.perturbed[carried]):
                if unknown and not isinstance(graph.outputs[k], Ref):
                    results[k] = point(results[k])
                results[k] = self._typed(results[k], self.inputs[carried][k])
            return results

        body = operands[self.first :]
        start = list(map(self._typed, body[carried], self.inputs[carried]))
        if isinstance(self.control, While):
            return self._while(operands[: self.first], list(body[: carried.start]), start, step)

        def scanned(carries: list[State], slices: list[State]) -> tuple[list[State], list[State]]:
            results = step([*body[: carried.start], *carries, *slices])
            return results[: len(carries)], results[len(carries) :]

        loop = self.control
        ended, written = lax.scan(
            scanned, start, list(body[carried.stop :]), loop.length, loop.reverse
        )
        return [*ended, *written]

    def _while(
        self,
        condition: Sequence[Array],
        constants: list[State],
        start: list[State],
        step: Callable[[Sequence[State]], list[State]],
    ) -> list[State]:
        """Of a mapped loop, some of whose examples may have ended, those keep their carries."""

        def going(carries: Sequence[State]) -> Array:
            return self.going([*condition, *carries])

        def advance(carries: list[State]) -> list[State]:
            holds = going(carries)

            def keep(old: Array, new: Array) -> Array:
                mask = lax.broadcast_in_dim(holds, old.shape, range(holds.ndim))
                return lax.select_n(mask, old, new)

            return jax.tree.map(keep, carries, step([*constants, *carries]))

        return lax.while_loop(lambda carries: jnp.any(going(carries)), advance, start)

    def going(self, arguments: Sequence[State]) -> Array:
        """The condition of a `while` on its constants and the carries.

        Raises:
            ControlFlowError: where it reads a perturbed value.
        """
        assert isinstance(self.control, While)
        (holds,) = self._graph(self.control.condition, arguments, self.carried).outputs
        if isinstance(holds, Ref):
            raise unknown_trips(self.source)
        return holds

    @staticmethod
    def _typed(state: State, aval: Shaped) -> State:
        """A state whose arrays have the type that they have in every trip."""
        axes = varying(aval)
        return jax.tree.map(lambda x: vary(lax.convert_element_type(x, aval.dtype), axes), state)


def unknown_trips(source: Source) -> ControlFlowError:
    """The refusal of a loop that ends when a perturbed value says so."""
    return ControlFlowError(
        f"the number of trips of the loop at {source} depends on a perturbed value, so it is "
        "not known. Loop a fixed number of times: `jax.lax.fori_loop` or `jax.lax.scan`, or "
        "a `while_loop` whose condition reads only what is not perturbed."
    )


def whole(
    control: Scan | While,
    operands: Sequence[Value],
    avals: Sequence[Shaped],
    builder: Callable[[], Builder],
    source: Source,
) -> tuple[Loop, list[bool]]:
    """A loop as it is, and which of its outputs are perturbed.

    Args:
        control: what it does.
        operands: its operands.
        avals: their shapes and dtypes.
        builder: makes an empty graph.
        source: the user's line.
    """
    first = control.condition_constants if isinstance(control, While) else 0
    inputs = list(avals[first:])
    if isinstance(control, Scan):
        start = control.constants + control.carries
        inputs[start:] = [shaped(x.shape[1:], x.dtype, varying(x)) for x in inputs[start:]]
    perturbed = [isinstance(x, Ref) for x in operands[first:]]
    while True:
        loop = Loop(control, tuple(inputs), tuple(perturbed), builder, source)
        carried = loop.carried
        reached = _reached(loop, operands)
        carries = len(perturbed[carried])
        grown = [a or b for a, b in zip(perturbed[carried], reached[:carries], strict=True)]
        if grown == perturbed[carried]:
            return loop, [*grown, *reached[carries:]]
        perturbed[carried] = grown


def _reached(loop: Loop, operands: Sequence[Value]) -> list[bool]:
    """Which outputs of one trip depend on its perturbed operands."""
    start = loop.carried.start
    condition, constants = operands[: loop.first], operands[loop.first : loop.first + start]
    found: list[bool] = []

    def observe(*varying: Array) -> None:
        if isinstance(loop.control, While):
            if any(isinstance(x, Ref) for x in condition):
                raise unknown_trips(loop.source)
            loop.going([*condition, *varying])
        found.extend(isinstance(x, Ref) for x in loop.trip([*constants, *varying]).outputs)

    jax.eval_shape(observe, *loop.inputs[start:])
    return found
