"""Every primitive of JAX is declared, resolved by the tracer or unsupported: one of the three."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from jaxlirpa._graph.jaxpr import public_primitives
from jaxlirpa._graph.trace import RESOLVED
from jaxlirpa._ops.registry import RECORDS
from jaxlirpa._ops.rules import RULES
from jaxlirpa._ops.unsupported import UNSUPPORTED

COVERAGE = Path(__file__).parents[1] / "docs"

# Declared for what recognition puts into the graph; no primitives of JAX.
OURS = {
    "ball_product",
    "celu",
    "choose",
    "choose_among",
    "elu",
    "entry",
    "gelu",
    "gelu_tanh",
    "guarded_reciprocal",
    "hard_silu",
    "inner_product",
    "is_nonzero",
    "largest",
    "leaky_relu",
    "log_sigmoid",
    "logistic_derivative",
    "logistic_second_derivative",
    "logsumexp",
    "loop",
    "lost",
    "mish",
    "normalise",
    "piecewise_linear",
    "product",
    "reciprocal",
    "round_to",
    "rounded",
    "searchsorted",
    "selu",
    "silu",
    "sinc",
    "soft_sign",
    "softmax",
    "softplus",
    "sparse_plus",
    "squareplus",
    "tanh_derivative",
    "tanh_second_derivative",
    "truncate",
    "wins",
    "refined",
}
# Declared for newer releases of JAX than the oldest that is supported.
NEWER = {"log2", "one_minus_square", "unstack"}


def primitives() -> set[str]:
    """The names of all primitives that JAX makes public."""
    names = set(public_primitives())
    assert len(names) > 100
    return names


def test_the_coverage_page_is_what_the_tables_say() -> None:
    page = runpy.run_path(str(COVERAGE / "coverage.py"))["page"]()
    written = (COVERAGE / "coverage.md").read_text()
    assert page == written, "docs/coverage.md is out of date; run `python -m docs.coverage`"


def test_every_primitive_is_in_the_ledger() -> None:
    known = RECORDS.keys() | RULES.keys() | UNSUPPORTED.keys() | RESOLVED.keys()
    assert primitives() - known == set()


def test_no_primitive_is_in_two_places() -> None:
    places = [RECORDS.keys(), UNSUPPORTED.keys(), RESOLVED.keys()]
    listed = [name for place in places for name in place]
    assert sorted(listed) == sorted(set(listed))


@pytest.mark.parametrize("name", sorted(RECORDS.keys() - OURS))
def test_declared_primitives_exist(name: str) -> None:
    if name in NEWER and name not in primitives():
        pytest.skip("a primitive of newer releases of JAX")
    assert name in primitives()
