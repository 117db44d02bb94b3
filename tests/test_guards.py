"""Quotients whose divisors are guarded against zero, and that are finite for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from oracles import METHODS

import jaxlirpa
from jaxlirpa import Box, DomainError

X = Box(jnp.array([-0.5, 0.0, 1.0, 0.0]), jnp.array([0.25, 2.0, 1.5, 0.0]))


def norm(x: Any) -> Any:
    return jnp.linalg.norm(x)


def by(divisor: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: x / divisor(norm(x))


SINES: dict[str, Callable[[Any], Any]] = {
    "of the guarded": lambda x: jnp.where(x == 0, 1.0, jnp.sin(x) / jnp.where(x == 0, 1.0, x)),
    "of both": lambda x: (lambda y: jnp.where(x != 0, jnp.sin(y) / y, 1))(
        jnp.where(x != 0, x, 3.0)
    ),
    "sinc": lambda x: jnp.sinc(x / np.pi),
}
NORMS: dict[str, Callable[[Any], Any]] = {
    "n > 0": lambda x: jnp.where(norm(x) > 0, x / jnp.where(norm(x) > 0, norm(x), 1), 0),
    "n == 0": by(lambda n: jnp.where(n == 0, 1, n)),
    "max": by(lambda n: jnp.maximum(n, 1e-12)),
    "sum": by(lambda n: n + 1e-12),
    "root of a guard": lambda x: x / jnp.sqrt((lambda s: jnp.where(s > 0, s, 1))(jnp.sum(x * x))),
    "rows": lambda x: (lambda y: y / jnp.maximum(jnp.linalg.norm(y, axis=1, keepdims=True), 1e-9))(
        jnp.stack([x, 2 * x])
    ),
}


@pytest.mark.parametrize("name", SINES)
def test_sines(name: str):
    """About the range of `sin(x) / x`, however it is written."""
    _, bounds = oracles.check_every_node(SINES[name], [X], count=64)
    ends = np.sinc(np.array([-0.5, 2.0, 1.5, 0.0]) / np.pi)
    for lower, upper in bounds.values():
        np.testing.assert_allclose(lower[-1], ends, atol=1e-6)
        np.testing.assert_allclose(upper[-1], [1, 1, np.sin(1.0), 1], atol=1e-6)


@pytest.mark.few(2)
@pytest.mark.parametrize("name", NORMS)
def test_norms(name: str):
    """No entry is larger than the norm, however near to zero that is."""
    _, bounds = oracles.check_every_node(NORMS[name], [X], count=64)
    for lower, upper in bounds.values():
        lower, upper = lower[-1], upper[-1]
        assert (lower >= -1 - 1e-12).all() and (upper <= 1 + 1e-12).all()


def test_the_norm_must_be_that_of_the_entries():
    """Of others nothing is concluded, nor where the divisor may be less."""
    for fn in (
        lambda x: x / jnp.maximum(norm(0.1 * x), 1e-12),
        lambda x: x / jnp.minimum(norm(x), 1.0),
        lambda x: 2 * x / jnp.where(norm(x) < 0, norm(x), 0.01),
        lambda x: jnp.stack([x, x]) / jnp.maximum(jnp.linalg.norm(jnp.stack([x, x]), axis=0), 1e-3),
    ):
        oracles.check_every_node(fn, [X], {"ibp": METHODS["ibp"]}, count=64)


def test_a_guard_is_no_error():
    """What is without end in truth has such bounds; what is not guarded is refused."""

    def guarded(x: Any) -> Any:
        return jnp.where(x != 0, 1 / jnp.where(x != 0, x, 1.0), 0.0)

    lower, upper = jaxlirpa.ibp(guarded)(X)
    assert lower[0] == -np.inf and upper[0] == np.inf
    oracles.equal(lower[2], 1 / 1.5)
    for fn in (lambda x: 1 / x, lambda x: 1 / jnp.where(x > 1, x, 0.0), lambda x: jnp.sin(x) / x):
        with pytest.raises(DomainError):
            jaxlirpa.ibp(fn)(X)


def test_correlations():
    """Variances on the diagonal of a covariance are sums of squares."""
    x = np.random.default_rng(0).normal(size=(2, 4))
    box = Box(jnp.asarray(x - 0.1), jnp.asarray(x + 0.1))
    _, bounds = oracles.check_every_node(jnp.cov, [box], oracles.in_turn(0))
    for lower, _ in bounds.values():
        assert (np.diag(lower[-1]) >= 0).all()
    lower, upper = jax.jit(jaxlirpa.ibp(jnp.corrcoef))(box)
    assert (lower >= -1).all() and (upper <= 1).all()
