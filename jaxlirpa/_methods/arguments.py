"""The calling convention: which leaves of which arguments are perturbed, and by what."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from jaxlirpa._errors import ArgumentError, SetError
from jaxlirpa._methods import signature
from jaxlirpa._types import PyTree
from jaxlirpa.sets import ArraySet, LpBall
from jaxlirpa.sets.base import is_set

_NOTHING: Mapping[str, Any] = {}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """A function's arguments, flattened: known leaves, and sets with their structures.

    Attributes:
        leaves: known leaves as given; None in a set's place.
        slots: for each leaf that is a set, its position and the structure of its centre.
        sets: one set an array, in order.
        structure: of the tuple of the arguments, a set being a leaf. What is passed by keyword is
            one dictionary, behind the others; all of it is known.
        names: of the arguments by position.
    """

    leaves: tuple[Any, ...]
    slots: tuple[tuple[int, Any], ...]
    sets: tuple[ArraySet, ...]
    structure: Any
    names: tuple[str, ...]

    @property
    def named(self) -> dict[str, Any]:
        """What is passed by keyword."""
        rest = jax.tree.unflatten(self.structure, self.leaves)[len(self.names) :]
        return rest[0] if rest else {}

    def fill(self, arrays: Sequence[PyTree], leaves: Sequence[Any] | None = None) -> tuple:
        """The arguments by position, with one object an array in the sets' places."""
        filled, supply = list(self.leaves if leaves is None else leaves), iter(arrays)
        for position, structure in self.slots:
            parts = [next(supply) for _ in range(structure.num_leaves)]
            filled[position] = structure.unflatten(parts)
        return jax.tree.unflatten(self.structure, filled)[: len(self.names)]

    def leaf_names(self) -> list[str]:
        """What to call every leaf: `params['w']`, say."""
        numbered = jax.tree.unflatten(self.structure, range(len(self.leaves)))
        paths = jax.tree_util.tree_leaves_with_path(numbered)
        return [_name(path, (*self.names, "")) for path, _ in paths]


def arguments(
    fn: Callable[..., PyTree],
    args: Sequence[Any],
    argnums: Any,
    named: Mapping[str, Any] = _NOTHING,
) -> Arguments:
    """The arguments of `fn` in a call of its transformed version.

    Args:
        fn: the function.
        args: fn's arguments, some leaves of which are sets; or, if none is, and `eps`.
        argnums: which arguments `eps` perturbs.
        named: more arguments of fn by name, and `eps`, unless fn has one of its own. What fn has
            to be given counts as if it were given by position; the others are known.

    Raises:
        ArgumentError: where the arguments do not fit, eps is missing or given twice, or nothing is
            perturbed.
        SetError: where a set is not valid.
    """
    args, named = signature.positional(fn, args, named)
    eps = None if signature.has_own_radius(fn) else named.pop(signature.RADIUS, None)
    _check_names(fn, args, named)
    given = any(map(is_set, jax.tree.leaves(args, is_leaf=is_set)))
    _check_count(fn, args, named, given, eps, argnums)
    if given and argnums is not None:
        raise ArgumentError("argnums says what eps perturbs, but an argument already is a set.")
    if not given and eps is None:
        *args, eps = args
    names = signature.names(fn, len(args))
    full = tuple(args) if given else _with_eps(args, names, eps, argnums)
    everything = (*full, named) if named else full
    leaves, structure = jax.tree_util.tree_flatten_with_path(everything, is_leaf=is_set)
    split = {i: _split(x, path, names) for i, (path, x) in enumerate(leaves) if is_set(x)}
    sets = tuple(s for found, _ in split.values() for s in found)
    if not sets:
        raise ArgumentError("nothing is perturbed: the perturbed arguments have no leaves.")
    return Arguments(
        leaves=tuple(None if i in split else leaf for i, (_, leaf) in enumerate(leaves)),
        slots=tuple((i, inner) for i, (_, inner) in split.items()),
        sets=sets,
        structure=structure,
        names=tuple(names),
    )


def _name(path: Sequence[Any], names: Sequence[str]) -> str:
    """What to call a leaf of the arguments, by the path to it."""
    first, *rest = path
    return f"{names[first.idx]}{jax.tree_util.keystr(tuple(rest))}"


def _split(found: Any, path: Sequence[Any], names: Sequence[str]) -> Any:
    """The sets of arrays that a set is made of; errors say whose."""
    try:
        return found.split()
    except SetError as error:
        raise SetError(f"argument `{_name(path, names)}`: {error}") from error


def _with_eps(args: Sequence[Any], names: Sequence[str], eps: Any, argnums: Any) -> tuple[Any, ...]:
    """The arguments with L-infinity balls of radius eps put in place.

    Args:
        args, names: the arguments.
        eps: a radius of all of them, or a tuple of as many as `argnums` has numbers.
        argnums: a number, several, or None: the last argument.
    """
    numbers = _numbers(argnums, names)
    radii: Sequence[Any] = [eps] * len(numbers)
    if isinstance(argnums, Sequence) and isinstance(eps, tuple | list):
        if len(eps) != len(numbers):
            raise ArgumentError(
                f"eps has {len(eps)} radii for the {len(numbers)} arguments that argnums={argnums} "
                "names. Give one radius for all, or a tuple of one for each."
            )
        radii = eps
    perturbed = list(args)
    for n, radius in zip(numbers, radii, strict=True):
        perturbed[n] = LpBall(args[n], radius)
    return tuple(perturbed)


def _numbers(argnums: Any, names: Sequence[str]) -> list[int]:
    """The numbers of the arguments that eps perturbs."""
    listed = ", ".join(f"{i}: {name}" for i, name in enumerate(names))
    try:
        several = argnums if isinstance(argnums, Sequence) else [argnums]
        numbers = [len(names) - 1] if argnums is None else [operator.index(n) for n in several]
    except TypeError:
        raise ArgumentError(
            f"argnums={argnums!r} must be the number of an argument, or a tuple of such ({listed})."
        ) from None
    if any(not -len(names) <= n < len(names) for n in numbers):
        raise ArgumentError(
            f"argnums={argnums} is out of range for {len(names)} arguments ({listed}); eps is not "
            "numbered."
        )
    numbers = [n % len(names) for n in numbers]
    if len({*numbers}) < len(numbers):
        raise ArgumentError(f"argnums={argnums} names an argument twice ({listed}).")
    return numbers


def _check_names(fn: Callable[..., PyTree], args: Sequence[Any], named: Mapping[str, Any]) -> None:
    """Refuses keywords that `fn` does not have, and sets in their places."""
    name, described = signature.called(fn), signature.described(fn)
    for keyword, value in named.items():
        if any(map(is_set, jax.tree.leaves(value, is_leaf=is_set))):
            raise ArgumentError(
                f"{name} got a set as {keyword}=, but what is passed by keyword is known exactly. "
                f"Bound `lambda {keyword}: {name}(..., {keyword}={keyword})`, with the set as its "
                "argument."
            )
        if not signature.takes(fn, keyword):
            raise ArgumentError(
                f"{described} has no argument `{keyword}`. The radius is called eps, and options "
                f"are given to the transform: jaxlirpa.crown({name}, {keyword}=...)(...)."
            )
    if named and not args:
        raise ArgumentError(
            f"{described} got nothing by position, but what is passed by keyword is known "
            f"exactly. Bound a function whose first argument is perturbed: `lambda x: {name}(...)`."
        )


def _check_count(
    fn: Callable[..., PyTree],
    args: Sequence[Any],
    named: Mapping[str, Any],
    given: bool,
    eps: Any,
    argnums: Any,
) -> None:
    """Compares the number of positional arguments with fn's signature, where that is known."""
    name = signature.described(fn)
    count, apart = len(args), given or eps is not None

    def takes(n: int) -> bool:
        return n > 0 and signature.misfit(fn, n, named) is None

    if given and eps is not None:
        raise ArgumentError(
            f"{name} got eps= although one of its arguments is a set: eps is given twice. Leave "
            "out eps, or the set."
        )
    if takes(count if apart else count - 1):
        return
    if given and takes(count - 1):
        raise ArgumentError(
            f"{name} got {count} arguments although one of them is a set: eps is given twice. "
            "Leave out the last argument, or the set, which stands in an argument's own place."
        )
    if eps is not None and takes(count - 1):
        raise ArgumentError(
            f"{name} got {count} arguments and eps= as well: eps is given twice. Leave one out."
        )
    if not apart and takes(count):
        own = signature.has_own_radius(fn)
        advice = "as its last argument, because eps= is its own" if own else "eps"
        raise ArgumentError(
            f"eps is missing: no argument of {name} is a set (Box, LpBall), so one more "
            f"argument is needed, the radius {advice}."
        )
    reason = signature.misfit(fn, count if apart else count - 1, named)
    tuple_of_radii = "" if argnums is None else " Several radii are one tuple: eps=(0.1, 0.2)."
    raise ArgumentError(
        f"{name} got {count} arguments that are not its arguments{'' if apart else ' and eps last'}"
        f"{f' ({reason})' if reason and count else ''}.{tuple_of_radii}"
    )
