"""jaxlirpa's side: ``python -m benchmarks.ours WORKLOAD``, a worker."""

import argparse
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxlirpa

from .worker import Arrays, serve, use_cores
from .workloads import CLASSES, Conv, Dense, Flatten, Layer, Relu, Residual, Workload, named

METHODS = {
    "ibp": jaxlirpa.ibp,
    "crown": jaxlirpa.crown,
    "crown_ibp": jaxlirpa.crown_ibp,
    "alpha_crown": jaxlirpa.alpha_crown,
    "alpha_crown_inner": functools.partial(jaxlirpa.alpha_crown, optimize_intermediate=True),
}
AXES = (None, 0, 0)  # The weights are shared, inputs and labels are batched.


def apply(layer: Layer, weights: Any, x: jax.Array) -> jax.Array:
    """One layer on a batch."""
    match layer:
        case Dense():
            ((kernel, bias),) = weights
            return x @ kernel + bias
        case Conv():
            ((kernel, bias),) = weights
            pads = [(layer.padding, layer.padding)] * 2
            dims = ("NHWC", "HWIO", "NHWC")
            strides = (layer.stride, layer.stride)
            return lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=dims) + bias
        case Residual():
            first, second, shortcut = layer.convs
            inner = jax.nn.relu(apply(first, weights[:1], x))
            return jax.nn.relu(apply(second, weights[1:2], inner) + apply(shortcut, weights[2:], x))
        case Flatten():
            return x.reshape(len(x), -1)
        case Relu():
            return jax.nn.relu(x)


def function(workload: Workload) -> Callable[..., jax.Array]:
    """The function to bound: the outputs, or the margins of the label over the other classes."""

    def outputs(params: Any, x: jax.Array, label: jax.Array) -> jax.Array:
        for layer, weights in zip(workload.network, params, strict=True):
            x = apply(layer, weights, x)
        if not workload.margins:
            return x
        others = (label[:, None] + jnp.arange(1, CLASSES)) % CLASSES
        own = jnp.take_along_axis(x, label[:, None], axis=1)
        return own - jnp.take_along_axis(x, others, axis=1)

    return outputs


def bounder(workload: Workload, contender: str) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """The bounds of the batch as a function of (params, x, label, eps)."""
    fn, method = function(workload), METHODS[workload.method]
    if contender == "jaxlirpa":
        return method(fn, in_axes=AXES, argnums=1)

    def single(params: Any, x: jax.Array, label: jax.Array) -> jax.Array:
        return fn(params, x[None], label[None])[0]

    return jax.vmap(method(single, argnums=1), in_axes=(*AXES, None))


def measured(workload: Workload, contender: str) -> Callable[..., Any]:
    """What a run computes: bounds, a lower bound, or the gradient of a certified loss."""
    bounds = bounder(workload, contender)

    def certified_loss(*args: Any) -> jax.Array:
        lower, _ = bounds(*args)
        logits = jnp.pad(-lower, ((0, 0), (1, 0)))
        return jnp.mean(jax.nn.logsumexp(logits, axis=1) - logits[:, 0])

    if workload.gradient:
        return jax.grad(certified_loss)
    if workload.lower_only:
        return lambda *args: bounds(*args)[0]
    return lambda *args: tuple(bounds(*args))


def arrays(workload: Workload, result: Any) -> Arrays:
    """The arrays to compare: bounds, or the gradient of the first layer's bias."""
    if workload.gradient:
        return {"gradient": np.asarray(result[0][0][1])}
    names = ("lower",) if workload.lower_only else ("lower", "upper")
    return dict(zip(names, map(np.asarray, jax.tree.leaves(result)), strict=True))


def main() -> None:
    """Compile the workload named on the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload")
    parser.add_argument("--contender", choices=("jaxlirpa", "vmap"), default="jaxlirpa")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    use_cores(options.threads)
    workload = named(options.workload, options.quick)

    def prepare() -> tuple[Callable[[], Any], dict[str, float]]:
        args = jax.device_put((workload.weights(), *workload.inputs(), np.float32(workload.eps)))
        start = time.perf_counter()
        lowered = jax.jit(measured(workload, options.contender)).lower(*args)
        traced = time.perf_counter()
        compiled = lowered.compile()
        costs = {"trace": traced - start, "compile": time.perf_counter() - traced}
        return lambda: jax.block_until_ready(compiled(*args)), costs

    serve(prepare, lambda result: arrays(workload, result))


if __name__ == "__main__":
    main()
