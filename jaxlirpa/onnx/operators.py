"""The operators of ONNX, each as a function of arrays.

An operator gets a `Node` and its operands, None for those that are left out, and returns its
outputs. What depends on shapes alone is computed with NumPy, so that it is known when JAX traces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from jaxlirpa._errors import ArgumentError


class Node(NamedTuple):
    """One application of an operator.

    Attributes:
        name: of the operator.
        attributes: by name.
        opset: the version of the operators that the model is written for.
        outputs: how many there are.
    """

    name: str
    attributes: Mapping[str, Any]
    opset: int
    outputs: int

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, or what it is where it is left out."""
        return self.attributes.get(name, default)

    def refuse(self, what: str) -> ArgumentError:
        """An error that says what is not supported."""
        return ArgumentError(f"ONNX operator {self.name} (opset {self.opset}): {what}")


Operands: TypeAlias = Sequence[Any]
Operator: TypeAlias = Callable[[Node, Operands], Any]

OPERATORS: dict[str, Operator] = {}


def supported() -> list[str]:
    """The names of all operators that models may have."""
    return sorted(OPERATORS)


def operator(*names: str) -> Callable[[Operator], Operator]:
    """Enters a function as the operators of these names."""

    def enter(function: Operator) -> Operator:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return enter


def is_static(*operands: Any) -> bool:
    """Whether all operands are known when JAX traces."""
    return all(x is None or isinstance(x, np.ndarray | np.generic) for x in operands)


def numbers(node: Node, x: Any, what: str) -> list[int]:
    """An operand that must be known as whole numbers.

    Raises:
        ArgumentError: where it depends on the model's inputs or weights.
    """
    if not is_static(x):
        raise node.refuse(f"its {what} must not depend on the inputs")
    return [int(n) for n in np.asarray(x).reshape(-1)]


def given(node: Node, operands: Operands, position: int, name: str) -> list[int] | None:
    """Whole numbers that are an operand since some version, and an attribute before."""
    if len(operands) > position and operands[position] is not None:
        return numbers(node, operands[position], name)
    found = node.get(name)
    return None if found is None else [int(n) for n in np.asarray(found).reshape(-1)]
