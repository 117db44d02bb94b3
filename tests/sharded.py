"""Bounds on several devices, held against those on one; run in processes of their own.

`python sharded.py` has eight devices. `python sharded.py ADDRESS NUMBER` is one of two processes
with four devices each, that find each other at the address.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

PROCESSES = 2 if len(sys.argv) > 1 else 1
_DEVICES = f"--xla_force_host_platform_device_count={8 // PROCESSES}"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_DEVICES}"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax  # noqa: E402
import numpy as np  # noqa: E402
from jax.sharding import Mesh, NamedSharding, PartitionSpec  # noqa: E402

import jaxlirpa  # noqa: E402

EXAMPLES, ROWS = PartitionSpec("devices"), PartitionSpec(None, "devices")
COPIES = PartitionSpec()
RANDOM = np.random.default_rng(0)
WEIGHTS = [
    (RANDOM.normal(size=shape) / shape[0] ** 0.5).astype(np.float32)
    for shape in ((64, 128), (128, 128), (128, 64))
]
X = RANDOM.normal(size=(32, 64)).astype(np.float32)
METHODS: dict[str, Callable[..., Any]] = {
    "ibp": jaxlirpa.ibp,
    "crown_ibp": jaxlirpa.crown_ibp,
    "crown": jaxlirpa.crown,
    "chunks": functools.partial(jaxlirpa.crown, rows_per_chunk=16),
    "forward": jaxlirpa.forward_crown,
    "alpha": functools.partial(jaxlirpa.alpha_crown, steps=3),
}


def network(weights: list[jax.Array], x: jax.Array) -> jax.Array:
    """A batch of 64 numbers to a batch of 64 numbers."""
    for w in weights[:-1]:
        x = jax.nn.relu(x @ w)
    return x @ weights[-1]


def batch(method: Callable[..., Any], weights: Any, x: jax.Array) -> Any:
    """The bounds of a batch."""
    return method(network)(weights, x, 0.1)


def manual(method: Callable[..., Any], mesh: Mesh, weights: Any, x: jax.Array) -> Any:
    """The same, where every device computes its part by itself."""
    part = functools.partial(batch, method)
    specs = {"in_specs": (COPIES, EXAMPLES), "out_specs": EXAMPLES}
    return jax.shard_map(part, mesh=mesh, **specs)(weights, x)


def rows(mesh: Mesh, weights: Any, x: jax.Array) -> Any:
    """CROWN of a single example, the rows of every layer on all devices."""
    inner = jaxlirpa.intermediate_bounds(network, rows_per_chunk=128)(weights, x, 0.1)
    inner = jax.lax.with_sharding_constraint({**inner}, NamedSharding(mesh, ROWS))
    return jaxlirpa.crown(network, intermediate=inner)(weights, x, 0.1)


def check(
    fn: Callable[..., Any], mesh: Mesh, x: np.ndarray, split: PartitionSpec, result: PartitionSpec
) -> None:
    """Bounds equal those on one device, for little more than a device's share of the work."""

    def on(mesh: Mesh, array: np.ndarray, spec: PartitionSpec) -> jax.Array:
        sharding = NamedSharding(mesh, spec)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    def run(mesh: Mesh, split: PartitionSpec, result: PartitionSpec) -> tuple[Any, float]:
        arguments = [on(mesh, w, COPIES) for w in WEIGHTS], on(mesh, x, split)
        own = jax.jit(functools.partial(fn, mesh), out_shardings=NamedSharding(mesh, result))
        compiled = own.lower(*arguments).compile()
        return compiled(*arguments), compiled.cost_analysis()["flops"]

    single = Mesh(np.array(jax.local_devices()[:1]), ("devices",))
    expected, whole = run(single, COPIES, COPIES)
    found, share = run(mesh, split, result)
    assert share < 1.1 / mesh.size * whole, (share, whole)
    for a, b in zip(found, expected, strict=True):
        assert a.sharding.spec == result
        for shard in a.addressable_shards:
            own = np.asarray(b)[shard.index]
            assert shard.data.size == b.size // mesh.size
            np.testing.assert_allclose(np.asarray(shard.data), own, rtol=1e-5, atol=1e-5)


def main() -> None:
    """All methods on all devices."""
    if PROCESSES > 1:
        jax.distributed.initialize(sys.argv[1], PROCESSES, int(sys.argv[2]))
    mesh = Mesh(np.array(jax.devices()), ("devices",))
    assert mesh.size == 8
    for method in METHODS.values():
        check(lambda mesh, w, x, m=method: batch(m, w, x), mesh, X, EXAMPLES, EXAMPLES)
        check(functools.partial(manual, method), mesh, X, EXAMPLES, EXAMPLES)
    check(rows, mesh, X[:1], COPIES, ROWS)
    print("equal")


if __name__ == "__main__":
    main()
