"""Families of relaxations: where there is freedom, numbers in [0, 1] choose, and all are sound.

A relaxation with freedom is not one pair of lines (or planes) on a box but a family of pairs. Its
members are numbered by alphas, arrays of numbers in [0, 1]: a slope between the two branches of
a kink, a point where a tangent is taken, a share of each of two planes. Every alpha gives a
sound member; which is best depends on what the relaxation is used for, and an optimiser may find
it without knowing to which function the alpha belongs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from jaxlirpa._arrays import traced_once, where
from jaxlirpa._minmax import clip
from jaxlirpa._types import Array, PyTree

Member = TypeVar("Member")


class Relaxations(NamedTuple, Generic[Member]):
    """The relaxations of one function on one box.

    Attributes:
        start: the alpha of the default member; a pytree, empty where there is no freedom.
        at: the member at a alpha.
        nodes: from how many members, equally far apart, the others are means of neighbours; if no
            number is large enough for that, one from which they are nearly so.
    """

    start: PyTree
    at: Callable[[PyTree], Member]
    nodes: int = 17

    @property
    def default(self) -> Member:
        """The member at the start."""
        return self.at(self.start)

    @property
    def first(self) -> Member:
        """The member at zero."""
        return self.at(jax.tree.map(jnp.zeros_like, self.start))

    @property
    def last(self) -> Member:
        """The member at one."""
        return self.at(jax.tree.map(jnp.ones_like, self.start))

    def map(self, change: Callable[[Member], Any]) -> Relaxations[Any]:
        """The family of the changed members."""
        return self._replace(at=lambda alpha: change(self.at(alpha)))


def single(member: Member) -> Relaxations[Member]:
    """A family of one."""
    return Relaxations((), lambda alpha: member)


@traced_once()
def mix(alpha: Array, first: PyTree, second: PyTree) -> PyTree:
    """`second` at 1, `first` at 0, and a mean of the two in between; exact at both ends.

    What is affine and encloses a function stays so, as a mean of lower bounds is a lower bound. An
    infinite value counts for nothing where the alpha is that of the other one.
    """

    def mean(a: Array, b: Array) -> Array:
        a = where((alpha == 1) & jnp.isinf(a), 0, a)
        b = where((alpha == 0) & jnp.isinf(b), 0, b)
        return (1 - alpha) * a + alpha * b

    return jax.tree.map(mean, first, second)


@traced_once()
def alpha_of(x: Array, first: Array, last: Array) -> Array:
    """The alpha of `x` between two numbers: the inverse of `mix`; zero where they coincide."""
    width = 0.5 * last - 0.5 * first
    proper = width > 0
    alpha = (0.5 * x - 0.5 * first) / where(proper, width, jnp.ones_like(width))
    return where(proper, clip(alpha, 0, 1), jnp.zeros_like(width))


def between(table: PyTree, alpha: Array) -> PyTree:
    """The entries of a table at 0 and 1 and equally far apart; in between, means of neighbours.

    Args:
        table: pytree of arrays with the entries along a leading axis, two or more.
        alpha: of the shape of an entry.
    """
    count = len(jax.tree.leaves(table)[0])
    place = alpha * (count - 1)
    index = jax.lax.stop_gradient(jnp.clip(jnp.floor(place), 0, count - 2))

    def entry(x: Array) -> Array:
        early, late = x[0], x[1]
        for k in range(1, count - 1):
            early, late = where(index == k, x[k], early), where(index == k, x[k + 1], late)
        return mix(place - index, early, late)

    return jax.tree.map(entry, table)
