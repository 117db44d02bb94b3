"""Random programs of everything that is declared: no value outside of the bounds of its node."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fuzz.campaign import run
from fuzz.programs import MATRICES, OPERATIONS
from jaxlirpa._ops.families import Affine, Elementwise
from jaxlirpa._ops.registry import RECORDS
from jaxlirpa._relax.piecewise import Clip

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    """Drops compiled operations, which in sum take gigabytes."""
    yield
    jax.clear_caches()


def check(seeds: range, dtype: np.dtype, **options: object) -> None:
    for seed in seeds:
        outcome = run(seed, dtype, **options)
        assert outcome.verdict in ("held", "rounded"), outcome.report


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_random_programs(dtype: np.dtype):
    check(range(12), dtype, operations=MATRICES)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("block", range(4))
def test_many_random_programs(block: int, dtype: np.dtype):
    check(range(1000 + 25 * block, 1025 + 25 * block), dtype)


# ---- the grammar ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_line_has_the_kind_that_is_declared(dtype: np.dtype):
    for operation in OPERATIONS:
        if operation.operands[0] == "s" and operation.result == "s":
            continue


# ---- the tests themselves ------------------------------------------------------------------

WRONG = {
    "neg": Affine((+1,), mixes=False),
    "sub": Affine((+1, +1), mixes=False),
    "tanh": Elementwise(lambda node: Clip(jnp.array(-0.1), jnp.array(0.1))),
}


@pytest.mark.parametrize("primitive", WRONG)
def test_a_wrong_record_is_found(primitive: str, monkeypatch: pytest.MonkeyPatch):
    """Among programs of few operations, one of which is bounded wrongly."""
    monkeypatch.setitem(RECORDS, primitive, WRONG[primitive])
    templates = ("-{x}", "{k} - {x}", "jnp.tanh({x})", "{x} * {k}")
    few = [x for x in MATRICES if x.template in templates]
    outcomes = (run(seed, DTYPES[1], few) for seed in range(12))
    found = next(outcome for outcome in outcomes if outcome.verdict == "wrong")
    assert f": {primitive} Ref" in found.report
