"""Maximum and minimum: JAX's values, and derivatives that keep no floats."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlirpa._minmax import clip, maximum, minimum

NUMBERS = jnp.array([-jnp.inf, -2.0, -0.0, 0.0, 1.5, jnp.inf, jnp.nan])
PAIRS = jnp.meshgrid(NUMBERS, NUMBERS)
BOTH = pytest.mark.parametrize(
    ("own", "of_jax"), [(maximum, jnp.maximum), (minimum, jnp.minimum)], ids=["max", "min"]
)
Function = Callable[[jax.Array, jax.Array], jax.Array]


@BOTH
def test_values(own: Function, of_jax: Function) -> None:
    np.testing.assert_array_equal(own(*PAIRS), of_jax(*PAIRS))
    np.testing.assert_array_equal(own(NUMBERS[:, None], 0), of_jax(NUMBERS[:, None], 0))
    short = NUMBERS.astype(jnp.float32)
    assert own(short, 0).dtype == jnp.float32
    assert own(short, NUMBERS).dtype == jnp.float64


@BOTH
def test_derivatives(own: Function, of_jax: Function) -> None:
    """JAX's between different numbers; nothing but truth values is kept for them."""
    x, y = jnp.array([1.0, 2.0, -3.0]), jnp.array([0.5, 2.5, 4.0])
    for position in (0, 1):
        found = jax.grad(lambda *a: own(*a).sum(), position)(x, y)
        np.testing.assert_array_equal(found, jax.grad(lambda *a: of_jax(*a).sum(), position)(x, y))
    _, pull = jax.vjp(own, x, y)
    assert all(kept.dtype == bool for kept in jax.tree.leaves(pull) if kept.size > 1)
    assert any(kept.size > 1 for kept in jax.tree.leaves(pull))


def test_equal_numbers() -> None:
    """One counts, and in the maximum another one than in the minimum."""
    slopes = [jax.jacobian(f, (0, 1))(1.0, 1.0) for f in (maximum, minimum)]
    np.testing.assert_array_equal(slopes, [[1, 0], [0, 1]])
    np.testing.assert_array_equal(jax.grad(lambda x: maximum(x, 0) + minimum(x, 0))(0.0), 1)


@pytest.mark.parametrize("x", [-2.0, -1.0, 0.0, 1.0, 2.0])
def test_clip(x: float) -> None:
    value, slope = jax.value_and_grad(clip)(x, -1.0, 1.0)
    assert value == np.clip(x, -1, 1)
    assert slope == (abs(x) <= 1)
