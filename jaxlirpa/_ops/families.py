"""The families that primitives fall into: all that a domain must know."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax.numpy as jnp

from jaxlirpa._graph.graph import Graph, Node, Ref, Value
from jaxlirpa._intervals import Interval
from jaxlirpa._relax.lines import Relaxation
from jaxlirpa._relax.planes import JointRelaxation, Plane
from jaxlirpa._types import Array


def _none(graph: Graph, node: Node) -> None:
    del graph, node


AxisRule: TypeAlias = Callable[[Graph, Node, int, int], int | None]
"""Follows an axis through a node: from the position of an operand and one of its axes to the axis
of every output whose places depend, as far as this operand goes, on the same places alone; None
where no axis is known to."""


def no_axis(graph: Graph, node: Node, position: int, axis: int) -> None:
    """No axis is known."""
    del graph, node, position, axis


def operand_boxes(operands: Sequence[Value], boxes: Sequence[Interval]) -> list[Interval]:
    """The boxes of all operands from those of the perturbed ones; what is known is a point."""
    supply = iter(boxes)
    return [
        next(supply) if isinstance(x, Ref) else Interval(jnp.asarray(x), jnp.asarray(x))
        for x in operands
    ]


@dataclasses.dataclass(frozen=True)
class Family:
    """What all records share.

    Attributes:
        operands: positions that may be perturbed; None for all.
        together: whether several of them may be perturbed at once.
        objection: why a node cannot be bounded although its operands can, or None.
    """

    operands: Sequence[int] | None = dataclasses.field(default=None, kw_only=True)
    together: bool = dataclasses.field(default=True, kw_only=True)
    objection: Callable[[Graph, Node], str | None] = dataclasses.field(default=_none, kw_only=True)


@dataclasses.dataclass(frozen=True)
class Move(Family):
    """Every entry of the output is one entry of an operand.

    Attributes:
        repeats: whether an entry may appear more than once.
        along: follows an axis.
    """

    repeats: bool = False
    along: AxisRule = no_axis


@dataclasses.dataclass(frozen=True)
class Affine(Family):
    """An affine function that is monotone in each operand.

    Attributes:
        signs: +1 where it increases and -1 where it decreases, by operand.
        mixes: whether an entry of the output depends on several entries of one operand.
        along: follows an axis, if it does.
    """

    signs: tuple[int, ...]
    mixes: bool
    along: AxisRule = no_axis


@dataclasses.dataclass(frozen=True)
class Bilinear(Family):
    """Linear in each of two operands; affine where just one of them is perturbed.

    Attributes:
        mixes: whether an entry of the output is a sum of several products.
        along: follows an axis, if it is.
    """

    mixes: bool
    along: AxisRule = no_axis


@dataclasses.dataclass(frozen=True)
class Elementwise(Family):
    """A function of one perturbed operand, entry by entry.

    Attributes:
        relaxation: from the node, whose other operands are parameters.
        beside_box: another one for domains that carry a box beside their lines; there a constant
            line says nothing new, and a slanted one more.
        defined: whether the whole box of the perturbed operand lies where the function is defined;
            None for a function that is defined everywhere.
        domain: what `defined` asks for, in words.
    """

    relaxation: Callable[[Node], Relaxation]
    beside_box: Callable[[Node], Relaxation] | None = None
    defined: Callable[[Node, Interval], Array] | None = None
    domain: str = ""


@dataclasses.dataclass(frozen=True)
class Joint(Family):
    """A nonlinear function of several operands, or of several entries of each.

    Attributes:
        relaxation: from the node.
        axes: the axes of the operands over which an entry of the output reads them; without these
            axes, their shapes broadcast to that of the output.
        merged: a plane, with its slopes on operands that are linear functions of the others moved
            to these; None where there are no such operands. Where the plane lies is computed
            before, from operands that need not cancel.
    """

    relaxation: Callable[[Node], JointRelaxation]
    axes: Callable[[Node], tuple[int, ...]] = lambda node: ()
    merged: Callable[[Plane], Plane] | None = None


@dataclasses.dataclass(frozen=True)
class Opaque(Family):
    """A function of which only the range over a box is known.

    Attributes:
        image: boxes of the outputs from the node and the boxes of its perturbed operands.
    """

    image: Callable[[Node, Sequence[Interval]], tuple[Interval, ...]]


@dataclasses.dataclass(frozen=True)
class Refined(Family):
    """The first operand, which is known to be the value of a function of the others as well.

    Attributes:
        image: the range of that function, from the node and the boxes of the others. Where the
            node has the parameter `exact`, every entry attains its limits while the sets that the
            first operand is an affine function of range over their members.
    """

    image: Callable[[Node, Sequence[Interval]], Interval]


def is_exact(node: Node) -> bool:
    """Whether a node knows the exact limits of a value that is affine in the sets."""
    return node.primitive == "refined" and "exact" in node.params


@dataclasses.dataclass(frozen=True)
class LoopFamily(Family):
    """A loop, the node's parameter `loop`, of which only the range over a box is known."""


Record = Move | Affine | Bilinear | Elementwise | Joint | Opaque | Refined | LoopFamily
Nonlinear = Elementwise | Joint | Opaque | Refined | LoopFamily
