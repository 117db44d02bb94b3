"""Functions that are bounded better whole than piece by piece, recognised by structure.

A name left in the trace only proposes: the called body must equal, equation by equation, the
library function's own trace on the same shapes. What a user merely calls `leaky_relu` is
entered and bounded by its parts like any other function.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxlirpa._arrays import is_half
from jaxlirpa._graph.jaxpr import program
from jaxlirpa._graph.programs import Constant, Equation, Program
from jaxlirpa._types import Array


@dataclasses.dataclass(frozen=True)
class LibraryFunction:
    """A library function that is kept whole.

    Attributes:
        function: the library function whose trace is the proof.
        primitive: the record that bounds it.
        operands: from the call's operands to that record's operands.
        evaluate: computes it from the record's operands.
        params: the record's parameters.
        entrywise: whether it is a function of its first operand, entry by entry and of its type;
            the others are parameters then, of the same type.
        kept: whether it is kept whole where the operands at these positions are perturbed; else
            it is entered like any other function.
    """

    function: Callable[..., Array]
    primitive: str
    operands: Callable[..., tuple[Any, ...]]
    evaluate: Callable[..., Array]
    params: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    entrywise: bool = True
    kept: Callable[[Sequence[int]], bool] = lambda positions: True


Vocabulary = Mapping[str, Sequence[LibraryFunction]]


def recognise(
    equation: Equation, perturbed: Sequence[int], vocabulary: Vocabulary
) -> LibraryFunction | None:
    """The library function that `equation` calls, with some operands perturbed, or None."""
    candidates = vocabulary.get(equation.name, ())
    return next((x for x in candidates if x.kept(perturbed) and _calls(equation, x)), None)


def _calls(equation: Equation, named: LibraryFunction) -> bool:
    """Whether an equation calls that function."""
    body = equation.body
    if body is None or (named.entrywise and not _entry_by_entry(equation)):
        return False
    try:
        reference, _ = program(named.function, equation.operand_avals)
    except (TypeError, ValueError):  # called with operands that the library's does not take
        return False
    bodies = [call.body for call in reference.equations]
    return len(bodies) == 1 and bodies[0] is not None and same(bodies[0], body)


def _entry_by_entry(equation: Equation) -> bool:
    """Whether the first operand has the form of the result; a parameter may have a larger one.

    A function of 16 bits rounds at every step, and is entered.
    """
    operand, *_ = equation.operand_avals
    return not is_half(operand) and [(a.shape, a.dtype) for a in equation.avals] == [
        (operand.shape, operand.dtype)
    ]


def same(a: Program, b: Program) -> bool:
    """Whether two programs are the same, line by line."""
    return (
        (a.inputs, len(a.constants), len(a.equations)) == (b.inputs, 0, len(b.equations))
        and not a.constants
        and all(_same_atoms(p, q) for p, q in zip(a.outputs, b.outputs, strict=True))
        and all(_same_equations(p, q) for p, q in zip(a.equations, b.equations, strict=True))
    )


def _same_equations(a: Equation, b: Equation) -> bool:
    if (a.identity, a.outputs, a.avals) != (b.identity, b.outputs, b.avals):
        return False
    if len(a.operands) != len(b.operands):
        return False
    if not all(_same_atoms(p, q) for p, q in zip(a.operands, b.operands, strict=True)):
        return False
    if a.body is not None and b.body is not None:
        return same(a.body, b.body)
    return a.body is b.body and a.params == b.params


def _same_atoms(a: Any, b: Any) -> bool:
    if isinstance(a, Constant) and isinstance(b, Constant):
        return np.array_equal(np.asarray(a.value), np.asarray(b.value), equal_nan=True)
    return type(a) is type(b) and bool(a == b)
