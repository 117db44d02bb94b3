"""Makes a counter-example as short as it can be: fewer lines, one set, points, round numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np

import jaxlirpa
from fuzz.check import Case, Violation, violations
from fuzz.programs import Line, Program


def shrunk(case: Case, violation: Violation, attempts: int = 60) -> tuple[Case, Violation]:
    """A smaller case with a violation of the same method, and that violation."""
    while attempts > 0:
        for smaller in _smaller(case, violation):
            attempts -= 1
            found = _fails(smaller, violation.method)
            if found is not None:
                case, violation = smaller, found
                break
            if attempts <= 0:
                break
        else:
            break
    return case, violation


def _fails(case: Case, method: str) -> Violation | None:
    try:
        return next((v for v in violations(case, (method,)) if not v.rounded), None)
    except jaxlirpa.LirpaError:
        return None


def _smaller(case: Case, violation: Violation) -> Iterator[Case]:
    if jax.tree.leaves(case.inputs)[0].shape[0] > 1:
        yield case.only(violation.place[0])
    for program in _shorter(case.program):
        if len(program.lines) == len(program.inputs):
            continue
        numbers = {line.number for line in program.inputs}
        sets = {number: batch for number, batch in case.sets.items() if number in numbers}
        yield dataclasses.replace(case, program=program, sets=sets)
    for number, batch in case.sets.items():
        for simpler in _simpler(batch):
            yield dataclasses.replace(case, sets={**case.sets, number: simpler})


def _shorter(program: Program) -> Iterator[Program]:
    """Without a line, in whose place another value of its kind is read."""
    for line in reversed(program.lines):
        if not line.text:
            continue
        rest = [x for x in program.lines if x is not line]
        if line.number in program.outputs:
            yield _pruned(rest)
            continue
        for other in (x for x in program.lines if x.kind == line.kind and x.number < line.number):
            yield _pruned([x.reading(line.number, other.number) for x in rest])


def _pruned(lines: list[Line]) -> Program:
    read = {n for line in lines for n in line.reads}
    return Program(tuple(x for x in lines if x.text or x.number in read))


def _simpler(batch: jaxlirpa.Box | jaxlirpa.LpBall) -> Iterator[jaxlirpa.Box | jaxlirpa.LpBall]:
    """A point instead of a set, and limits with few digits."""
    if isinstance(batch, jaxlirpa.Box):
        if (batch.lower != batch.upper).any() and np.isfinite(batch.lower).all():
            yield jaxlirpa.Box(batch.lower, batch.lower)
    elif (batch.radius > 0).any():
        yield jaxlirpa.LpBall(batch.center, 0 * batch.radius, batch.ord, batch.axis)
    for digits in (0, 1, 3):
        rounded = jax.tree.map(lambda x, digits=digits: np.round(x, digits), batch)
        pairs = zip(jax.tree.leaves(rounded), jax.tree.leaves(batch), strict=True)
        if any((a != b).any() for a, b in pairs):
            yield rounded
