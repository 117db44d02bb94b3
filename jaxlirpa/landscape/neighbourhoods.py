"""Sets around the weights of a network, of a given radius.

A neighbourhood is any function of the weights and a radius that returns the weights with sets in
the place of some leaves, and that grows with the radius. These are the usual ones; another norm is
`functools.partial(every_leaf, ord=jnp.inf)`, and radii in other units are a function of one line:
`lambda params, r: jaxlirpa.sets.relative_to_norm(params, r)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from jaxlirpa._types import ArrayLike, PyTree
from jaxlirpa.sets import JointBall, LpBall

Neighbourhood: TypeAlias = Callable[[PyTree, ArrayLike], PyTree]


def every_leaf(params: PyTree, radius: ArrayLike, ord: float = 2) -> PyTree:
    """Every leaf in a ball of its own, biases too."""
    return LpBall(params, radius, ord)


def every_matrix(params: PyTree, radius: ArrayLike, ord: float = 2) -> PyTree:
    """Every leaf of two or more axes in a ball of its own: kernels, but neither biases nor scales.

    With `ord=2` the setting of Xu et al. (2020).
    """

    def ball(leaf: PyTree) -> PyTree:
        return LpBall(leaf, radius, ord) if jnp.ndim(leaf) > 1 else leaf

    return jax.tree.map(ball, params)


def jointly(params: PyTree, radius: ArrayLike, ord: float = 2) -> PyTree:
    """All leaves in one ball."""
    return JointBall(params, radius, ord)
