"""Properties in VNN-LIB: what is read, and what is refused."""

from __future__ import annotations

import gzip
from fractions import Fraction
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlirpa import ArgumentError, verify, vnnlib

HEAD = """
; a comment (with parentheses
(declare-const X_0 Real) (declare-const X_1 Real)
(declare-const Y_0 Real)
(declare-const Y_1 Real)
"""
BOX = "(assert (<= X_0 0.5)) (assert (>= X_0 -0.5)) (assert (and (<= X_1 1) (>= X_1 0)))"


def member(case: vnnlib.Case, x: Any, y: Any) -> bool:
    """Whether a pair of input and output is a counter-example."""
    x, y = np.asarray(x), np.asarray(y)
    inside = np.all((case.lower <= x) & (x <= case.upper))
    excess = case.outputs @ y + case.inputs @ x - case.limit
    return bool(inside) and any(np.all(excess[list(rows)] <= 0) for rows in case.conjunctions)


@pytest.mark.parametrize(
    ("formula", "truth"),
    [
        ("(<= Y_0 Y_1)", lambda x, y: y[0] <= y[1]),
        ("(>= Y_0 0.25)", lambda x, y: y[0] >= 0.25),
        ("(and (<= Y_0 0) (>= Y_1 0))", lambda x, y: y[0] <= 0 <= y[1]),
        (
            "(or (and (<= Y_0 0) (>= Y_1 0)) (and (>= Y_0 0.5)))",
            lambda x, y: y[0] <= 0 <= y[1] or y[0] >= 0.5,
        ),
        (
            "(<= (+ (* 2 Y_0) (- Y_1) 0.5) (* X_0 3))",
            lambda x, y: 2 * y[0] - y[1] + 0.5 <= 3 * x[0],
        ),
        (
            "(and (or (<= Y_0 0) (<= Y_1 0)) (>= Y_0 -0.5))",
            lambda x, y: min(y) <= 0 and y[0] >= -0.5,
        ),
        ("(>= (- Y_0 Y_1 X_1) 0)", lambda x, y: y[0] - y[1] - x[1] >= 0),
    ],
)
def test_formulas(formula: str, truth: Any) -> None:
    """Against the formula itself, at random inputs and outputs."""
    (case,) = vnnlib.parse(f"{HEAD}{BOX}(assert {formula})")
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(400):
        x, y = rng.uniform([-0.5, 0], [0.5, 1]), rng.uniform(-1, 1, 2)
        expected = bool(truth(x, y))
        assert member(case, x, y) == expected
        seen.add(expected)
    assert seen == {True, False}


def test_boxes() -> None:
    """An "or" of inputs makes several cases; of several limits the tightest count."""
    text = f"{HEAD}{BOX}(assert (or (<= X_0 -0.25) (>= X_0 0.25)))(assert (<= Y_0 0))"
    cases = vnnlib.parse(text)
    assert sorted((c.lower[0], c.upper[0]) for c in cases) == [(-0.5, -0.25), (0.25, 0.5)]
    (equal,) = vnnlib.parse(f"{HEAD}{BOX}(assert (= X_0 0.125))(assert (<= Y_0 0))")
    assert equal.lower[0] == equal.upper[0] == 0.125


def test_limits_are_rounded_outwards(tmp_path: Path) -> None:
    text = f"{HEAD}{BOX}(assert (>= X_0 0.1))(assert (<= X_0 0.3))(assert (<= Y_0 0.7))"
    path = tmp_path / "property.vnnlib.gz"
    path.write_bytes(gzip.compress(text.encode()))
    (case,) = vnnlib.load(path)
    low, high, limit = Fraction("0.1"), Fraction("0.3"), Fraction("0.7")
    assert Fraction(case.lower[0]) <= low and high <= Fraction(case.upper[0])
    assert limit <= Fraction(case.limit[0]) < limit + Fraction(1, 10**15)
    _, _, rounded, box = vnnlib.arguments_of(case)
    assert box.lower.dtype == np.float32
    assert Fraction(float(box.lower[0])) <= low and high <= Fraction(float(box.upper[0]))
    assert Fraction(float(rounded[0])) >= limit


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEAD}{BOX}(assert (<= Y_0 0)", "line 6: a parenthesis is never closed"),
        (f"{HEAD}{BOX}(assert (<= Y_0 (* Y_0 Y_1)))", "line 6: .* is not linear"),
        (f"{HEAD}{BOX}(assert (< Y_0))", "is no comparison"),
        (f"{HEAD}{BOX}(check-sat)", "no declaration and no assertion"),
        (f"{HEAD}{BOX}(assert (<= Y_7 0))", "Y_7 is not declared"),
        (f"{HEAD}(assert (<= X_0 1))(assert (<= Y_0 0))", "X_0 has no lower or no upper"),
        (f"{HEAD}{BOX}(assert (<= Y_0 zero))", "'zero' is no variable"),
        ("(declare-const Z Real)", "variables are X_i or Y_i"),
        ("", "no inputs"),
        ("stray", "outside of parentheses"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        vnnlib.parse(text)


def test_as_properties_to_verify(monkeypatch: pytest.MonkeyPatch) -> None:
    """From text to a verdict, and a counter-example that counts in double precision."""
    monkeypatch.setenv("JAXLIRPA_CACHE", "")

    def model(params: Any, x: Any) -> Any:
        return jnp.stack([jax.nn.relu(x[0, 0] + x[0, 1]), params - jax.nn.relu(x[0, 0])])

    # Y_0 is at most 1.5 and Y_1 at least 0.5.
    for limit, status in ((1.6, "proved"), (1.2, "refuted")):
        (case,) = vnnlib.parse(f"{HEAD}{BOX}(assert (or (>= Y_0 {limit}) (<= Y_1 0.4)))")
        prop = vnnlib.property_of(model, case, (1, 2))
        found = verify.verify(prop)(jnp.array(1.0), *vnnlib.arguments_of(case, np.float64))
        assert found.status == status
        if status == "refuted":
            x = found.witness[-1].reshape(1, 2)
            assert vnnlib.is_counterexample(model, jnp.array(1.0), case, x)
            assert not vnnlib.is_counterexample(model, jnp.array(1.0), case, x + 5)
            assert not vnnlib.is_counterexample(model, jnp.array(1.0), case, 0 * x)
    with pytest.raises(ArgumentError, match="any output"):
        (case,) = vnnlib.parse(f"{HEAD}{BOX}")
        vnnlib.property_of(model, case, (1, 2))
