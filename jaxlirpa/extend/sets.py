"""Sets of the user's own, held against their members."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxlirpa._errors import ExtensionError, SetError
from jaxlirpa._intervals import Interval
from jaxlirpa._types import PyTree
from jaxlirpa.extend.checking import ULPS
from jaxlirpa.sets import ArraySet, PerturbationSet
from jaxlirpa.sets.base import concretize_box

_ROWS = 64


def check_set(perturbed: PerturbationSet, members: PyTree) -> None:
    """Holds a set against the protocol and against members of it.

    A set needs no declaration: a `PerturbationSet` may be passed in the place of any argument.
    Call this on examples, in a test.

    Args:
        perturbed: the set.
        members: some of its members, shaped like the argument with one more axis, the first; the
            more of them are on the surface, the better.

    Raises:
        ExtensionError: where the hull or the extrema of a linear form exclude a member, the
            extrema are not those of any convex set, or a method does not do as it should.

    Example:
        >>> import jax.numpy as jnp, jaxlirpa
        >>> from jaxlirpa import extend
        >>> disc = jaxlirpa.LpBall(jnp.zeros(2), 1.0, ord=2)
        >>> extend.check_set(disc, jnp.array([[0.6, -0.8], [1.0, 0.0]]))
        >>> try:
        ...     extend.check_set(disc, jnp.array([[0.9, 0.9]]))
        ... except jaxlirpa.ExtensionError as error:
        ...     print(error)
        LpBall: the extrema of a linear form exclude a member: it is ...
    """
    name = type(perturbed).__name__
    sets, structure = perturbed.split()
    arrays = jax.tree.leaves(members)
    if structure.num_leaves != len(sets) or jax.tree.structure(members) != structure:
        raise ExtensionError(f"{name}: split() does not have the structure of the members.")
    for array_set, z in zip(sets, arrays, strict=True):
        _check_array_set(name, array_set, np.asarray(z))


def _check_array_set(name: str, s: ArraySet, z: np.ndarray) -> None:
    aval = s.aval
    if z.shape[1:] != aval.shape:
        raise ExtensionError(f"{name}: aval has shape {aval.shape}, the members {z.shape[1:]}.")
    rng = np.random.default_rng(0)
    size = int(np.prod(aval.shape))
    rows = np.concatenate([rng.normal(size=(_ROWS, size)), np.eye(size)[:_ROWS]])
    rows[: _ROWS // 2 : 2] *= rng.uniform(size=(len(rows[: _ROWS // 2 : 2]), size)) < 0.3
    rows = rows.reshape(-1, *aval.shape).astype(aval.dtype)
    _check_members(name, s, z, rows)
    _check_support(name, s, rows)
    _check_hull(name, s, rows)
    _check_in_jit(name, s, rows)
    for axis in range(len(aval.shape)):
        _check_mapped(name, s, z, axis)


def _extrema(s: ArraySet, rows: np.ndarray, from_point: bool = False) -> np.ndarray:
    found = np.asarray(s.concretize(jnp.asarray(rows), from_point))
    if found.shape != (2, len(rows)):
        raise ExtensionError(f"concretize() returns shapes {found.shape[1:]}, not {(len(rows),)}.")
    return found


def _dot(rows: np.ndarray, z: np.ndarray) -> np.ndarray:
    return rows.reshape(len(rows), -1) @ z.reshape(len(z), -1).T


def _room(s: ArraySet, rows: np.ndarray) -> np.ndarray:
    """What rounding may explain: units in the last place of the sum of all moduli."""
    hull = np.max(np.abs(np.asarray(s.hull())), 0)
    eps = ULPS * np.finfo(s.aval.dtype).eps
    return eps * np.sum(np.abs(rows * hull), tuple(range(1, rows.ndim)))


def _check_members(name: str, s: ArraySet, z: np.ndarray, rows: np.ndarray) -> None:
    room, values = _room(s, rows), _dot(rows, z)
    lower, upper = _extrema(s, rows)
    for what, found in (("a member", values), ("point()", _dot(rows, np.asarray(s.point())[None]))):
        wrong = ~((lower - room)[:, None] <= found) | ~(found <= (upper + room)[:, None])
        if wrong.any():
            row, member = np.argwhere(wrong)[0]
            raise ExtensionError(
                f"{name}: the extrema of a linear form exclude {what}: it is {found[row, member]} "
                f"there, not between {lower[row]} and {upper[row]}, with the coefficients "
                f"{rows[row].tolist()}."
            )
    moved = _dot(rows, np.asarray(s.point())[None])[:, 0]
    found = _extrema(s, rows, from_point=True)
    _agree(f"{name}: extrema from_point", found, (lower - moved, upper - moved), room)


def _check_support(name: str, s: ArraySet, rows: np.ndarray) -> None:
    """The maximum of a linear form is convex and homogeneous in its coefficients."""
    (lower, upper), room = _extrema(s, rows), _room(s, rows)
    _agree(f"{name}: minima, and maxima of -a", lower, -_extrema(s, -rows)[1], room)
    _agree(f"{name}: extrema of 2 a", _extrema(s, 2 * rows)[1], 2 * upper, 2 * room)
    together = _extrema(s, rows + rows[::-1])[1]
    if (together > upper + upper[::-1] + room + room[::-1]).any():
        raise ExtensionError(f"{name}: the maximum of a + b is above those of a and of b together.")


def _check_hull(name: str, s: ArraySet, rows: np.ndarray) -> None:
    hull = s.hull()
    units = rows[_ROWS:]
    box = np.asarray(hull).reshape(2, -1)[:, : len(units)]
    room = _room(s, units)
    _agree(f"{name}: hull() and the extrema of single entries", _extrema(s, units), box, room)
    if s.is_box:
        expected = np.asarray(concretize_box(hull, jnp.asarray(rows)))
        _agree(f"{name}: is_box, and the extrema", _extrema(s, rows), expected, _room(s, rows))


def _check_in_jit(name: str, s: ArraySet, rows: np.ndarray) -> None:
    expected, room = _extrema(s, rows), _room(s, rows)
    leaves, structure = jax.tree.flatten(s)
    if any(isinstance(leaf, PerturbationSet) for leaf in leaves):
        raise ExtensionError(f"{name} is no pytree; use jax.tree_util.register_dataclass.")
    copy = jax.jit(lambda: jax.tree.unflatten(structure, leaves).concretize(jnp.asarray(rows)))()
    _agree(f"{name}: extrema in jax.jit", np.asarray(copy), expected, room)


def _check_mapped(name: str, s: ArraySet, z: np.ndarray, axis: int) -> None:
    """Each example along an axis lies in its own set, in which a new axis changes nothing."""
    try:
        axes = s.batch_axes(axis)
    except SetError:
        return
    shape = tuple(np.delete(s.aval.shape, axis))
    rows = jnp.asarray(np.random.default_rng(1).normal(size=(_ROWS, *shape)), s.aval.dtype)

    def extrema(own: ArraySet) -> tuple[Interval, Interval]:
        if own.aval.shape != shape:
            raise ExtensionError(f"{name}: batch_axes({axis}) leaves the shape {own.aval.shape}.")
        return own.concretize(rows), own.expand(axis).concretize(jnp.expand_dims(rows, axis + 1))

    found, expanded = map(np.asarray, jax.vmap(extrema, in_axes=(axes,))(s))
    hull = np.abs(np.moveaxis(np.asarray(s.hull()), axis + 1, 1)).max(0)
    size = np.stack([np.sum(np.abs(rows * h), tuple(range(1, rows.ndim))) for h in hull])
    room = ULPS * np.finfo(s.aval.dtype).eps * size
    _agree(f"{name}: extrema after batch_axes and expand({axis})", expanded, found, room)
    for k, (example, slack) in enumerate(zip(np.moveaxis(z, axis + 1, 0), room, strict=True)):
        values = _dot(np.asarray(rows), example)
        low, high = found[:, k]
        if not ((low - slack)[:, None] <= values).all() or (values > (high + slack)[:, None]).any():
            raise ExtensionError(
                f"{name}: mapped over axis {axis}, the set of example {k} excludes that of a "
                "member. If the axis cannot be mapped, let batch_axes raise a SetError."
            )


def _agree(
    what: str, found: np.ndarray, expected: np.ndarray | Sequence[np.ndarray], room: np.ndarray
) -> None:
    expected = np.asarray(expected)
    wrong = ~(np.abs(found - expected) <= 2 * room)
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0])
        raise ExtensionError(f"{what} do not agree: {found[at]} and {expected[at]}.")
