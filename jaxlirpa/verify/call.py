"""A call split into what is compiled in and what is handed over to compiled programs."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxlirpa._methods.arguments import Arguments
from jaxlirpa.sets import ArraySet


@dataclasses.dataclass(frozen=True)
class Frame:
    """What of a call a program is compiled for.

    Attributes:
        structure, slots, names: see `Arguments`.
        fixed: leaves that are no arrays, by position.
        count: of all leaves.
    """

    structure: Any
    slots: tuple[tuple[int, Any], ...]
    names: tuple[str, ...]
    fixed: tuple[tuple[int, Any], ...]
    count: int

    def call(self, values: Values) -> Arguments:
        """The arguments."""
        leaves: list[Any] = [None] * self.count
        for position, leaf in (*self.fixed, *values.arrays.items()):
            leaves[position] = leaf
        return Arguments(tuple(leaves), self.slots, values.sets, self.structure, self.names)


class Values(NamedTuple):
    """What of a call a compiled program is called with.

    Attributes:
        arrays: the known leaves that are arrays, by position.
        sets: of the others.
    """

    arrays: dict[int, Any]
    sets: tuple[ArraySet, ...]

    def in_double_precision(self) -> Values:
        """The same numbers in double precision; to be called where JAX has that enabled."""
        arrays = {i: _double(x) for i, x in self.arrays.items()}
        return Values(arrays, tuple(jax.tree.map(_double, own) for own in self.sets))


def _double(x: Any) -> Any:
    array = np.asarray(x)
    return array.astype(np.float64) if np.issubdtype(array.dtype, np.floating) else x


def parted(call: Arguments) -> tuple[Frame, Values]:
    """A call's frame and values."""
    known = {i: x for i, x in enumerate(call.leaves) if x is not None}
    arrays = {i: x for i, x in known.items() if isinstance(x, np.ndarray | jax.Array | np.generic)}
    fixed = tuple((i, x) for i, x in known.items() if i not in arrays)
    frame = Frame(call.structure, call.slots, call.names, fixed, len(call.leaves))
    return frame, Values(arrays, call.sets)
