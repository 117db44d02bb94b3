"""What arrays and results are called: the types that every layer shares."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import jax

Array: TypeAlias = jax.Array
ArrayLike: TypeAlias = jax.typing.ArrayLike
PyTree: TypeAlias = Any
Shaped: TypeAlias = jax.ShapeDtypeStruct


class Bounds(NamedTuple):
    """Guaranteed lower and upper bounds of a function's output.

    Attributes:
        lower: pytree shaped like the function's output; no attainable output is below it.
        upper: pytree shaped like the function's output; no attainable output is above it.

    Where nothing could be guaranteed (an overflow, a NaN) the bound is minus or plus infinity.
    """

    lower: PyTree
    upper: PyTree


class LinearBounds(NamedTuple):
    """Two affine functions of the perturbed arguments that enclose a function's output.

    For every point `z` of the sets, entry by entry of the output,

        sum_k lower_coefficients[k] . z[k] + lower_offset  <=  fn(z)
        fn(z)  <=  sum_k upper_coefficients[k] . z[k] + upper_offset

    Attributes:
        lower_coefficients: shaped like the output, every leaf replaced by the tuple of the
            arguments by position: `None` for what is not perturbed, else an array of shape
            `output.shape + argument.shape`.
        lower_offset: shaped like the output.
        upper_coefficients: as `lower_coefficients`.
        upper_offset: shaped like the output.
    """

    lower_coefficients: PyTree
    lower_offset: PyTree
    upper_coefficients: PyTree
    upper_offset: PyTree
