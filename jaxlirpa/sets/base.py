"""The protocol of a perturbation set, and what all sets share."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxlirpa._arrays import matrix, sums, traced_once, where
from jaxlirpa._errors import SetError
from jaxlirpa._intervals import Interval
from jaxlirpa._types import Array, ArrayLike, PyTree, Shaped

# Letters of a pytree's structure in a message.
_LONG = 60


class ArraySet(Protocol):
    """A set of arrays of one shape: what the domains see.

    A set may have one more method, `concretize_per_example(coefficients, axis)`. It returns the
    extrema `[rows, examples]` of linear forms of each example's deviation from `point()`, where
    `axis` indexes the examples. With it a batch of independent examples costs the sum of its
    examples; without it the batch is bounded as one vector. `extend.one_by_one` implements the
    method for every set whose restriction to one example is given by `batch_axes` and `expand`.

    A set that is no box may also have `beyond(inner)`: by how much another set may go beyond it,
    zero only if it is proved not to. Saved intermediate bounds are used for a smaller set only if
    it is so proved; without the method they are used for the same set alone.

    Attributes:
        aval: shape and dtype of its members.
        is_box: whether every entry moves on its own between its limits in `hull()`.
    """

    @property
    def aval(self) -> Shaped: ...

    @property
    def is_box(self) -> bool: ...

    def hull(self) -> Interval:
        """The smallest box around the set."""

    def point(self) -> Array:
        """Some member, around which deviations are measured."""

    def concretize(self, coefficients: Array, from_point: bool = False) -> Interval:
        """Exact minimum and maximum of linear forms over the set.

        Args:
            coefficients: `[rows, *shape]`, one linear form in each row.
            from_point: whether the forms are of the members' deviations from `point()`, instead of
                the members themselves.

        Returns:
            `[rows]` minima and maxima.
        """

    def batch_axes(self, axis: int) -> Any:
        """This set with, in place of its arrays, the axes that `jax.vmap` maps."""

    def expand(self, axis: int) -> ArraySet:
        """The set of the members with a new axis of size one."""


class PerturbationSet(abc.ABC):
    """A set of pytrees, to be passed in an argument's place.

    A class to inherit from, and no protocol: strings and the states of neural network libraries
    have methods of the same names.
    """

    @abc.abstractmethod
    def split(self) -> tuple[Sequence[ArraySet], Any]:
        """One validated set an array, and the structure of the argument.

        Raises:
            SetError: where the set is empty, of integers, or does not fit together.
        """


def is_set(x: Any) -> bool:
    """Whether `x` stands for a set of values."""
    return isinstance(x, PerturbationSet)


def floating(x: ArrayLike, what: str) -> Array:
    """`x` as an array of float32 or float64.

    Raises:
        SetError: for integers, booleans, and floats too short for bounds to be trusted; and for
            what is no array.
    """
    try:
        dtype = jnp.result_type(x)
    except TypeError:
        raise SetError(f"{what} is a {type(x).__name__}: only arrays can be perturbed.") from None
    if not jnp.issubdtype(dtype, jnp.floating):
        raise SetError(
            f"{what} is {dtype}: only floating-point values can be perturbed. Leave integer and "
            "boolean leaves unperturbed, or convert them (`x.astype(jnp.float32)`)."
        )
    if dtype not in (jnp.float32, jnp.float64):
        raise SetError(
            f"{what} is {dtype}, and sets are of float32 or float64. Convert it, "
            "`x.astype(jnp.float32)`; the function may convert it back."
        )
    return jnp.asarray(x)


def floating_leaves(tree: PyTree, what: str) -> dict[str, Array]:
    """The leaves as arrays of float32 or float64, by names that say where they are.

    Raises:
        SetError: as `floating`.
    """
    named = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_set):
        name = f"{what}{jax.tree_util.keystr(path)}"
        named[name] = floating(leaf, name)
    return named


def holds(condition: ArrayLike) -> bool:
    """Whether a condition is true of every entry, as far as is known.

    Inside `jax.jit` nothing is known; what fails there turns into NaN and hence into infinite
    bounds, see `poison`.
    """
    return isinstance(condition, jax.core.Tracer) or bool(np.all(np.asarray(condition)))


@traced_once()
def poison(x: Array, condition: Array) -> Array:
    """`x`, or NaN where the condition fails: an impossible set must not give a finite bound."""
    return where(condition, x, jnp.nan)


@traced_once("axis")
def concretize_box(
    box: Interval, coefficients: Array, origin: Array | None = None, axis: int | None = None
) -> Interval:
    """Extrema of linear forms of the deviations from `origin` (default: zero) over a box.

    With `axis`, those of every example, `[rows, examples]`.

    `min a x` is `a l` where `a >= 0` and `a u` elsewhere, for `l <= x <= u`, and the entries are
    independent.
    """
    # Flat, as selecting on arrays of high rank is slow.
    rows = matrix(coefficients)
    lower, upper = ((limit if origin is None else limit - origin).reshape(1, -1) for limit in box)
    rising, shape = rows >= 0, coefficients.shape
    return Interval(
        sums((rows * where(rising, lower, upper)).reshape(shape), axis),
        sums((rows * where(rising, upper, lower)).reshape(shape), axis),
    )


def radii_of(prefix: PyTree, tree: PyTree, what: str) -> list[Any]:
    """The radii of a pytree's leaves: those of `prefix`, repeated for every leaf below them.

    Raises:
        SetError: where it is no prefix, or a radius is no real number.
    """
    try:
        full = jax.tree.map(lambda p, sub: jax.tree.map(lambda _: p, sub), prefix, tree)
    except ValueError:
        raise SetError(
            f"{what} does not have the structure of the centre: it is {_outline(prefix)}, and the "
            f"centre {_outline(tree)}. Give a number, an array that broadcasts to every leaf "
            "(a list is none: jnp.array), or a pytree of these like the centre."
        ) from None
    found = jax.tree.leaves(full)
    for radius in found:
        _real(radius, what)
    return found


def _outline(tree: PyTree) -> str:
    """The structure of a pytree in few words."""
    text = str(jax.tree.structure(tree)).removeprefix("PyTreeDef(").removesuffix(")")
    text = "an array" if text == "*" else text
    return f"{text[:_LONG]}..." if len(text) > _LONG else text


def _real(x: Any, what: str) -> None:
    """Refuses what is no real number."""
    try:
        dtype = jnp.result_type(x)
    except TypeError:
        raise SetError(f"{what} is a {type(x).__name__}, and no number or array.") from None
    if not (jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)):
        raise SetError(f"{what} is {dtype}, and no real number.")


def fits(shape: Sequence[int], target: Sequence[int], what: str) -> None:
    """Raises a SetError unless `shape` broadcasts to `target`."""
    try:
        ok = np.broadcast_shapes(tuple(shape), tuple(target)) == tuple(target)
    except ValueError:
        ok = False
    if not ok:
        raise SetError(f"{what} of shape {tuple(shape)} does not broadcast to {tuple(target)}.")
