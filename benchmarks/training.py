"""The cost of a step of certified training: ``python -m benchmarks.training``.

The value and the gradient of a loss of the 7-layer CNN, by number of classes: plain, by interval
bounds, by CROWN-IBP with a row a class, and by CROWN-IBP with loss fusion. All are compiled first
and then run in turns; printed are medians, and how they compare.
"""

import argparse
import functools
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxlirpa import train

from .jax_network import outputs
from .machine import conditions
from .networks import CNN_7LAYER, Dense
from .worker import MIB, use_cores
from .workloads import Workload

CLASSES = (10, 100, 200)
LOSSES: dict[str, Callable[..., Callable[..., Any]]] = {
    "plain": train.natural,
    "IBP": train.certified,
    "CROWN-IBP": train.crown_ibp,
    "fused": train.fused,
}


def workload(classes: int, batch: int) -> Workload:
    """The network with so many classes, on CIFAR's images."""
    network = (*CNN_7LAYER[:-1], Dense(classes))
    return Workload(f"cifar-{classes}", network, (32, 32, 3), batch, 1 / 255)


def arguments(case: Workload) -> tuple[Any, ...]:
    """Weights, images and labels."""
    return jax.device_put((case.weights(), *case.inputs()))


def step(case: Workload, name: str) -> Callable[..., Any]:
    """The value and the gradient of a mean loss, as a function of (params, x, labels)."""
    loss = LOSSES[name](outputs(case))
    eps = () if name == "plain" else (case.eps,)

    def mean(params: Any, x: jax.Array, labels: jax.Array) -> jax.Array:
        return loss(params, x, labels, *eps).mean()

    return jax.value_and_grad(mean)


def measured(classes: int, batch: int, names: Sequence[str], repeats: int) -> dict[str, Any]:
    """Seconds of every run, seconds of compilation and temporary buffers, by loss."""
    case = workload(classes, batch)
    args = arguments(case)
    found: dict[str, Any] = {}
    runs = {}
    for name in names:
        start = time.perf_counter()
        compiled = jax.jit(step(case, name)).lower(*args).compile()
        seconds = time.perf_counter() - start
        memory = compiled.memory_analysis()
        buffers = None if memory is None else memory.temp_size_in_bytes / MIB
        found[name] = {"compile": seconds, "buffers_mib": buffers, "seconds": []}
        runs[name] = functools.partial(compiled, *args)
        jax.block_until_ready(runs[name]())
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            found[name]["seconds"].append(time.perf_counter() - start)
    for name in names:
        found[name]["median"] = statistics.median(found[name]["seconds"])
    return found


def line(classes: int, name: str, found: dict[str, Any], batch: int) -> str:
    """A row of the table."""
    own = found[name]
    ratios = (
        f"{own['median'] / found[other]['median']:.2f}" if other in found else "-"
        for other in ("plain", "IBP")
    )
    buffers = "-" if own["buffers_mib"] is None else f"{own['buffers_mib']:.0f}"
    cells = (f"{own['median']:.3g}", *ratios, f"{batch / own['median']:.0f}", buffers)
    return f"| {classes} | {name} | {' | '.join(cells)} | {own['compile']:.1f} |"


def main() -> None:
    """All losses at all numbers of classes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    add = parser.add_argument
    add("--classes", type=int, nargs="+", default=CLASSES, metavar="N", help="default: 10 100 200")
    add("--losses", nargs="+", choices=LOSSES, default=[*LOSSES], metavar="NAME")
    add("--batch", type=int, default=64, metavar="N", help="default: 64")
    add("--repeats", type=int, default=7, metavar="N", help="runs of each, in turns; default: 7")
    add("--threads", type=int, default=2, help="cores; default: 2")
    add("--json", type=Path, metavar="FILE", help="write every figure to this file")
    options = parser.parse_args()
    use_cores(options.threads)
    report = {
        **conditions(),
        "threads": options.threads,
        "batch": options.batch,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "device": jax.devices()[0].device_kind,
        "classes": {},
    }
    print("| classes | loss | s a step | x plain | x IBP | images/s | buffers MiB | compile s |")
    print("| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
    for classes in options.classes:
        found = measured(classes, options.batch, options.losses, options.repeats)
        report["classes"][classes] = found
        for name in options.losses:
            print(line(classes, name, found, options.batch), flush=True)
        if options.json:
            options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
