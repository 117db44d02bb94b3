"""What users declare: primitives of their own, and functions that are bounded whole.

A primitive is recognised by its identity, a function by the trace that it leaves, line by line
(`_graph/recognise.py`). Names only number the entries: no other primitive and no other function
can be taken for a declared one.
"""

from __future__ import annotations

import itertools
import weakref
from typing import Any, Protocol

from jaxlirpa._graph.recognise import LibraryFunction, Vocabulary
from jaxlirpa._ops.families import Elementwise, Record
from jaxlirpa._ops.named import VOCABULARY
from jaxlirpa._types import Array

PRIMITIVES: dict[Any, str] = {}
"""The name of the record of every declared primitive."""

RECORDS: dict[str, Record] = {}
"""The records of declared primitives."""

_PREFIX = "extend."
_numbers = itertools.count()


class Function(Protocol):
    """A declared function: what it is, and how to evaluate it as one call in a trace."""

    record: Elementwise

    def __call__(self, x: Array) -> Array: ...


# A function stays for as long as somebody can call it, or holds a trace that does.
_FUNCTIONS: weakref.WeakValueDictionary[str, Function] = weakref.WeakValueDictionary()


def name_of(primitive: str) -> str:
    """The name of the record of a declared primitive."""
    return _PREFIX + primitive


def new_name(function: str) -> str:
    """A name that no function has had before."""
    return f"{_PREFIX}{function}.{next(_numbers)}"


def remember(name: str, function: Function) -> None:
    """Keeps calls of `function`, which leave `name` in a trace, whole."""
    _FUNCTIONS[name] = function


def is_declared(name: str) -> bool:
    """Whether there is a declared record of that name."""
    return name in RECORDS or name in _FUNCTIONS


def record(name: str) -> Record:
    """The declared record of that name."""
    return RECORDS[name] if name in RECORDS else _FUNCTIONS[name].record


def vocabulary() -> Vocabulary:
    """All functions that are kept whole, by the name that they leave in a trace."""
    own = {name: (_named(name, function),) for name, function in _FUNCTIONS.items()}
    return {**VOCABULARY, **own}


def _named(name: str, function: Function) -> LibraryFunction:
    return LibraryFunction(function, primitive=name, operands=lambda x: (x,), evaluate=function)
