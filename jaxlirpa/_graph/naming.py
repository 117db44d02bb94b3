"""Names of the values of a graph.

A value is called after its scope, or its line, and its primitive. Of those with the same name, the
second to be computed ends in `:1`, the third in `:2`. All values are counted, needed or not, and
what is computed twice is counted twice: so what a function computes has the same names in whatever
is computed from it, a margin or a loss.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable
from typing import NamedTuple

from jaxlirpa._graph.graph import Names, Ref


class Label(NamedTuple):
    """What a value is called, not yet told from others.

    Attributes:
        text: the name.
        ref: the value.
        marked: whether the user gave it this name.
    """

    text: str
    ref: Ref
    marked: bool


def numbered(labels: Iterable[Label]) -> Names:
    """The labels in order of computation, as names of one value each."""
    counts: collections.Counter[str] = collections.Counter()
    given: dict[str, Ref] = {}
    marked: dict[str, Ref] = {}
    for text, ref, by_user in labels:
        name = text
        while name in given or name in marked:
            counts[text] += 1
            name = f"{text}:{counts[text]}"
        (marked if by_user else given)[name] = ref
    return Names(given, marked)
