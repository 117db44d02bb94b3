"""Training on many devices, in two processes, and with gradients that are accumulated."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from processes import check, free_port, started

from jaxlirpa import train

from .networks import dense

PROGRAM = Path(__file__).with_name("sharded.py")


@pytest.mark.slow
def test_eight_devices_share_a_step() -> None:
    check([started(PROGRAM)])


@pytest.mark.slow
def test_two_processes_share_a_step() -> None:
    address = f"127.0.0.1:{free_port()}"
    check([started(PROGRAM, address, str(number)) for number in range(2)])


@pytest.mark.slow
def test_accumulated_gradients_are_those_of_the_whole_batch() -> None:
    own = dense()
    loss = train.fused(own.fn)
    x = jnp.concatenate([own.x, 0.5 * own.x])
    labels = jnp.concatenate([own.labels, own.labels])

    def gradient(x: jax.Array, labels: jax.Array) -> list:
        return jax.grad(lambda p: loss(p, x, labels, 0.1).mean())(own.params)

    whole = gradient(x, labels)
    parts = [gradient(x[half], labels[half]) for half in (slice(3), slice(3, 6))]
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-12, 1e-15), mean, whole)
    optimiser = optax.MultiSteps(optax.sgd(0.1), every_k_schedule=2)
    state = optimiser.init(own.params)
    for part in parts:
        updates, state = optimiser.update(part, state)
    expected, _ = optax.sgd(0.1).update(whole, optax.sgd(0.1).init(own.params))
    # Optax counts steps, by which it divides, in single precision.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-6, 1e-15), updates, expected)
