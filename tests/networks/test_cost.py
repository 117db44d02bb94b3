"""The programs that bound a network do not grow unseen."""

from __future__ import annotations

import json

import jax
import pytest

from .cost import LIMITS, METHODS, cost
from .test_networks import NETWORKS

RECORDED = json.loads(LIMITS.read_text())
CASES = [(name, method) for name in NETWORKS for method in METHODS]
_ROOM = 1.02


@pytest.mark.skipif(jax.__version__ != RECORDED["jax"], reason="recorded with another JAX")
@pytest.mark.few(8)
@pytest.mark.parametrize("name, method", CASES)
def test_equations_stay_below_the_limit(name: str, method: str) -> None:
    """Run `python -m tests.networks.cost --write` where more of them are worth it."""
    found = cost(NETWORKS[name](), METHODS[method], compile=False).equations
    assert found <= _ROOM * RECORDED[name][method]
