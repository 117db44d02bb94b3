"""One norm ball over all arrays of a pytree."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlirpa._errors import SetError
from jaxlirpa._types import Array, PyTree
from jaxlirpa.sets.ball import LpBall
from jaxlirpa.sets.base import PerturbationSet, fits, floating_leaves, radii_of


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class JointBall(PerturbationSet):
    """All pytrees within a distance of a centre: one ball, over the entries of all leaves together.

    `LpBall` puts every leaf into a ball of its own, so that all of them may be at its edge at once;
    the leaves of a joint ball share one radius. With a scalar radius `r` it has the `w` with
    `norm(w - center, ord) <= r`, where the norm is that of one vector of all entries; with others,
    those with `norm((w - center) / radius, ord) <= 1`. The extrema of a linear form are its values
    at the centre minus and plus the dual norm of all its coefficients together, and every leaf on
    its own ranges over the ball of the same radius.

    Args:
        center: pytree of arrays of one floating-point type.
        radius: scalar; or a pytree of scalars and arrays that is a prefix of the centre's, each of
            which broadcasts to the leaves below it; not negative.
        ord: the norm, a number from 1 to infinity.

    Example:
        >>> import jax.numpy as jnp, jaxlirpa
        >>> pair = jnp.array(3.0), jnp.array(4.0)
        >>> fn = lambda pair: 3 * pair[0] + 4 * pair[1]
        >>> print(*jaxlirpa.crown(fn)(jaxlirpa.JointBall(pair, 0.5)))
        22.5 27.5
        >>> print(*jaxlirpa.crown(fn)(jaxlirpa.LpBall(pair, 0.5, ord=2)))
        21.5 28.5
    """

    center: PyTree
    radius: PyTree
    ord: float = dataclasses.field(default=2, metadata={"static": True})

    def split(self) -> tuple[list[LpBall], Concatenation]:
        """The ball as one of vectors: the entries of all leaves, one leaf after the other.

        Raises:
            SetError: for leaves of different types or of integers, none at all, a negative or NaN
                radius, one that does not broadcast, or a norm below 1.
        """
        leaves = floating_leaves(self.center, "JointBall: center")
        types = {x.dtype.name: name for name, x in reversed(leaves.items())}
        if len(types) > 1:
            found = " and ".join(f"{dtype} (`{name}`)" for dtype, name in sorted(types.items()))
            raise SetError(
                f"JointBall: the leaves of the centre are {found}; one ball has one type. Convert "
                "them, or give each leaf a ball of its own (LpBall)."
            )
        if not leaves:
            raise SetError("JointBall: the centre has no leaves.")
        arrays = [*leaves.values()]
        (dtype,) = {x.dtype for x in arrays}
        radii = radii_of(self.radius, self.center, "JointBall: radius")
        if jax.tree_util.all_leaves([self.radius]) and not np.ndim(self.radius):
            radius = jnp.asarray(radii[0], dtype)
        else:
            for r, x in zip(radii, arrays, strict=True):
                fits(np.shape(r), x.shape, "JointBall: radius")
            pairs = zip(radii, arrays, strict=True)
            radius = _joined([jnp.broadcast_to(jnp.asarray(r), x.shape) for r, x in pairs], dtype)
        whole = LpBall(_joined(arrays, dtype), radius, self.ord)
        (ball,), _ = whole.split()
        shapes = tuple(x.shape for x in arrays)
        return [ball], Concatenation(jax.tree.structure(self.center), shapes)


@dataclasses.dataclass(frozen=True)
class Concatenation:
    """How a vector is a pytree: in the place of the structure of pytrees whose leaves are sets.

    Attributes:
        structure: of the pytree.
        shapes: of its leaves.
    """

    structure: Any
    shapes: tuple[tuple[int, ...], ...]

    num_leaves = 1

    def unflatten(self, arrays: Sequence[Any]) -> PyTree:
        """The pytree of the one vector; of coefficients, whose last axis is the vector's.

        One `split` into all leaves, whose transpose is one concatenation.
        """
        (vector,) = arrays
        ends = [*itertools.accumulate(map(math.prod, self.shapes))][:-1]
        parts = jnp.split(vector, ends, axis=-1)
        pairs = zip(parts, self.shapes, strict=True)
        leaves = [part.reshape(*vector.shape[:-1], *shape) for part, shape in pairs]
        return jax.tree.unflatten(self.structure, leaves)


def _joined(arrays: Sequence[Array], dtype: Any) -> Array:
    return jnp.concatenate([jnp.asarray(x, dtype).reshape(-1) for x in arrays])
