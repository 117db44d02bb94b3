"""Many random programs, one after the other, and a report of the first that is not bounded."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence

import compiling
import jax
import numpy as np
import oracles

import jaxlirpa
from fuzz.check import Case, Violation, random_case, violations
from fuzz.programs import OPERATIONS, Operation, hashed
from fuzz.shrink import shrunk

# Seeds after which what was traced is dropped.
_TRACED = 16


@dataclasses.dataclass
class Outcome:
    """What became of a program.

    Attributes:
        seed: of the program.
        verdict: "held", "rounded" (outside by the program's own rounding), "refused" (an error
            that says what is not supported), or "wrong".
        report: of what is wrong, as text.
    """

    seed: int
    verdict: str
    report: str = ""


def run(
    seed: int,
    dtype: np.dtype,
    operations: Sequence[Operation] = OPERATIONS,
    methods: Sequence[str] = tuple(oracles.METHODS),
) -> Outcome:
    """Checks one program."""
    case = random_case(seed, dtype, operations)
    try:
        found = violations(case, methods)
    except jaxlirpa.LirpaError as error:
        return Outcome(seed, "refused", f"{_heading(case)}\n{error}")
    except Exception:
        return Outcome(seed, "wrong", f"{_heading(case)}\n{traceback.format_exc()}")
    if not found:
        return Outcome(seed, "held")
    wrong = [violation for violation in found if not violation.rounded]
    if not wrong:
        return Outcome(seed, "rounded", "\n".join(map(str, [_heading(case), *found])))
    return Outcome(seed, "wrong", describe(*shrunk(case, wrong[0])))


def _heading(case: Case) -> str:
    return f"seed {case.seed}, {case.dtype}\n{case.program}"


def describe(case: Case, violation: Violation) -> str:
    """A counter-example in words."""
    lines = [_heading(case)]
    for number, batch in case.sets.items():
        one = jax.tree.map(lambda x: x[violation.place[0]].tolist(), batch)
        lines.append(f"v{number} in {one}")
    return "\n".join([*lines, str(violation)])


def configure() -> None:
    """Sets JAX up for many small programs, as for the tests."""
    jax.config.update("jax_enable_x64", True)
    compiling.configure(pathlib.Path(tempfile.gettempdir(), "jaxlirpa-fuzz"))


def in_turn(seed: int) -> tuple[str, ...]:
    """Two methods: every operation, which comes back with other seeds, meets all in time."""
    return tuple(oracles.in_turn(hashed(seed, "methods")))


def seeds(seconds: float, least: int) -> Iterator[int]:
    """Seeds from 0 until as many seconds of processor are spent, but not fewer than the least.

    A slow machine so fails nothing and proves no less, and a fast one sees more.
    """
    start = time.process_time()
    for seed in itertools.count():
        if seed >= least and time.process_time() - start >= seconds:
            return
        yield seed


def check(seed: int, dtypes: Sequence[str]) -> tuple[list[Outcome], float]:
    """The outcomes of a seed, and the seconds of processor that they took."""
    start = time.process_time()
    outcomes = [run(seed, np.dtype(dtype), methods=in_turn(seed)) for dtype in dtypes]
    if seed % _TRACED == 0:
        jax.clear_caches()
    return outcomes, time.process_time() - start
