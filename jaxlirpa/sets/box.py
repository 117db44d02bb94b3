"""Boxes: every entry moves on its own between two limits."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlirpa._arrays import traced_once, where
from jaxlirpa._errors import SetError
from jaxlirpa._intervals import Interval
from jaxlirpa._types import Array, PyTree, Shaped
from jaxlirpa.sets.base import PerturbationSet, concretize_box, floating, holds, poison


@dataclasses.dataclass(frozen=True)
class Box(PerturbationSet):
    """All values between two limits, entry by entry.

    Args:
        lower: pytree of floating-point arrays.
        upper: pytree of the same structure; each leaf broadcasts with that of `lower`, and is
            nowhere smaller.

    Raises:
        SetError: where it is empty, or a limit is NaN, as far as the limits are known. (Inside of
            `jax.jit` they are not, and its bounds are infinite.)

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

    def __post_init__(self) -> None:
        def check(path: Any, *pair: Any) -> None:
            if all(map(_is_known, pair)):
                _checked(path, *pair)

        structure: Any = jax.tree.structure(self.lower)
        if structure == jax.tree.structure(self.upper):
            jax.tree_util.tree_map_with_path(check, self.lower, self.upper)

    @classmethod
    def of(cls, limits: Iterable[Any]) -> Box:
        """A box, or whatever stands in its place in a pytree, that nobody has checked."""
        box = object.__new__(cls)
        for field, limit in zip(dataclasses.fields(cls), limits, strict=True):
            object.__setattr__(box, field.name, limit)
        return box

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
        return _middle(self.lower, self.upper)

    def concretize(self, coefficients: Array, from_point: bool = False) -> Interval:
        """Exact minimum and maximum of linear forms over the box."""
        return concretize_box(self.hull(), coefficients, self.point() if from_point else None)

    def batch_axes(self, axis: int) -> Box:
        """Both limits are mapped."""
        return Box.of((axis, axis))

    def expand(self, axis: int) -> Box:
        """The same box with a new axis of size one."""
        return Box.of(jnp.expand_dims(limit, axis) for limit in self.hull())


@traced_once()
def _middle(lower: Array, upper: Array) -> Array:
    middle = 0.5 * lower + 0.5 * upper
    return where(jnp.isfinite(middle), middle, jnp.clip(0, lower, upper))


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
        at = np.unravel_index(np.argmin(ordered), ordered.shape)
        where = f" at {tuple(map(int, at))}" if at else ""
        raise SetError(
            f"Box: lower > upper (or NaN) somewhere, so the box is empty: lower{name} is "
            f"{lower[at]} and upper{name} is {upper[at]}{where}. A box is made of its two limits, "
            "Box(x - eps, x + eps); a centre and a radius make an LpBall(x, eps)."
        )
    return Box.of((poison(lower, ordered), poison(upper, ordered)))


def _is_known(limit: Any) -> bool:
    """Whether a limit is an array of floating-point numbers that are at hand."""
    if isinstance(limit, jax.core.Tracer) or not isinstance(limit, float | np.ndarray | jax.Array):
        return False
    at_hand = not isinstance(limit, jax.Array) or limit.is_fully_addressable
    return at_hand and jnp.issubdtype(jnp.result_type(limit), jnp.floating)


def _flatten(box: Box) -> tuple[list[tuple[Any, Any]], None]:
    names = (field.name for field in dataclasses.fields(box))
    return [(jax.tree_util.GetAttrKey(name), getattr(box, name)) for name in names], None


# Not by the constructor: the derivative by a box is a pytree of the same kind, and is no box.
jax.tree_util.register_pytree_with_keys(Box, _flatten, lambda _, limits: Box.of(limits))
