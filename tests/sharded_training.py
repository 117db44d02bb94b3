"""The example's training on eight devices, held against one; run in a process of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ["JAX_PLATFORMS"] = "cpu"
sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

import jax
import models
import numpy as np
import training
from data import load
from settings import SettingError, from_given

jax.config.update("jax_disable_most_optimizations", True)  # compiles much, runs little
DATA = load("digits")


def trained(devices: list[jax.Device]) -> tuple[training.State, training.Checked, float]:
    """Three steps with a radius, and the check of what they reach."""
    given = {"data": "digits", "model": "tiny", "batch": 32, "check": 40, "warmup": 0, "ramp": 0}
    run = training.trainer(from_given(given), len(DATA.train_images), devices)
    assert run.mesh.size == len(devices)
    state = jax.device_put(training.initial(run, DATA.train_images[0]), run.copies)
    step, sums = training.make_step(run), training.nothing(run)
    batches = training.batches(run, state, DATA.train_images, DATA.train_labels)
    for _ in range(3):
        images, labels = next(batches)
        assert len(images.sharding.device_set) == len(devices)
        state, sums = step(state, sums, images, labels)
    state = training.make_statistics(run)(state, DATA.train_images)
    return state, training.make_check(run)(state, DATA, 0.05), float(sums.loss)


def main() -> None:
    """Eight devices and one."""
    models.MODELS["tiny"] = lambda classes: models.CNN(classes, ((4, 2),), window=3, dense=8)
    many, checked, loss = trained(jax.devices())
    one, expected, own = trained(jax.devices()[:1])
    np.testing.assert_allclose(loss, own, rtol=1e-4)
    for a, b in zip(jax.tree.leaves(many), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    for a, b in zip(checked, expected, strict=True):
        assert np.mean(a != b) < 0.05
    try:
        training.trainer(from_given({"data": "digits", "batch": 36}), 100)
    except SettingError as error:
        assert "does not divide over 8 devices" in str(error)
    else:
        raise AssertionError("a batch of 36 on 8 devices")
    print("equal")


if __name__ == "__main__":
    main()
