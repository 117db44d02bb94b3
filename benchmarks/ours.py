"""jaxlirpa's side: ``python -m benchmarks.ours WORKLOAD``, a worker."""

import argparse
import functools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxlirpa
from jaxlirpa import landscape, train

from .jax_network import function, outputs, relu_operands
from .worker import MIB, Arrays, Costs, serve, use_cores
from .workloads import (
    AlphaCrown,
    Bounded,
    Contender,
    Crown,
    CrownIbp,
    Ibp,
    Method,
    Perturbed,
    Sides,
    Workload,
    named,
)

AXES = (None, 0, 0)  # The weights are shared, inputs and labels are batched.


def transform(method: Method) -> Callable[..., Callable[..., Any]]:
    """Our transform of that method."""
    match method:
        case Ibp():
            return jaxlirpa.ibp
        case CrownIbp():
            return jaxlirpa.crown_ibp
        case Crown(rows_per_chunk):
            return functools.partial(jaxlirpa.crown, rows_per_chunk=rows_per_chunk)
        case AlphaCrown(steps, inner):
            return functools.partial(jaxlirpa.alpha_crown, steps=steps, optimize_intermediate=inner)


def bounder(workload: Workload, contender: Contender) -> Callable[..., Any]:
    """The bounds of the batch as a function of (params, x, label, eps)."""
    fn, method = function(workload), transform(workload.method)
    if contender is Contender.OURS:
        return method(fn, in_axes=AXES, argnums=1)

    def single(params: Any, x: jax.Array, label: jax.Array) -> jax.Array:
        return fn(params, x[None], label[None])[0]

    return jax.vmap(method(single, argnums=1), in_axes=(*AXES, None))


def training_step(workload: Workload) -> Callable[..., Any]:
    """A certified loss and its gradient, as a function of (params, x, label, eps)."""
    network = outputs(workload)
    if workload.bounded is Bounded.CROSS_ENTROPY:
        loss = train.fused(network)
    elif workload.method == CrownIbp():
        loss = train.crown_ibp(network)
    else:
        loss = train.certified(network, transform(workload.method))
    return jax.value_and_grad(lambda *args: loss(*args).mean())


def measured(workload: Workload, contender: Contender) -> Callable[..., Any]:
    """What a run computes: bounds by name, or a certified loss and its gradient."""
    if workload.perturbed is Perturbed.WEIGHTS:
        return jax.value_and_grad(worst_loss(workload))
    if workload.training:
        return training_step(workload)
    bounds = bounder(workload, contender)

    def limits(*args: Any) -> dict[str, jax.Array]:
        lower, upper = bounds(*args)
        match workload.sides:
            case Sides.LOWER:
                return {"lower": lower}
            case Sides.UPPER:
                return {"upper": upper}
            case Sides.BOTH:
                return {"lower": lower, "upper": upper}

    return limits


def worst_loss(workload: Workload) -> Callable[..., jax.Array]:
    """An upper bound of the mean loss over balls around the weight matrices."""
    fn = function(workload)

    def loss(params: Any, x: jax.Array, label: jax.Array) -> jax.Array:
        return jnp.mean(fn(params, x, label))

    worst = landscape.flat_loss(loss, method=transform(workload.method))
    return lambda params, x, label, eps: worst(params, eps, x, label)


def arguments(workload: Workload) -> tuple[Any, ...]:
    """Weights, inputs, labels and the radius."""
    return jax.device_put((workload.weights(), *workload.inputs(), np.float32(workload.eps)))


def arrays(workload: Workload, result: Any) -> Arrays:
    """What to compare, its value where nothing is perturbed, and how many rows relus leave open.

    Of a gradient only that of the first layer's bias, which passes through all that follows.
    """
    params, x, label, eps = arguments(workload)
    operands = relu_operands(workload)
    if workload.perturbed is Perturbed.WEIGHTS:
        boxes = jax.jit(jaxlirpa.ibp(operands))(landscape.every_matrix(params, eps), x)
    else:
        boxes = jax.jit(jaxlirpa.ibp(operands, argnums=1))(params, x, eps)
    rows = [jnp.sum((low < 0) & (high > 0)) for low, high in zip(*boxes, strict=True)]
    found = {"rows": np.asarray(rows, int)}
    if not workload.training:
        found["centre"] = np.asarray(function(workload)(params, x, label))
        return found | {name: np.asarray(limit) for name, limit in result.items()}
    entropy = replace(workload, bounded=Bounded.CROSS_ENTROPY)
    found["centre"] = np.asarray(jnp.mean(function(entropy)(params, x, label)))
    value, gradient = result
    return found | {"loss": np.asarray(value), "gradient": np.asarray(gradient[0][0][1])}


def main() -> None:
    """Compile the workload named on the command line and serve."""
    contenders = {c.value: c for c in (Contender.OURS, Contender.VMAP)}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload")
    parser.add_argument("--contender", choices=contenders, default=Contender.OURS.value)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    use_cores(options.threads)
    workload, contender = named(options.workload, options.quick), contenders[options.contender]
    jax.devices()

    def prepare() -> tuple[Callable[[], Any] | None, Costs]:
        args = jax.block_until_ready(arguments(workload))
        start = time.perf_counter()
        lowered = jax.jit(measured(workload, contender)).lower(*args)
        traced = time.perf_counter()
        compiled = lowered.compile()
        costs = {"trace": traced - start, "compile": time.perf_counter() - traced}
        memory = compiled.memory_analysis()
        if memory is not None:
            costs["buffers_mib"] = memory.temp_size_in_bytes / MIB
        if workload.compile_only:
            return None, costs
        return lambda: jax.block_until_ready(compiled(*args)), costs

    serve(prepare, lambda result: arrays(workload, result))


if __name__ == "__main__":
    main()
