"""Programs as plain data: what `jaxpr.py` reads from JAX, and all that the tracer sees of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from jaxlirpa._graph.source import Source
from jaxlirpa._types import Array, Shaped


class Variable(NamedTuple):
    """A value of the program, by its number."""

    number: int


class Constant(NamedTuple):
    """A value written into the program."""

    value: Any


@dataclasses.dataclass(frozen=True)
class Scan:
    """A loop of a fixed number of trips.

    Attributes:
        body: from constants, carries and one slice of each sequence to carries and slices.
        constants, carries: how many of the body's operands are which; the rest are slices.
        length: the number of trips.
        reverse: whether sequences are read and written from their ends.
        unrolled: whether the user wants all trips to be written out.
    """

    body: Program
    constants: int
    carries: int
    length: int
    reverse: bool
    unrolled: bool

    @property
    def programs(self) -> tuple[Program, ...]:
        """The programs inside."""
        return (self.body,)


@dataclasses.dataclass(frozen=True)
class While:
    """A loop for as long as a condition holds.

    Attributes:
        condition, body: functions of constants of their own and of the carries.
        condition_constants, body_constants: how many of the loop's operands are which; the
            carries come last.
    """

    condition: Program
    body: Program
    condition_constants: int
    body_constants: int

    @property
    def programs(self) -> tuple[Program, ...]:
        """The programs inside."""
        return (self.condition, self.body)


@dataclasses.dataclass(frozen=True)
class Branches:
    """One of several functions of the same operands; the first operand says which."""

    programs: tuple[Program, ...]


Places: TypeAlias = tuple[tuple[int, tuple[str, ...]], ...]
"""The axes of an array that is in parts, each with those of the mesh that number the parts."""


@dataclasses.dataclass(frozen=True)
class Sharded:
    """A function of the parts of arrays that the devices of a mesh have.

    Attributes:
        body: what every device computes.
        mesh: how many devices there are along each axis.
        inputs, outputs: where the parts of every operand and output are.
        checked: whether JAX has proved that copies are the same.
    """

    body: Program
    mesh: Mapping[str, int]
    inputs: tuple[Places, ...]
    outputs: tuple[Places, ...]
    checked: bool

    @property
    def programs(self) -> tuple[Program, ...]:
        """The programs inside."""
        return (self.body,)


@dataclasses.dataclass(frozen=True)
class Equation:
    """One line of a program.

    Attributes:
        primitive: the primitive's name.
        identity: the primitive itself, which tells it from others of its name.
        operands, outputs: what it reads and writes.
        operand_avals, avals: shape and dtype of each operand and of each output.
        params: static parameters.
        body: the called function, for calls.
        read: the positions of the operands that it takes.
        control: the loop or branch, for those.
        name: the called function's own name, for calls.
        bind: evaluates the equation, as a tuple of outputs.
        effects: names of its side effects.
        collective: whether it depends on the device, or on what others have.
        elsewhere: whether it was traced for a mesh that is not around the program, and so cannot
            be evaluated if there is a program inside.
        source: the user's line, and the scopes within the program.
        unknown: why nobody knows what it computes, whatever the primitive's name; else empty.
    """

    primitive: str
    identity: Any
    operands: tuple[Variable | Constant, ...]
    outputs: tuple[Variable, ...]
    operand_avals: tuple[Shaped, ...]
    avals: tuple[Shaped, ...]
    params: Mapping[str, Any]
    body: Program | None
    read: tuple[int, ...]
    control: Scan | While | Branches | Sharded | None
    name: str
    bind: Callable[..., tuple[Array, ...]]
    effects: tuple[str, ...]
    collective: bool
    elsewhere: bool
    source: Source
    unknown: str

    @property
    def programs(self) -> tuple[Program, ...]:
        """The programs inside: of a call, a loop or a branch."""
        if self.control is not None:
            return self.control.programs
        return () if self.body is None else (self.body,)


@dataclasses.dataclass(frozen=True)
class Program:
    """A straight line of equations."""

    inputs: tuple[Variable, ...]
    constants: tuple[tuple[Variable, Any], ...]
    equations: tuple[Equation, ...]
    outputs: tuple[Variable | Constant, ...]

    def anonymous(self) -> Program:
        """The same program, calls included, as if it were written where it is called."""
        lines = (
            dataclasses.replace(
                e, source=Source(), body=None if e.body is None else e.body.anonymous()
            )
            for e in self.equations
        )
        return dataclasses.replace(self, equations=tuple(lines))
