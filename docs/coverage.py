"""Writes coverage.md, the list of what is bounded and how: `python -m docs.coverage`.

All of it is read off the tables that the package works with, and off the docstrings beside them.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from jaxlirpa._graph import loops
from jaxlirpa._graph.trace import RESOLVED
from jaxlirpa._ops import affine, elementwise, joint, movement, opaque, univariate
from jaxlirpa._ops.families import (
    Affine,
    Bilinear,
    Elementwise,
    Joint,
    LoopFamily,
    Move,
    Opaque,
    Record,
    Refined,
)
from jaxlirpa._ops.named import VOCABULARY
from jaxlirpa._ops.rules import RULES
from jaxlirpa._ops.unsupported import UNSUPPORTED
from jaxlirpa._relax.compiled import Compiled
from jaxlirpa._relax.restricted import Restricted

PAGE = Path(__file__).with_name("coverage.md")

# What each domain does with each family: intervals, forward forms, backward functionals.
FAMILIES: Mapping[type, tuple[str, str, str]] = {
    Move: ("exact", "exact", "exact, by JAX's transpose"),
    Affine: ("exact but for shared operands", "exact on forms", "exact, by JAX's transpose"),
    Bilinear: ("exact but for shared operands", "exact on forms", "exact, by JAX's transpose"),
    Elementwise: ("its range", "two lines", "a line by the sign of the coefficient"),
    Joint: ("its range", "two planes", "a plane by the sign of the coefficient"),
    Opaque: ("its range", "its range", "its range"),
    LoopFamily: ("its range, trip by trip", "its range", "its range"),
    Refined: ("both ranges intersected", "the form, and both ranges", "the value itself"),
}
GROUPS: Mapping[str, Mapping[str, Record]] = {
    "Entries moved about": movement.RECORDS,
    "Affine functions and products": affine.RECORDS,
    "Kinks, S-shapes and rounding": elementwise.RECORDS,
    "Smooth functions and staircases": univariate.RECORDS,
    "Functions of several values": joint.RECORDS,
    "Tests, truth values, orders": opaque.RECORDS,
}
HEAD = """\
# Coverage

Every primitive of JAX, and what becomes of it where a perturbed value reaches it. This page is
written by `python -m docs.coverage` from the tables of the package; a test compares the two. What
is computed from known values alone is evaluated, whatever it is. Some names below are no primitives
of JAX: rules and recognised functions leave them in the graph.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD, "## What each domain does with each family\n", *_families()]
    for title, records in GROUPS.items():
        parts += [f"\n## {title}\n", "| primitive | family | |", "| --- | --- | --- |"]
        parts += [f"| `{n}` | `{type(r).__name__}` | {describe(r)} |" for n, r in _sorted(records)]
    parts += ["\n## Rewritten\n", "Into primitives above, where the dataflow is one of these.\n"]
    parts += ["| primitive | what is recognised, and what it becomes |", "| --- | --- |"]
    for name, rules in _sorted(RULES):
        otherwise = f" Otherwise refused: {UNSUPPORTED[name]}." if name in UNSUPPORTED else ""
        parts.append(f"| `{name}` | {' '.join(map(_first_line, rules))}{otherwise} |")
    parts += ["\n## Library functions kept whole\n", _library()]
    parts += ["\n## Resolved while a function is traced\n", *_listed(RESOLVED)]
    refused = {name: reason for name, reason in UNSUPPORTED.items() if name not in RULES}
    parts += ["\n## Refused\n", "Unless you declare them: [extending.md](extending.md).\n"]
    parts += _listed(refused)
    return "\n".join(parts) + "\n"


def describe(record: Record) -> str:
    """One line on what a record says, from its fields or the docstring of what it is made with."""
    match record:
        case Move():
            what = "An entry may appear " + ("more than once." if record.repeats else "once.")
        case Affine():
            ways = {+1: "rises", -1: "falls", 0: "(known)"}
            what = f"By operand: {', '.join(ways[sign] for sign in record.signs)}."
        case Bilinear():
            what = "Sums of products." if record.mixes else "Entry by entry."
            what += " One operand is known."
        case Elementwise() | Joint():
            what = _relaxation(record.relaxation)
        case Opaque() | Refined():
            what = _first_line(record.image)
        case LoopFamily():
            what = _first_line(loops)
    if isinstance(record, Elementwise) and record.domain:
        what += f" For {record.domain}."
    return what


def _relaxation(make: Callable[..., Any]) -> str:
    """The first line on the relaxation that a factory makes, or on the factory."""
    factory = make.func if isinstance(make, functools.partial) else make
    if inspect.getdoc(factory):
        return _first_line(factory)
    captured = inspect.getclosurevars(factory)
    for found in captured.nonlocals.values():
        while isinstance(found, Restricted | Compiled):
            found = found.relaxation
        return _first_line(type(found))
    named = (v for v in captured.globals.values() if not inspect.isfunction(v))
    *_, last = (v if inspect.isclass(v) else type(v) for v in named)
    return _first_line(last)


def _first_line(thing: Any) -> str:
    text = inspect.getdoc(thing)
    assert text, f"{thing} has no docstring"
    return " ".join(text.split("\n\n")[0].split()).replace("|", "\\|")


def _families() -> Iterator[str]:
    assert set(FAMILIES) == set(typing.get_args(Record))
    yield "| family | meaning | intervals | forward forms | backward functionals |"
    yield "| --- | --- | --- | --- | --- |"
    for family, ways in FAMILIES.items():
        yield f"| `{family.__name__}` | {_first_line(family)} | {' | '.join(ways)} |"


def _library() -> str:
    names = sorted(
        f"`jax.nn.{name}`" if hasattr(jax.nn, name) else f"`jax.numpy.{name.strip('_')}`"
        for name in VOCABULARY
    )
    return (
        f"{', '.join(names)}: by their trace, line by line. `jax.nn.softmax`, `log_softmax`, "
        "`logsumexp`, `gelu`, `standardize` and the rest of `jax.nn` are recognised by the "
        "dataflow above, or bounded by their parts."
    )


def _listed(reasons: Mapping[str, str]) -> Iterator[str]:
    """The names of every reason."""
    for reason in sorted(set(reasons.values())):
        names = ", ".join(f"`{n}`" for n, r in sorted(reasons.items()) if r == reason)
        yield f"* {names}: {reason}."


def _sorted(table: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return sorted(table.items())


if __name__ == "__main__":
    PAGE.write_text(page())
