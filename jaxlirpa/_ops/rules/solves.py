"""Solutions of linear equations with a known matrix: products with its inverse."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlirpa._graph.graph import Node, Ref, Value
from jaxlirpa._graph.trace import Builder, Rule
from jaxlirpa._ops.rules.dataflow import Spread, spread
from jaxlirpa._types import Array


def _solved(build: Builder, node: Node) -> Sequence[Value] | None:
    """The solution of equations with a known matrix is the product with its inverse."""
    *matrix, b = node.operands
    if not isinstance(b, Ref) or any(isinstance(x, Ref) for x in matrix):
        return None
    shape, dtype = build.aval(b).shape, node.outputs[0].dtype
    if not jnp.issubdtype(dtype, jnp.floating):
        return None
    left = node.params.get("left_side", True)
    size = shape[-2 if left else -1]
    identity = jnp.broadcast_to(jnp.eye(size, dtype=dtype), (*shape[:-2], size, size))
    (inverse,) = node.bind(*matrix, identity)
    b, inverse = _factored(build, b, inverse, left)

    def product(inverse: Array, b: Array) -> Array:
        return jnp.matmul(inverse, b) if left else jnp.matmul(b, inverse)

    return build.apply(product, node.source, inverse, b)


def _factored(build: Builder, b: Ref, inverse: Array, left: bool) -> tuple[Ref, Array]:
    """Another value and matrix of the same product, where `b` is a matrix times that value.

    So are solutions by two triangular factors. Intervals are exact for the product of both alone.
    """
    found = spread(build, b)
    before = build.definition(found.root) if found and _is_whole(build, found, b) else None
    axes = range(inverse.ndim)
    contracted, batch = ((axes[-1],), (axes[-2],)), (tuple(axes[:-2]),) * 2
    if (
        before is None
        or before.primitive != "dot_general"
        or before.positions != (1 if left else 0,)
        or before.params["dimension_numbers"] != (contracted, batch)
    ):
        return b, inverse
    (value,), (matrix,) = before.perturbed, before.known
    if matrix.shape != inverse.shape:
        return b, inverse
    both = (inverse, matrix) if left else (matrix, inverse)
    return value, jnp.matmul(*both, precision=lax.Precision.HIGHEST)


def _is_whole(build: Builder, found: Spread, value: Ref) -> bool:
    """Whether a value is another one of its shape, entry by entry."""
    shape = build.aval(found.root).shape
    ordered = np.arange(math.prod(shape)).reshape(shape)
    return shape == build.aval(value).shape and np.array_equal(found.places, ordered)


RULES: dict[str, tuple[Rule, ...]] = {
    "triangular_solve": (_solved,),
    "tridiagonal_solve": (_solved,),
}
