"""The names of a function's arguments, and the signature of its transformed version."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter
from typing import Any

from jaxlirpa._types import PyTree

RADIUS = "eps"
_BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
_BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


def signature(fn: Callable[..., PyTree]) -> inspect.Signature | None:
    """The signature of `fn`, or None where Python knows none."""
    try:
        return inspect.signature(fn)
    except (TypeError, ValueError):
        return None


def called(fn: Callable[..., PyTree]) -> str:
    """The name of `fn` for a message."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return str(getattr(fn, "__name__", type(fn).__name__))


def described(fn: Callable[..., PyTree]) -> str:
    """The name and signature of `fn` for a message."""
    known = signature(fn)
    if known is None:
        return called(fn)
    empty = Parameter.empty
    parts = [
        f"{p.replace(annotation=empty, default=empty)}{'' if p.default is empty else '=...'}"
        for p in known.parameters.values()
    ]
    return f"{called(fn)}({', '.join(parts)})"


def has_own_radius(fn: Callable[..., PyTree]) -> bool:
    """Whether `fn` has an argument of its own named `eps`."""
    known = signature(fn)
    return known is not None and RADIUS in known.parameters


def names(fn: Callable[..., PyTree], count: int) -> list[str]:
    """The names of the first arguments of `fn`."""
    known = signature(fn)
    found: list[str] = []
    for p in known.parameters.values() if known else ():
        if p.kind in _BY_POSITION:
            found.append(p.name)
        elif p.kind is Parameter.VAR_POSITIONAL:
            found += [f"{p.name}[{i}]" for i in range(count - len(found))]
    return (found + [f"argument {i}" for i in range(len(found), count)])[:count]


def positional(
    fn: Callable[..., PyTree], args: Sequence[Any], named: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same call with required arguments by position, wherever they were passed by keyword."""
    known, args, named = signature(fn), list(args), dict(named)
    for p in [*known.parameters.values()][len(args) :] if known else ():
        if p.kind is not Parameter.POSITIONAL_OR_KEYWORD or p.name not in named:
            break
        if p.default is not Parameter.empty:
            break
        args.append(named.pop(p.name))
    return tuple(args), named


def takes(fn: Callable[..., PyTree], name: str) -> bool:
    """Whether `fn` accepts a keyword of that name; True where its signature is unknown."""
    known = signature(fn)
    parameters = known.parameters if known else {}
    named = name in parameters and parameters[name].kind in _BY_NAME
    return not known or named or any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values())


def misfit(fn: Callable[..., PyTree], count: int, named: Mapping[str, Any]) -> str | None:
    """Python's error message for a call with `count` positional arguments; None if it fits."""
    known = signature(fn)
    if known is None:
        return None
    try:
        known.bind(*[None] * count, **named)
    except TypeError as error:
        return str(error)
    return None


def with_radius(fn: Callable[..., PyTree]) -> inspect.Signature | None:
    """The signature of fn's transformed version: the radius follows the required arguments.

    Optional arguments become keyword-only, so that a last positional argument can only be the
    radius. If `fn` has an `eps` of its own, the radius is positional only.
    """
    known = signature(fn)
    if known is None:
        return None
    first, rest = [], []
    for p in known.parameters.values():
        optional = p.kind is Parameter.POSITIONAL_OR_KEYWORD and p.default is not Parameter.empty
        if optional or p.kind is Parameter.KEYWORD_ONLY:
            rest.append(p.replace(kind=Parameter.KEYWORD_ONLY))
        elif p.kind is not Parameter.VAR_KEYWORD:
            first.append(p)
    variadic = any(p.kind is Parameter.VAR_POSITIONAL for p in first)
    if RADIUS not in known.parameters:
        kind = Parameter.KEYWORD_ONLY if variadic else Parameter.POSITIONAL_OR_KEYWORD
        first.append(Parameter(RADIUS, kind, default=None))
    elif not variadic:
        name = "radius" if "radius" not in known.parameters else "radius_of_set"
        first.append(Parameter(name, Parameter.VAR_POSITIONAL))
    any_name = [p for p in known.parameters.values() if p.kind is Parameter.VAR_KEYWORD]
    return inspect.Signature([*first, *rest, *any_name])


def standing_for(
    function: Callable[..., Any], fn: Callable[..., PyTree], own: inspect.Signature | None
) -> Callable[..., Any]:
    """`function` with the given signature; JAX's messages point to where `fn` is defined."""
    stand_in: Any = function
    if own is not None:
        stand_in.__signature__ = own
    if hasattr(inspect.unwrap(fn), "__code__"):
        stand_in.__wrapped__ = fn
    return function
