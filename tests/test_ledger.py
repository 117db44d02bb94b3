"""Every primitive of JAX is declared or listed as unsupported, and in one place only."""

from __future__ import annotations

import jax
import jax.extend.core.primitives
import pytest

from jaxlirpa._graph.jaxpr import _BODIES
from jaxlirpa._graph.trace import _IDENTITIES
from jaxlirpa._ops.registry import RECORDS
from jaxlirpa._ops.unsupported import UNSUPPORTED

# Declared for what recognition puts into the graph; no primitives of JAX.
OURS = {
    *("celu", "elu", "gelu", "gelu_tanh", "hard_silu", "leaky_relu", "log_sigmoid", "mish"),
    *("quotient", "selu", "silu", "soft_sign", "softplus", "sparse_plus", "squareplus"),
    *("logistic_derivative", "tanh_derivative"),
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
    known = RECORDS.keys() | UNSUPPORTED.keys() | _IDENTITIES | _BODIES.keys()
    assert primitives() - known == set()


def test_no_primitive_is_in_two_places() -> None:
    places = [RECORDS.keys(), UNSUPPORTED.keys(), _IDENTITIES, _BODIES.keys()]
    listed = [name for place in places for name in place]
    assert sorted(listed) == sorted(set(listed))


@pytest.mark.parametrize("name", sorted(RECORDS.keys() - OURS))
def test_declared_primitives_exist(name: str) -> None:
    if name in NEWER and name not in primitives():
        pytest.skip("a primitive of newer releases of JAX")
    assert name in primitives()
