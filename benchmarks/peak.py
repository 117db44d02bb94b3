"""How fast the machine multiplies matrices: ``python -m benchmarks.peak jax``, a worker.

A float32 product of two square matrices, too large for any cache, by the library that is named. The
faster of the two libraries, at its best, is what the figures call the peak.
"""

import argparse
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from .worker import Costs, serve, use_cores

SIZE = 3072
MULTIPLY_ADDS = SIZE**3
REPEATS = 15


def jax_product(threads: int) -> Callable[[], Any]:
    """The product by XLA, which takes as many threads as there are cores."""
    del threads
    jax = importlib.import_module("jax")
    product = jax.jit(lambda a, b: a @ b)
    a, b = (jax.device_put(x) for x in _matrices())
    return lambda: jax.block_until_ready(product(a, b))


def torch_product(threads: int) -> Callable[[], Any]:
    """The product by torch."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(threads)
    a, b = (torch.from_numpy(x) for x in _matrices())
    return lambda: a @ b


def _matrices() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, SIZE, SIZE)).astype(np.float32)


def main() -> None:
    """Prepare the product of the library named on the command line and serve."""
    products = {"jax": jax_product, "torch": torch_product}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", choices=products)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    use_cores(options.threads)

    def prepare() -> tuple[Callable[[], Any], Costs]:
        return products[options.library](options.threads), {}

    serve(prepare, lambda result: {"corner": np.asarray(result)[:1, :1]})


if __name__ == "__main__":
    main()
