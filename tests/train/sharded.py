"""A step of certified training on eight devices, held against one; run in a process of its own.

`python sharded.py` has eight devices. `python sharded.py ADDRESS NUMBER` is one of two processes
with four devices each, that find each other at the address.
"""

from __future__ import annotations

import os
import sys
from typing import Any

PROCESSES = 2 if len(sys.argv) > 1 else 1
_DEVICES = f"--xla_force_host_platform_device_count={8 // PROCESSES}"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_DEVICES}"
os.environ["JAX_PLATFORMS"] = "cpu"

import flax.linen as nn  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
from jax.sharding import Mesh, NamedSharding, PartitionSpec  # noqa: E402

import jaxlirpa.train.linen  # noqa: E402, F401
from jaxlirpa import train  # noqa: E402

EXAMPLES, COPIES = PartitionSpec("devices"), PartitionSpec()
RANDOM = np.random.default_rng(0)
X = RANDOM.uniform(size=(96, 8, 8, 1)).astype(np.float32)
LABELS = RANDOM.integers(0, 10, 96)
# Of a bias in front of BatchNorm the gradient is rounding alone, which Adam would enlarge.
OPTIMISER = optax.sgd(1e-2, momentum=0.9)


class Network(nn.Module):
    """A convolution and a dense layer, normalised."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Images to logits, in training mode."""
        x = nn.relu(nn.BatchNorm(False)(nn.Conv(8, (3, 3), 2)(x)))
        x = nn.Dense(32)(x.reshape(x.shape[0], -1))
        return nn.Dense(10)(nn.relu(nn.BatchNorm(False)(x)))


def step(state: Any, x: jax.Array, labels: jax.Array) -> Any:
    """Attack, losses of all kinds, regularisers, statistics, and an update."""
    variables, optimiser = state

    def loss(params: Any) -> Any:
        own = {**variables, "params": params}
        shared = train.linen.shared_statistics(Network(), own, x)
        box = train.clipped_box(x, 0.1)
        fused, boxes = train.fused(shared.fn, with_boxes=True)(
            params, box, labels, beta=jnp.asarray(0.5)
        )
        attack = train.pgd(train.natural(shared.fn), steps=2)
        small = train.small_box(box, attack(params, box, labels, key=jax.random.key(0)), 0.3)
        other = train.crown_ibp(shared.fn)(params, small, labels)
        terms = train.tightness(boxes) + train.relu_balance(boxes)
        return (fused + other).mean() + terms, shared.batch_stats

    (value, stats), gradient = jax.value_and_grad(loss, has_aux=True)(variables["params"])
    updates, optimiser = OPTIMISER.update(gradient, optimiser)
    params = optax.apply_updates(variables["params"], updates)
    return ({"params": params, "batch_stats": stats}, optimiser), value


def run(mesh: Mesh, split: PartitionSpec) -> tuple[Any, float]:
    """Two steps, and the operations of one on a device."""

    def on(array: Any, spec: PartitionSpec) -> jax.Array:
        array, sharding = np.asarray(array), NamedSharding(mesh, spec)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    variables = Network().init(jax.random.key(0), X[:2])
    state = jax.tree.map(
        lambda leaf: on(leaf, COPIES), (variables, OPTIMISER.init(variables["params"]))
    )
    batch = on(X, split), on(LABELS, split)
    copies = NamedSharding(mesh, COPIES)
    compiled = jax.jit(step, out_shardings=copies).lower(state, *batch).compile()
    state, _ = compiled(state, *batch)
    (variables, _), value = compiled(state, *batch)
    return (variables, value), compiled.cost_analysis()["flops"]


def main() -> None:
    """Eight devices do what one does, each about a quarter of it: not all of it is divided."""
    if PROCESSES > 1:
        jax.distributed.initialize(sys.argv[1], PROCESSES, int(sys.argv[2]))
    mesh = Mesh(np.array(jax.devices()), ("devices",))
    assert mesh.size == 8
    single = Mesh(np.array(jax.local_devices()[:1]), ("devices",))
    expected, whole = run(single, COPIES)
    found, share = run(mesh, EXAMPLES)
    assert share < 0.3 * whole, (share, whole)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        own = np.asarray(a.addressable_shards[0].data)
        np.testing.assert_allclose(own, np.asarray(b), rtol=1e-3, atol=1e-4)
    print("equal", share / whole)


if __name__ == "__main__":
    main()
