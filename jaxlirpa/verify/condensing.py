"""Backward functionals that are not carried past chosen entries: what condenses a network.

On a given box most neurons of a network are stable, so that they are affine. Functionals pass those
exactly. On the outputs of the others, the unstable ones, their coefficients are kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp

from jaxlirpa._arrays import matrix, row_products, where
from jaxlirpa._domains.backward_linear import BackwardBounds, BackwardLinear
from jaxlirpa._graph.graph import Node, Ref
from jaxlirpa._types import Array


class Entries(NamedTuple):
    """Some entries of a node's output.

    Attributes:
        numbers: which ones, `[count]`; those that only fill up the array may be any.
        real: which of these do not only fill up the array, `[count]`.
    """

    numbers: Array
    real: Array


class Kept(NamedTuple):
    """A functional, and beside it coefficients on chosen entries of earlier values.

    Attributes:
        functional: the part that is carried on; only its lower side has a meaning.
        coefficients: by node, `[rows, count]`.
    """

    functional: BackwardBounds
    coefficients: Mapping[int, Array]


@dataclasses.dataclass(frozen=True)
class Condensing:
    """The domain of affine functions of the inputs and of chosen entries.

    Attributes:
        dense: passes everything else; what is not chosen of a node's entries must be straight, its
            upper line the lower one.
        entries: by node, those that are chosen.
    """

    dense: BackwardLinear
    entries: Mapping[int, Entries]

    def start(self, target: Ref, rows: Array | None = None) -> dict[Ref, Kept]:
        """The functional that is some entries of a value, see `BackwardLinear.start`."""
        return {ref: Kept(f, {}) for ref, f in self.dense.start(target, rows).items()}

    def add(self, a: Kept, b: Kept) -> Kept:
        """The sum of two functionals of one value."""
        return Kept(
            self.dense.add(a.functional, b.functional), _sum(a.coefficients, b.coefficients)
        )

    def pull(
        self, index: int, node: Node, outputs: tuple[Kept | None, ...]
    ) -> list[tuple[Ref, Kept]]:
        """Functionals of a node's outputs as functionals of its operands and of chosen entries."""
        kept: Mapping[int, Array] = {}
        for output in outputs:
            kept = kept if output is None else _sum(kept, output.coefficients)
        functionals = tuple(f and f.functional._replace(upper=None) for f in outputs)
        if index in self.entries:
            (functional,) = functionals
            assert functional is not None
            own, rest = self._apart(index, functional)
            kept, functionals = _sum(kept, {index: own}), (rest,)
        (first, functional), *others = self.dense.pull(index, node, functionals)
        return [
            (first, Kept(functional._replace(upper=None), kept)),
            *((ref, Kept(other._replace(upper=None), {})) for ref, other in others),
        ]

    def _apart(self, index: int, functional: BackwardBounds) -> tuple[Array, BackwardBounds]:
        """The coefficients on a node's chosen entries, and the functional without them."""
        rows, offset = functional.lower
        numbers, real = self.entries[index]
        flat = matrix(rows)
        own = where(real, flat[:, numbers], 0)
        rest = flat.at[:, numbers].add(-own).reshape(rows.shape)
        value = self.dense.reference[Ref(index, 0)].reshape(-1)[numbers]
        side = functional.lower._replace(
            coefficients=rest, offset=offset - row_products(own, value)
        )
        return own, functional._replace(lower=side)


def _sum(a: Mapping[int, Array], b: Mapping[int, Array]) -> dict[int, Array]:
    """The sums of coefficients on the same entries."""
    both = a.keys() & b.keys()
    return {**a, **b, **{index: jnp.add(a[index], b[index]) for index in both}}
