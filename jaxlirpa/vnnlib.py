"""Properties in VNN-LIB (version 1), the format of the VNN-COMP competitions.

A file declares the inputs `X_i` and the outputs `Y_i` of a network, and asserts what a
counter-example satisfies. The property holds if there is none.
"""

from __future__ import annotations

import dataclasses
import gzip
import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxlirpa._errors import ArgumentError
from jaxlirpa.sets import Box
from jaxlirpa.verify.properties import Property

_TOKEN = re.compile(r"\(|\)|[^\s()]+")
_VARIABLE = re.compile(r"([XY])_(\d+)$")
# How many cases an "or" of "and"s of them may have.
_MOST_CASES = 100_000


@dataclasses.dataclass(frozen=True)
class Case:
    """Some of the counter-examples: of one box of inputs.

    A counter-example satisfies all rows of at least one of the conjunctions:
    `outputs @ y + inputs @ x <= limit`.

    Attributes:
        lower, upper: of the inputs, in double precision, rounded outwards.
        outputs: coefficients, `[rows, outputs]`.
        inputs: coefficients, `[rows, inputs]`.
        limit: `[rows]`.
        conjunctions: the numbers of the rows of each.
    """

    lower: np.ndarray
    upper: np.ndarray
    outputs: np.ndarray
    inputs: np.ndarray
    limit: np.ndarray
    conjunctions: tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True)
class _Row:
    """`sum of terms <= limit`, the terms' coefficients by variable."""

    terms: tuple[tuple[str, Fraction], ...]
    limit: Fraction


_Conjunction: TypeAlias = tuple[_Row, ...]


def load(path: str | Path) -> list[Case]:
    """Reads a property.

    Args:
        path: of the `.vnnlib` file, which may be gzipped (`.vnnlib.gz`).

    Returns:
        The cases of counter-examples, one of each box of inputs: the property holds if there is
        none in any.

    Raises:
        ArgumentError: where the file is not of that format; it says in which line.
    """
    path = Path(path)
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode()
    return parse(text)


def parse(text: str) -> list[Case]:
    """The cases of a property's text, see `load`."""
    inputs = outputs = 0
    asserted: list[list[_Conjunction]] = []
    for line, expression in _expressions(text):
        try:
            match expression:
                case ["declare-const", str(name), str(kind)]:
                    found = _VARIABLE.match(name)
                    if not found or kind != "Real":
                        raise ArgumentError(f"{name} {kind}: variables are X_i or Y_i, and Real")
                    count = int(found[2]) + 1
                    if found[1] == "X":
                        inputs = max(inputs, count)
                    else:
                        outputs = max(outputs, count)
                case ["assert", formula]:
                    asserted.append(_cases(formula))
                case _:
                    raise ArgumentError(f"{_text(expression)} is no declaration and no assertion")
        except ArgumentError as error:
            raise ArgumentError(f"VNN-LIB, line {line}: {error}") from None
    if not inputs or not outputs:
        raise ArgumentError("VNN-LIB: no inputs X_i or no outputs Y_i are declared")
    if math.prod(map(len, asserted)) > _MOST_CASES:
        raise ArgumentError(f"VNN-LIB: there are more than {_MOST_CASES} cases")
    boxes: dict[tuple[Any, ...], list[_Conjunction]] = {}
    for choice in itertools.product(*asserted):
        rows = [row for conjunction in choice for row in conjunction]
        limits, rest = _box(rows, inputs)
        boxes.setdefault(limits, []).append(rest)
    return [_case(limits, found, inputs, outputs) for limits, found in boxes.items()]


def _expressions(text: str) -> Iterator[tuple[int, Any]]:
    """The parenthesised expressions, as nested lists, with the lines they begin in."""
    stack: list[list[Any]] = []
    begun = 0
    for number, line in enumerate(text.splitlines(), 1):
        for token in _TOKEN.findall(line.partition(";")[0]):
            if token == "(":
                begun = begun if stack else number
                stack.append([])
            elif not stack:
                raise ArgumentError(f"VNN-LIB, line {number}: {token!r} is outside of parentheses")
            elif token == ")":
                done = stack.pop()
                if not stack:
                    yield begun, done
                else:
                    stack[-1].append(done)
            else:
                stack[-1].append(token)
    if stack:
        raise ArgumentError(f"VNN-LIB, line {begun}: a parenthesis is never closed")


def _text(expression: Any) -> str:
    if isinstance(expression, str):
        return expression
    return f"({' '.join(map(_text, expression))})"[:80]


def _cases(formula: Any) -> list[_Conjunction]:
    """A formula as an "or" of conjunctions."""
    match formula:
        case ["and", *parts]:
            choices = [_cases(part) for part in parts]
            if math.prod(map(len, choices)) > _MOST_CASES:
                raise ArgumentError(f"there are more than {_MOST_CASES} cases")
            return [tuple(itertools.chain(*choice)) for choice in itertools.product(*choices)]
        case ["or", *parts]:
            return [case for part in parts for case in _cases(part)]
        case ["<=" | "<", left, right]:
            return [(_row(left, right),)]
        case [">=" | ">", left, right]:
            return [(_row(right, left),)]
        case ["=" | "==", left, right]:
            return [(_row(left, right), _row(right, left))]
        case _:
            raise ArgumentError(f"{_text(formula)} is no comparison, and no and / or of such")


def _row(smaller: Any, larger: Any) -> _Row:
    """`smaller <= larger` as a row; a strict one is weakened, which is safe."""
    terms, constant = _linear(smaller)
    for name, coefficient in _linear(larger)[0].items():
        terms[name] = terms.get(name, Fraction(0)) - coefficient
    constant -= _linear(larger)[1]
    kept = {name: c for name, c in terms.items() if c}
    return _Row(tuple(kept.items()), -constant)


def _linear(expression: Any) -> tuple[dict[str, Fraction], Fraction]:
    """A linear expression: coefficients by variable, and a constant."""
    match expression:
        case str(name) if _VARIABLE.match(name):
            return {name: Fraction(1)}, Fraction(0)
        case str(number):
            try:
                return {}, Fraction(number)
            except ValueError:
                raise ArgumentError(
                    f"{number!r} is no variable X_i or Y_i, and no number"
                ) from None
        case ["+", *parts]:
            terms: dict[str, Fraction] = {}
            total = Fraction(0)
            for part in parts:
                own, constant = _linear(part)
                total += constant
                for name, c in own.items():
                    terms[name] = terms.get(name, Fraction(0)) + c
            return terms, total
        case ["-", part]:
            return _scaled(_linear(part), Fraction(-1))
        case ["-", first, *others]:
            return _linear(["+", first, *(["-", other] for other in others)])
        case ["*", left, right]:
            a, b = _linear(left), _linear(right)
            if a[0] and b[0]:
                raise ArgumentError(f"{_text(expression)} is not linear")
            return _scaled(b, a[1]) if not a[0] else _scaled(a, b[1])
        case _:
            raise ArgumentError(f"{_text(expression)} is no linear expression")


def _scaled(
    linear: tuple[dict[str, Fraction], Fraction], factor: Fraction
) -> tuple[dict[str, Fraction], Fraction]:
    terms, constant = linear
    return {name: factor * c for name, c in terms.items()}, factor * constant


def _box(rows: Sequence[_Row], inputs: int) -> tuple[tuple[Any, ...], _Conjunction]:
    """The limits of the inputs by rows of a single one; and all other rows."""
    lower: list[Fraction | None] = [None] * inputs
    upper: list[Fraction | None] = [None] * inputs
    rest = []
    for row in rows:
        if len(row.terms) != 1 or row.terms[0][0][0] != "X":
            rest.append(row)
            continue
        ((name, c),) = row.terms
        number, limit = int(name[2:]), row.limit / c
        if number >= inputs:
            raise ArgumentError(f"VNN-LIB: {name} is not declared")
        if c > 0:
            old = upper[number]
            upper[number] = limit if old is None else min(old, limit)
        else:
            old = lower[number]
            lower[number] = limit if old is None else max(old, limit)
    for number, (low, high) in enumerate(zip(lower, upper, strict=True)):
        if low is None or high is None:
            raise ArgumentError(f"VNN-LIB: X_{number} has no lower or no upper limit")
    return (tuple(lower), tuple(upper)), tuple(rest)


def _case(
    limits: tuple[Any, ...], found: Sequence[_Conjunction], inputs: int, outputs: int
) -> Case:
    lower = np.array([_rounded(x, -np.inf) for x in limits[0]])
    upper = np.array([_rounded(x, np.inf) for x in limits[1]])
    rows: list[_Row] = []
    conjunctions = []
    for conjunction in found:
        conjunctions.append(tuple(range(len(rows), len(rows) + len(conjunction))))
        rows += conjunction
    on_outputs, on_inputs = np.zeros((len(rows), outputs)), np.zeros((len(rows), inputs))
    for i, row in enumerate(rows):
        for name, c in row.terms:
            own, number = (on_outputs if name[0] == "Y" else on_inputs), int(name[2:])
            if number >= own.shape[1]:
                raise ArgumentError(f"VNN-LIB: {name} is not declared")
            own[i, number] = float(c)
    limit = np.array([_rounded(row.limit, np.inf) for row in rows])
    return Case(lower, upper, on_outputs, on_inputs, limit, tuple(conjunctions))


def _rounded(x: Fraction, towards: float) -> float:
    """A number in double precision, rounded towards an infinity."""
    found = float(x)
    beyond = Fraction(found) < x if towards > 0 else Fraction(found) > x
    return float(np.nextafter(found, towards)) if beyond else found


# ---- as properties for `jaxlirpa.verify` ----------------------------------------------------


def property_of(model: Callable[..., Any], case: Case, shape: Sequence[int]) -> Property:
    """That there is no counter-example of a case, as a property for `verify`.

    Args:
        model: a function of (params, x).
        case: the case.
        shape: of the model's input.

    Returns:
        A property of (params, outputs, inputs, limit, x), where x is the flat input and the others
        are the case's arrays. They are arguments so that cases of one form share what is compiled.
    """

    def margins(params: Any, outputs: Any, inputs: Any, limit: Any, x: Any) -> Any:
        y = model(params, x.reshape(shape))
        found = outputs @ y.reshape(-1) - limit
        return found + inputs @ x if np.any(case.inputs) else found

    if not all(case.conjunctions):
        raise ArgumentError("VNN-LIB: any output is a counter-example, as none is asserted")
    clauses = [set(rows) for rows in case.conjunctions]
    return Property(
        (margins,), lambda rows: [{own[i] for i in clause} for own in rows for clause in clauses]
    )


def arguments_of(case: Case, dtype: Any = np.float32) -> tuple[Any, ...]:
    """The arguments of a property behind the parameters, in a format, rounded so that it is safe.

    Args:
        case: the case.
        dtype: the format.
    """
    box = Box(
        jnp.asarray(_towards(case.lower, -np.inf, dtype)),
        jnp.asarray(_towards(case.upper, np.inf, dtype)),
    )
    arrays = [jnp.asarray(x.astype(dtype)) for x in (case.outputs, case.inputs)]
    return (*arrays, jnp.asarray(_towards(case.limit, np.inf, dtype)), box)


def _towards(x: np.ndarray, infinity: float, dtype: Any) -> np.ndarray:
    found = x.astype(dtype)
    beyond = found < x if infinity > 0 else found > x
    return np.where(beyond, np.nextafter(found, dtype(infinity)), found)


def is_counterexample(model: Callable[..., Any], params: Any, case: Case, x: np.ndarray) -> bool:
    """Whether a point, in double precision, is in the case's box and satisfies it.

    Args:
        model: a function of (params, x).
        params: its weights.
        case: the case.
        x: shaped like the model's input.
    """
    flat = np.asarray(x, float).reshape(-1)
    if np.any(flat < case.lower) or np.any(flat > case.upper):
        return False
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda p: np.asarray(p, float), params)
        y = np.asarray(model(exact, jnp.asarray(x, float))).reshape(-1)
    excess = case.outputs @ y + case.inputs @ flat - case.limit
    return any(bool(np.all(excess[list(rows)] <= 0)) for rows in case.conjunctions)
