"""Intermediate bounds that remember the arguments for which they hold."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from jaxlirpa._arrays import is_floating, where
from jaxlirpa._errors import ArgumentError
from jaxlirpa._graph.jaxpr import is_traced
from jaxlirpa._intervals import Interval
from jaxlirpa._methods.arguments import Arguments
from jaxlirpa._methods.batching import map_examples
from jaxlirpa._types import Array, Bounds, PyTree
from jaxlirpa.sets import ArraySet, Box
from jaxlirpa.sets.inclusion import beyond, box_beyond
from jaxlirpa.sets.joint_ball import Concatenation


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class IntermediateBounds(Mapping[str, Bounds]):
    """Bounds of the values inside a function, with the arguments for which they hold.

    `intermediate_bounds` returns it. It reads like a dictionary from names to `Bounds`. When it is
    passed on as `intermediate`, it is checked against the arguments of the new call:

    * Every set must lie inside the set of the same argument in the earlier call. A perturbed
      argument may now be a known value, if that was a member of its set. Inside a ball, this is
      proved by the triangle inequality, or for all corners of the new set's hull.
    * Every other argument must be the same. Arrays are compared by a 24-bit checksum.

    If the check fails the call raises an `ArgumentError`. Where JAX traces the check (in `jit`,
    `vmap` and derivatives) nothing can be raised: the bounds are then ignored and interval bounds
    used. There is no tolerance: the same set passes, a set larger by one bit does not. Three things
    are not checked, and must be the same in both calls: what the functions close over, which value
    a name refers to, and known arguments that only one of the two functions takes.

    `bounds | {"mine": (lower, upper)}` adds bounds of your own, which are trusted, for the same
    arguments. `{**bounds}` is a plain dictionary; everything in it is trusted.

    It is a pytree, passes through JAX's transformations and can be pickled. To restore it from
    leaves saved to a file, unflatten them with the structure
    `jax.tree.structure(jax.eval_shape(intermediate_bounds(fn), *args))`.

    Attributes:
        bounds: the bounds by name.
        hulls: the smallest boxes around the sets, leaf by leaf: `1['w']` is leaf `['w']` of the
            second argument.
        sets: the sets that are no boxes, by the name of the leaf, or of the pytree that a
            `JointBall` is around.
        known: checksums of all other leaves that are numbers or arrays.

    Example:
        >>> import jax, jax.numpy as jnp, jaxlirpa
        >>> fn = lambda x: jax.nn.relu(jax.nn.relu(x + 1) - 1)
        >>> bounds = jaxlirpa.intermediate_bounds(fn)(jnp.array(0.0), 0.5)
        >>> print(*jaxlirpa.crown(fn, intermediate=bounds)(jnp.array(0.25), 0.0))
        0.25 0.25
        >>> try:
        ...     jaxlirpa.crown(fn, intermediate=bounds)(jnp.array(0.25), 0.5)
        ... except jaxlirpa.ArgumentError:
        ...     print("0.75 is not inside")
        0.75 is not inside
    """

    bounds: dict[str, Bounds]
    hulls: dict[str, Bounds]
    sets: dict[str, ArraySet]
    known: dict[str, Array]

    def __getitem__(self, name: str) -> Bounds:
        return self.bounds[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.bounds)

    def __len__(self) -> int:
        return len(self.bounds)

    def __or__(self, own: Mapping[str, Any]) -> IntermediateBounds:
        """These bounds and some of the user's own, for the same arguments."""
        if isinstance(own, IntermediateBounds) or not isinstance(own, Mapping):
            return NotImplemented
        return dataclasses.replace(self, bounds={**self.bounds, **own})


def remembered(bounds: dict[str, Bounds], call: Arguments) -> IntermediateBounds:
    """The bounds that a call has found, with the arguments of that call."""
    lower, upper = (_leaves(limits) for limits in _limits(call, known=False))
    hulls = {name: Bounds(lower[name], upper[name]) for name in lower}
    sets = {name: s for name, s in _sets(call).items() if not s.is_box}
    return IntermediateBounds(bounds, hulls, sets, _checksums(_known(call)))


def admitted(call: Arguments, given: Mapping[str, Any] | None, in_axes: PyTree) -> Any:
    """The given bounds that may be used in a call: a dictionary, or None.

    Raises:
        ArgumentError: where `IntermediateBounds` do not hold for the arguments. Where that is
            traced, their limits are replaced by infinite ones instead.
    """
    if not isinstance(given, IntermediateBounds):
        return given
    if in_axes is None:
        beyond = _beyond(call, given)
    else:
        beyond = map_examples(_beyond, call, in_axes, None, given)
    for name, by in beyond.items():
        if not is_traced(by) and np.any(np.asarray(by) != 0):
            if name in given.known:
                _refuse(f"they were found with another value of argument {name}")
            _refuse(
                f"argument {name} goes beyond the set that they were found for, by {np.max(by):.3g}"
            )
    useless = functools.reduce(jnp.logical_or, (by != 0 for by in beyond.values()))
    if not is_traced(useless):
        return given.bounds
    return {name: _unless(useless, limits) for name, limits in given.items()}


def _unless(useless: Array, limits: Any) -> Any:
    """The limits, or infinite ones if `useless`; what is no pair of limits is refused later."""
    if not isinstance(limits, tuple | list) or len(limits) != 2:
        return limits
    sides = [
        where(useless.reshape(*useless.shape, *[1] * (x.ndim - useless.ndim)), nothing, x)
        if is_floating(x) and x.ndim >= useless.ndim
        else x
        for x, nothing in zip(map(jnp.asarray, limits), (-jnp.inf, jnp.inf), strict=True)
    ]
    return Bounds(*sides)


def _beyond(call: Arguments, saved: IntermediateBounds) -> dict[str, Array]:
    """By how much each argument lies outside its saved set; zero where the bounds hold."""
    lower, upper = (_leaves(limits) for limits in _limits(call, known=True))
    for name in _leaves(_limits(call, known=False)[0]):
        if name not in saved.hulls:
            _refuse(f"argument {name} is perturbed, and was not when they were found")
    found = {}
    for name, hull in saved.hulls.items():
        if name not in lower:
            _refuse(f"argument {name} was perturbed when they were found, and is not there")
        box = Interval(lower[name], upper[name])
        shape, present = jnp.shape(hull.lower), jnp.shape(lower[name])
        if shape != present:
            _refuse(f"argument {name} has shape {present}, and had {shape} when they were found")
        found[name] = box_beyond(*jax.lax.stop_gradient((Interval(*hull), box)))
    sets = _sets(call)
    for name, outer in saved.sets.items():
        inner = sets.get(name)
        if inner is None or inner.aval.shape != outer.aval.shape:
            inner = Box.of(_joined(name, limits, saved.hulls) for limits in (lower, upper))
        by = beyond(*jax.lax.stop_gradient((outer, inner)))
        found[name] = jnp.maximum(by, found.get(name, 0))
    now = _known(call)
    checksums = _checksums({name: now[name] for name in now.keys() & saved.known.keys()})
    for name, checksum in checksums.items():
        found[name] = where(saved.known[name] == checksum, 0, jnp.inf)
    return found


def _refuse(what: str) -> NoReturn:
    raise ArgumentError(
        f"the bounds given as intermediate do not hold for this call: {what}. Find them by "
        "jaxlirpa.intermediate_bounds on sets that contain those of all later calls, with the same "
        "known arguments; or hand in a plain dictionary, {**bounds}, which is taken at its word."
    )


def _limits(call: Arguments, known: bool) -> tuple[PyTree, PyTree]:
    """The arguments with the lower limits of the sets, and with the upper ones."""
    hulls = [s.hull() for s in call.sets]
    leaves = call.leaves if known else [None] * len(call.leaves)
    lower, upper = (call.fill([hull[side] for hull in hulls], leaves) for side in (0, 1))
    return lower, upper


def _sets(call: Arguments) -> dict[str, ArraySet]:
    """The sets by the name of the leaf, or of the pytree that a joint set is around."""
    numbered = jax.tree.unflatten(call.structure, range(len(call.leaves)))
    names, supply, found = list(_leaves(numbered)), iter(call.sets), {}
    for position, structure in call.slots:
        if isinstance(structure, Concatenation):
            found[names[position]] = next(supply)
            continue
        inner = structure.unflatten(range(structure.num_leaves))
        for path, _ in jax.tree_util.tree_leaves_with_path(inner):
            found[names[position] + jax.tree_util.keystr(path)] = next(supply)
    return found


def _joined(name: str, arrays: Mapping[str, Any], perturbed: Mapping[str, Any]) -> Array:
    """A leaf, or the vector of the perturbed leaves of a pytree of that name."""
    if name in arrays:
        return jnp.asarray(arrays[name])
    own = [
        x
        for leaf, x in arrays.items()
        if leaf in perturbed and leaf.startswith((f"{name}[", f"{name}."))
    ]
    return jnp.concatenate([jnp.ravel(x) for x in own])


def _known(call: Arguments) -> dict[str, Any]:
    """The leaves that are not perturbed and are numbers or arrays."""
    leaves = _leaves(jax.tree.unflatten(call.structure, call.leaves))
    return {name: leaf for name, leaf in leaves.items() if _is_numeric(leaf)}


def _is_numeric(leaf: Any) -> bool:
    if isinstance(leaf, bool | int | float | complex):
        return True
    dtype = getattr(leaf, "dtype", None)
    kinds = (jnp.number, jnp.bool_, jax.dtypes.prng_key)
    return dtype is not None and any(jnp.issubdtype(dtype, kind) for kind in kinds)


def _leaves(arguments: PyTree) -> dict[str, Any]:
    """The leaves by the number of the argument and where they are in it."""
    found = jax.tree_util.tree_leaves_with_path(arguments)
    return {f"{path[0].idx}{jax.tree_util.keystr(path[1:])}": leaf for path, leaf in found}


@jax.jit
def _checksums(leaves: dict[str, Any]) -> dict[str, Array]:
    """A 24-bit checksum of each leaf, as a float, so that differentiating it gives zero."""
    return {name: _checksum(leaf) for name, leaf in leaves.items()}


def _checksum(x: Array) -> Array:
    """A checksum of the entries and their positions, by the finaliser of MurmurHash3."""
    x = jax.lax.stop_gradient(x)
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        x = jnp.stack([x.real, x.imag])
    if is_floating(x):
        x = x.astype(jnp.float32) if x.dtype.itemsize < 4 else x
        bits = jax.lax.bitcast_convert_type(x, jnp.uint32).reshape(-1)
    else:
        bits = x.astype(jnp.uint32).reshape(-1)
    mixed = bits + jnp.arange(bits.size, dtype=jnp.uint32) * np.uint32(0x9E3779B9)
    mixed = (mixed ^ (mixed >> 16)) * np.uint32(0x85EBCA6B)
    mixed = (mixed ^ (mixed >> 13)) * np.uint32(0xC2B2AE35)
    total = jnp.sum(mixed ^ (mixed >> 16), dtype=jnp.uint32)
    return (total >> 8).astype(jnp.float32)
