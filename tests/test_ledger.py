"""Every primitive of JAX is declared, resolved by the tracer or unsupported: one of the three."""

from __future__ import annotations

import jax
import jax.extend.core.primitives
import pytest

from jaxlirpa._graph.trace import RESOLVED
from jaxlirpa._ops.registry import RECORDS
from jaxlirpa._ops.rules import RULES
from jaxlirpa._ops.unsupported import UNSUPPORTED

# Declared for what recognition puts into the graph; no primitives of JAX.
OURS = {
    "celu",
    "choose",
    "choose_among",
    "elu",
    "gelu",
    "gelu_tanh",
    "hard_silu",
    "is_nonzero",
    "leaky_relu",
    "log_sigmoid",
    "logistic_derivative",
    "logsumexp",
    "mish",
    "normalise",
    "product",
    "reciprocal",
    "round_to",
    "selu",
    "silu",
    "soft_sign",
    "softmax",
    "softplus",
    "sparse_plus",
    "squareplus",
    "tanh_derivative",
    "truncate",
    "within",
}
# Declared for newer releases of JAX than the oldest that is supported.
NEWER = {"log2", "one_minus_square", "unstack"}


def primitives() -> set[str]:
    """The names of all primitives that JAX makes public."""
    modules = (jax.lax, jax.lax.linalg, jax.extend.core.primitives)
    names = {
        getattr(module, name).name
        for module in modules
        for name in dir(module)
        if name.endswith("_p") and hasattr(getattr(module, name), "bind")
    }
    assert len(names) > 100
    return names


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
