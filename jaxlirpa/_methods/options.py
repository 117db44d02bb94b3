"""What a transform is called with: a function, and options by the names that it has."""

from __future__ import annotations

import difflib
import functools
import inspect
import operator
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from jaxlirpa._errors import ArgumentError

P = ParamSpec("P")
R = TypeVar("R")


def checked(transform: Callable[P, R]) -> Callable[P, R]:
    """A transform that says what to do where it is called with something else.

    Raises:
        ArgumentError: where the first argument is no function, it is not the only one
            that is given by position, or there is no such option.
    """
    parameters = inspect.signature(transform).parameters
    name, options = transform.__name__, [*parameters][1:]

    def check(args: tuple[Any, ...], named: dict[str, Any]) -> None:
        if args and not callable(args[0]):
            raise ArgumentError(
                f"{name} bounds a function, and no {type(args[0]).__name__}. Hand in the function "
                f"itself, and its arguments to what {name} returns: {_usage(name)}."
            )
        if len(args) > 1:
            raise ArgumentError(
                f"{name} takes the function alone, and options by name. Arguments are those of "
                f"the function that it returns: {_usage(name)}."
            )
        for option in named.keys() - parameters.keys():
            close = difflib.get_close_matches(option, options, 1, 0.5)
            advice = f"Is it `{close[0]}`?" if close else f"Options are {', '.join(options)}."
            raise ArgumentError(
                f"{name} has no option `{option}`. {advice} Arguments, and the radius eps, are "
                f"those of the function that it returns: {_usage(name)}."
            )

    @functools.wraps(transform)
    def called(*args: P.args, **named: P.kwargs) -> R:
        check(args, named)
        return transform(*args, **named)

    return called


def _usage(name: str) -> str:
    return f"jaxlirpa.{name}(fn)(*args, eps)"


def whole_number(name: str, value: Any, least: int) -> None:
    """Refuses an option that is given and is no whole number, or a smaller one than the least.

    Raises:
        ArgumentError: where it is refused.
    """
    if value is None:
        return
    try:
        fits = not isinstance(value, bool) and operator.index(value) >= least
    except TypeError:
        fits = False
    if not fits:
        raise ArgumentError(f"{name} must be a whole number, {least} or more, and not {value!r}.")
