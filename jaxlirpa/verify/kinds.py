"""What a block of unstable neurons computes: the functions that branch and bound knows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxlirpa._arrays import where
from jaxlirpa._graph.graph import Node, Ref
from jaxlirpa._graph.jaxpr import is_traced
from jaxlirpa._intervals import Interval, vacuous_where_nan
from jaxlirpa._minmax import maximum, minimum
from jaxlirpa._ops.declared import is_declared
from jaxlirpa._ops.families import Elementwise
from jaxlirpa._ops.registry import record
from jaxlirpa._relax.lines import Lines, relax_family, tabulated
from jaxlirpa._types import Array

# A split leaves at least this share of a box to either side.
_LEAST_SHARE = 0.2


class Family(NamedTuple):
    """Lines around a function on a box.

    Attributes:
        start: CROWN's parameters, `[sides, *shape]`.
        at: the lines at some parameters between 0 and 1.
    """

    start: Array
    at: Callable[[Array], Lines]


class Kind(Protocol):
    """A function of one variable, entry by entry; two equal kinds share what is compiled.

    Attributes:
        sides: 1 if only lower lines have a parameter, else 2.
    """

    @property
    def sides(self) -> int: ...

    def apply(self, known: Sequence[Array], z: Array) -> Array:
        """The values of the function."""

    def image(self, known: Sequence[Array], box: Interval) -> Interval:
        """Its range over a box."""

    def family(self, known: Sequence[Array], box: Interval) -> Family:
        """The lines around it on a box."""

    def split(self, known: Sequence[Array], box: Interval, z: Array) -> tuple[Array, Array]:
        """Where to split the box, for the sake of a point z; and whether that is worthwhile."""


@dataclasses.dataclass(frozen=True)
class Relu:
    """The rectifier `max(z, 0)`.

    On a box `l < 0 < u` the line above is `u (z - l) / (u - l)`, and `alpha z` is below it for any
    alpha between 0 and 1 (Xu et al. 2021).
    """

    sides = 1

    def apply(self, known: Sequence[Array], z: Array) -> Array:
        """The positive part."""
        del known
        return maximum(z, 0)

    def image(self, known: Sequence[Array], box: Interval) -> Interval:
        """It is monotone."""
        del known
        return Interval(*(maximum(limit, 0) for limit in box))

    def family(self, known: Sequence[Array], box: Interval) -> Family:
        """The chord, and lines through zero; first the branch over the larger part of the box."""
        del known
        lower, upper = box
        unstable = (lower < 0) & (upper > 0)
        active = (lower >= 0).astype(lower.dtype)
        slope = where(unstable, upper / where(unstable, upper - lower, 1), active)
        zero = jnp.zeros_like(slope)
        offset = where(unstable, -slope * lower, 0)

        def at(alpha: Array) -> Lines:
            return Lines(where(unstable, alpha[0], active), zero, slope, offset)

        return Family((upper > -lower).astype(lower.dtype)[None], at)

    def split(self, known: Sequence[Array], box: Interval, z: Array) -> tuple[Array, Array]:
        """At the kink, if it is inside."""
        del known
        return jnp.zeros_like(z), (box.lower < 0) & (box.upper > 0)


@dataclasses.dataclass(frozen=True, eq=False)
class Function:
    """Any other elementwise function, by its record.

    Attributes:
        node: one that applies it, with None in the place of known operands.
    """

    node: Node
    sides = 2

    def _key(self) -> Any:
        """What two functions are equal by; one with arrays, or a user's, equals itself only."""
        node = self.node
        known = len(node.perturbed) < len(node.operands)
        if known or is_declared(node.primitive) or not _are_plain(node.params):
            return id(self)
        return node.primitive, repr(sorted(node.params.items())), str(node.outputs[0].dtype)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Function) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def apply(self, known: Sequence[Array], z: Array) -> Array:
        """The values of the function."""
        shaped = [jnp.broadcast_to(x, z.shape) if jnp.ndim(x) else x for x in known]
        (value,) = self._node(shaped)(z)
        return value

    def image(self, known: Sequence[Array], box: Interval) -> Interval:
        """That of its record."""
        node = self._node(known)
        found = record(node)
        assert isinstance(found, Elementwise)
        return vacuous_where_nan(found.relaxation(node).image(box))

    def family(self, known: Sequence[Array], box: Interval) -> Family:
        """Those of the function's own family, from a table."""
        node = self._node(known)
        found = record(node)
        assert isinstance(found, Elementwise)
        family = relax_family(found.relaxation(node), box)
        if not jax.tree.leaves(family.start):
            lines = family.default
            return Family(jnp.zeros((2, *box.lower.shape), box.lower.dtype), lambda alpha: lines)
        table = tabulated(family, box)
        start = jnp.stack(jnp.broadcast_arrays(*family.start, box.lower)[:2])
        return Family(start, lambda alpha: table.at((alpha[0], alpha[1])))

    def split(self, known: Sequence[Array], box: Interval, z: Array) -> tuple[Array, Array]:
        """At the point, unless it is close to an end of the box."""
        del known
        lower, upper = box
        width = upper - lower
        point = maximum(minimum(z, upper - _LEAST_SHARE * width), lower + _LEAST_SHARE * width)
        return point, (lower < point) & (point < upper)

    def _node(self, known: Sequence[Array]) -> Node:
        supply = iter(known)
        operands = tuple(x if isinstance(x, Ref) else next(supply) for x in self.node.operands)
        return dataclasses.replace(self.node, operands=operands)


def _are_plain(params: Mapping[str, Any]) -> bool:
    """Whether parameters are numbers and words alone."""
    return all(isinstance(x, bool | int | float | str | None) for x in params.values())


def kind_of(node: Node) -> Kind:
    """The kind of an elementwise node."""
    if node.primitive == "max" and all(map(_is_zero, node.known)):
        return Relu()
    operands: Any = tuple(x if isinstance(x, Ref) else None for x in node.operands)
    return Function(dataclasses.replace(node, operands=operands))


def _is_zero(x: Array) -> bool:
    return not is_traced(x) and bool(np.all(np.asarray(x) == 0))


def known_at(node: Node, kind: Kind, numbers: Array) -> tuple[Array, ...]:
    """The known operands of some entries of a node: arrays `[count]`, or numbers."""
    if isinstance(kind, Relu):
        return ()
    shape = node.outputs[0].shape
    return tuple(
        jnp.asarray(x) if not jnp.ndim(x) else jnp.broadcast_to(x, shape).reshape(-1)[numbers]
        for x in node.known
    )
