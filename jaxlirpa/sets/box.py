"""Boxes: every entry moves on its own between two limits."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxlirpa._errors import SetError
from jaxlirpa._typing import Array, Interval, PyTree, Shaped
from jaxlirpa.sets.base import PerturbationSet, box_extrema, floating, holds, poison


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Box(PerturbationSet):
    """All values between two limits, entry by entry.

    Args:
        lower: pytree of floating-point arrays.
        upper: pytree of the same structure; each leaf broadcasts with that of `lower`, and is
            nowhere smaller.

    Example:
        >>> import jax.numpy as jnp, jaxlirpa
        >>> pixels = jnp.array([0.02, 0.5])
        >>> near = jaxlirpa.Box(jnp.clip(pixels - 0.1, 0, 1), jnp.clip(pixels + 0.1, 0, 1))
        >>> bounds = jaxlirpa.crown(lambda x: x.sum())(near)
        >>> print(f"{bounds.lower:.2f} {bounds.upper:.2f}")
        0.40 0.72
    """

    lower: PyTree
    upper: PyTree

    @property
    def aval(self) -> Shaped:
        """Shape and dtype of the members."""
        return jax.ShapeDtypeStruct(self.lower.shape, self.lower.dtype)

    @property
    def is_box(self) -> bool:
        """True."""
        return True

    def split(self) -> tuple[list[Box], Any]:
        """One box an array.

        Raises:
            SetError: where lower > upper, a limit is NaN, or the two do not fit together.
        """
        try:
            boxes = jax.tree_util.tree_map_with_path(_checked, self.lower, self.upper)
        except SetError:
            raise
        except ValueError as error:
            raise SetError(f"Box: the limits do not fit together: {error}") from error
        return jax.tree.flatten(boxes, is_leaf=lambda x: isinstance(x, Box))

    def hull(self) -> Interval:
        """The box itself."""
        return Interval(self.lower, self.upper)

    def point(self) -> Array:
        """The middle, or the finite limit where there is only one."""
        middle = 0.5 * self.lower + 0.5 * self.upper
        return jnp.where(jnp.isfinite(middle), middle, jnp.clip(0, self.lower, self.upper))

    def extrema(self, coefficients: Array, origin: Array | None = None) -> Interval:
        """Exact minimum and maximum of linear forms over the box."""
        return box_extrema(self.hull(), coefficients, origin)

    def batch_axes(self, axis: int) -> Box:
        """Both limits are mapped."""
        return Box(axis, axis)

    def expand(self, axis: int) -> Box:
        """The same box with a new axis of size one."""
        return Box(jnp.expand_dims(self.lower, axis), jnp.expand_dims(self.upper, axis))


def _checked(path: Any, lower: Any, upper: Any) -> Box:
    name = jax.tree_util.keystr(path)
    lower, upper = floating(lower, f"Box: lower{name}"), floating(upper, f"Box: upper{name}")
    try:
        lower, upper = jnp.broadcast_arrays(lower, upper)
    except ValueError as error:
        raise SetError(
            f"Box: limits of shapes {lower.shape} and {upper.shape} do not broadcast."
        ) from error
    dtype = jnp.result_type(lower, upper)
    lower, upper = lower.astype(dtype), upper.astype(dtype)
    ordered = lower <= upper
    if not holds(ordered):
        raise SetError("Box: lower > upper (or NaN) somewhere, so the box is empty.")
    return Box(poison(lower, ordered), poison(upper, ordered))
