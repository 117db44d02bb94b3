"""The calling convention: which leaves of which arguments are perturbed, and by what."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxlirpa._errors import ArgumentError
from jaxlirpa._typing import PyTree
from jaxlirpa.sets import ArraySet, LpBall
from jaxlirpa.sets.base import is_set


@dataclasses.dataclass(frozen=True)
class Arguments:
    """A function's arguments, flattened: known leaves, and sets with their structures.

    Attributes:
        leaves: known leaves as given; None in a set's place.
        slots: for each leaf that is a set, its position and the structure of its centre.
        sets: one set an array, in order.
        structure: of the arguments, a set being a leaf.
    """

    leaves: tuple[Any, ...]
    slots: tuple[tuple[int, Any], ...]
    sets: tuple[ArraySet, ...]
    structure: Any

    def fill(self, arrays: Sequence[PyTree], leaves: Sequence[Any] | None = None) -> tuple:
        """The arguments with one object an array in the sets' places."""
        filled, supply = list(self.leaves if leaves is None else leaves), iter(arrays)
        for position, structure in self.slots:
            parts = [next(supply) for _ in range(structure.num_leaves)]
            filled[position] = structure.unflatten(parts)
        return jax.tree.unflatten(self.structure, filled)


def arguments(fn: Callable[..., PyTree], args: Sequence[Any], argnums: Any) -> Arguments:
    """The arguments of `fn` in a call of its transformed version.

    Args:
        fn: the function.
        args: fn's arguments, some leaves of which are sets; or, if none is, and `eps`.
        argnums: which arguments `eps` perturbs.

    Raises:
        ArgumentError: where the number of arguments is wrong, eps is missing or given twice, or
            nothing is perturbed.
        SetError: where a set is not valid.
    """
    given = any(map(is_set, jax.tree.leaves(args, is_leaf=is_set)))
    _check_count(fn, len(args), given)
    if given and argnums is not None:
        raise ArgumentError("argnums says what eps perturbs, but an argument already is a set.")
    full = tuple(args) if given else _with_eps(args, argnums)
    leaves, structure = jax.tree.flatten(full, is_leaf=is_set)
    split = {i: leaf.split() for i, leaf in enumerate(leaves) if is_set(leaf)}
    sets = tuple(s for found, _ in split.values() for s in found)
    if not sets:
        raise ArgumentError("nothing is perturbed: the perturbed arguments have no leaves.")
    return Arguments(
        leaves=tuple(None if i in split else leaf for i, leaf in enumerate(leaves)),
        slots=tuple((i, inner) for i, (_, inner) in split.items()),
        sets=sets,
        structure=structure,
    )


def _with_eps(args: Sequence[Any], argnums: int | Sequence[int] | None) -> tuple[Any, ...]:
    """The arguments with L-infinity balls of radius eps, the last of them, put in place."""
    *rest, eps = args
    numbers = (len(rest) - 1,) if argnums is None else argnums
    numbers = (numbers,) if isinstance(numbers, int) else tuple(numbers)
    if any(not -len(rest) <= n < len(rest) for n in numbers):
        raise ArgumentError(f"argnums={argnums} is out of range for {len(rest)} arguments.")
    for n in {n % len(rest) for n in numbers}:
        rest[n] = LpBall(rest[n], eps)
    return tuple(rest)


def _check_count(fn: Callable[..., PyTree], count: int, given: bool) -> None:
    """Compares the number of positional arguments with fn's signature, where that is known."""
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):
        return

    def takes(n: int) -> bool:
        try:
            signature.bind(*[None] * n)
        except TypeError:
            return False
        return n > 0

    name = getattr(fn, "__name__", "the function")
    if takes(count if given else count - 1):
        return
    if given and takes(count - 1):
        raise ArgumentError(
            f"{name}{signature} got {count} arguments although one of them is a set: eps is given "
            "twice. Leave out the last argument, or the set."
        )
    if not given and takes(count):
        raise ArgumentError(
            f"eps is missing: no argument of {name}{signature} is a set (Box, LpBall), so one more "
            "argument is needed, the radius eps."
        )
    expected = f"its arguments{'' if given else ' and eps last'}"
    raise ArgumentError(f"{name}{signature} got {count} arguments that are not {expected}.")
