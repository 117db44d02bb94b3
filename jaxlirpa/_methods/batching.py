"""Independent examples: a method on one of them, mapped over all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxlirpa._errors import ArgumentError
from jaxlirpa._methods.arguments import Arguments
from jaxlirpa._methods.solution import Optimized
from jaxlirpa._types import Array, LinearBounds, PyTree
from jaxlirpa.sets import ArraySet
from jaxlirpa.sets.joint_ball import Concatenation


def map_examples(
    joint: Callable[[Arguments, PyTree], Any],
    call: Arguments,
    in_axes: PyTree,
    out_axes: int | None,
    given: PyTree = None,
) -> Any:
    """`jax.vmap` of a joint call on a batch of one example.

    Args:
        joint: bounds one call, by what else is given.
        call: the arguments with all examples.
        in_axes: a prefix of the arguments, an axis or None a leaf; a set is one leaf.
        out_axes: the axis of fn's outputs that indexes the examples; None: the result is not
            shaped like fn's outputs, and that of every example is kept as it is, in one more axis
            in front.
        given: arrays whose leading axes number the examples.

    Raises:
        ArgumentError: where in_axes does not fit, the numbers of examples differ, or the output
            of a batch of one has no axis of size one at out_axes.
    """
    axes = _leaf_axes(call, in_axes)
    _check_joint(call, axes)
    names = call.leaf_names()
    places = [i for i, structure in call.slots for _ in range(structure.num_leaves)]
    set_axes = [
        None if axes[i] is None else _positive(axes[i], s.aval.shape, names[i])
        for i, s in zip(places, call.sets, strict=True)
    ]
    known_axes = {
        i: _positive(axis, _shape(leaf), names[i])
        for i, (axis, leaf) in enumerate(zip(axes, call.leaves, strict=True))
        if axis is not None and leaf is not None
    }
    known = {i: call.leaves[i] for i in known_axes}
    sizes = [
        (names[i], s.aval.shape[axis])
        for i, s, axis in zip(places, call.sets, set_axes, strict=True)
        if axis is not None
    ]
    sizes += [(names[i], _shape(call.leaves[i])[axis]) for i, axis in known_axes.items()]
    _check_sizes(sizes, given)

    def single(sets: list[ArraySet], leaves: dict[int, Any], given: PyTree) -> Any:
        pairs = zip(sets, set_axes, strict=True)
        expanded = tuple(s if axis is None else s.expand(axis) for s, axis in pairs)
        filled = list(call.leaves)
        for i, leaf in leaves.items():
            filled[i] = jnp.expand_dims(leaf, known_axes[i])
        one = dataclasses.replace(call, leaves=tuple(filled), sets=expanded)
        result = joint(one, given)
        return (
            result
            if out_axes is None
            else _of_bounds(
                lambda x: _drop_example_axis(x, _coefficient_axes(call, set_axes), out_axes), result
            )
        )

    pairs = zip(call.sets, set_axes, strict=True)
    mapped = [None if axis is None else s.batch_axes(axis) for s, axis in pairs]
    result = jax.vmap(single, in_axes=(mapped, known_axes, 0))(list(call.sets), known, given)
    if out_axes is None:
        return result
    return _of_bounds(
        lambda x: _each_output(x, lambda y, ndim: jnp.moveaxis(y, 0, out_axes % ndim)), result
    )


def _of_bounds(change: Callable[[Any], Any], result: Any) -> Any:
    """Changes bounds; what may come with them is not shaped like an output."""
    if isinstance(result, Optimized):
        return result._replace(bounds=change(result.bounds))
    return change(result)


def _check_joint(call: Arguments, axes: list[int | None]) -> None:
    """A ball over all leaves together is none of each example."""
    for position, structure in call.slots:
        if axes[position] is not None and isinstance(structure, Concatenation):
            raise ArgumentError(
                "in_axes maps a JointBall, which is no set of one example. Map its centre instead: "
                "jax.vmap(lambda center: jaxlirpa.crown(fn)(jaxlirpa.JointBall(center, radius)))."
            )


def _leaf_axes(call: Arguments, in_axes: PyTree) -> list[int | None]:
    """The axis, or None, of every leaf of the arguments (a set is one leaf)."""
    numbered = jax.tree.unflatten(call.structure, range(len(call.leaves)))[: len(call.names)]
    prefix = (in_axes,) * len(numbered) if isinstance(in_axes, int) else in_axes
    if not isinstance(prefix, tuple | list) or len(prefix) != len(numbered):
        raise ArgumentError(
            f"in_axes={in_axes!r} must be an axis, or have an entry for each of the arguments "
            f"{', '.join(call.names)}, of which there are {len(numbered)} (eps is not among them)."
        )
    axes: list[int | None] = [None] * len(call.leaves)

    def assign(axis: Any, below: PyTree) -> None:
        if axis is not None and not isinstance(axis, int):
            raise ValueError(f"{axis!r} is no axis")
        for i in jax.tree.leaves(below):
            axes[i] = axis

    for name, own, argument in zip(call.names, prefix, numbered, strict=True):
        try:
            jax.tree.map(assign, own, argument, is_leaf=lambda x: x is None)
        except ValueError:
            raise ArgumentError(
                f"in_axes has {own!r} for `{name}`: it must be an axis, None, or a pytree of them "
                "that is a prefix of that argument (of which a set is one leaf)."
            ) from None
    return axes


def _positive(axis: Any, shape: tuple[int, ...], name: str) -> int:
    if not -len(shape) <= axis < len(shape):
        raise ArgumentError(f"in_axes maps axis {axis} of `{name}`, which has shape {shape}.")
    return int(axis % len(shape))


def _shape(leaf: Any) -> tuple[int, ...]:
    return tuple(getattr(leaf, "shape", ()))


def _check_sizes(sizes: Sequence[tuple[str, int]], given: PyTree) -> None:
    """Whether all arguments, by name, have as many examples as what else is given."""
    if len({size for _, size in sizes}) != 1:
        listed = ", ".join(f"{size} of `{name}`" for name, size in dict.fromkeys(sizes))
        raise ArgumentError(
            f"in_axes maps axes of different sizes, or none: {listed or 'it has no axis at all'}. "
            "The examples are numbered by one axis of some arguments; the others have None."
        )
    _, size = sizes[0]
    for shape in map(jnp.shape, jax.tree.leaves(given)):
        if shape[:1] != (size,):
            raise ArgumentError(
                f"in_axes maps {size} examples, but the bounds given as intermediate have "
                f"an array of shape {shape}, whose first axis is not that long. "
                "jaxlirpa.intermediate_bounds(fn, in_axes=...)(...) returns bounds that fit."
            )


def _coefficient_axes(call: Arguments, set_axes: list[int | None]) -> list[int | None]:
    """The axes of the leaves of linear bounds, which has all leaves of a joint ball."""
    supply, axes = iter(set_axes), []
    for _, structure in call.slots:
        own = [next(supply) for _ in range(structure.num_leaves)]
        axes += own * len(structure.shapes) if isinstance(structure, Concatenation) else own
    return axes


def _drop_example_axis(result: Any, set_axes: list[int | None], out_axes: int) -> Any:
    """The result for one example, without the axes of size one in outputs and coefficients."""

    def squeeze(x: Array, ndim: int) -> Array:
        if not -ndim <= out_axes < ndim or x.shape[out_axes % ndim] != 1:
            raise ArgumentError(
                f"fn was called with a batch of one example and returned shape {x.shape[:ndim]}, "
                f"which has no axis of size one at out_axes={out_axes}. in_axes needs a function "
                "whose outputs keep the examples apart."
            )
        return jnp.squeeze(x, out_axes % ndim)

    if isinstance(result, LinearBounds):
        result = _drop_input_axes(result, set_axes)
    return _each_output(result, squeeze)


def _drop_input_axes(result: LinearBounds, set_axes: list[int | None]) -> LinearBounds:
    """The coefficients on one example's own entries, without its axis of size one."""

    def drop(offset: Array, coefficients: PyTree) -> PyTree:
        leaves, structure = jax.tree.flatten(coefficients)
        pairs = zip(leaves, set_axes, strict=True)
        kept = [x if a is None else jnp.squeeze(x, offset.ndim + a) for x, a in pairs]
        return jax.tree.unflatten(structure, kept)

    return result._replace(
        lower_coefficients=jax.tree.map(drop, result.lower_offset, result.lower_coefficients),
        upper_coefficients=jax.tree.map(drop, result.upper_offset, result.upper_coefficients),
    )


def _each_output(result: Any, change: Callable[[Array, int], Array]) -> Any:
    """Changes every array of a result, given the number of axes that number outputs."""

    def own(x: Array) -> Array:
        return change(x, x.ndim)

    def below(offset: Array, coefficients: PyTree) -> PyTree:
        return jax.tree.map(lambda x: change(x, offset.ndim), coefficients)

    if not isinstance(result, LinearBounds):
        return jax.tree.map(own, result)
    return LinearBounds(
        jax.tree.map(below, result.lower_offset, result.lower_coefficients),
        jax.tree.map(own, result.lower_offset),
        jax.tree.map(below, result.upper_offset, result.upper_coefficients),
        jax.tree.map(own, result.upper_offset),
    )
