"""How cost grows, with depth, width, batch, rows and radius: ``python -m benchmarks.scaling``.

A fully connected ReLU network is bounded by every method while one number is varied. Writes the
seconds as JSON and as plots (needs matplotlib); prints by which power of the number they grow.
"""

import argparse
import functools
import itertools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxlirpa

INPUTS = 64
REPEATS = 7
METHODS: dict[str, Callable[..., Any]] = {
    "IBP": jaxlirpa.ibp,
    "CROWN-IBP": jaxlirpa.crown_ibp,
    "CROWN": jaxlirpa.crown,
    "forward": jaxlirpa.forward_crown,
}


@dataclass(frozen=True)
class Case:
    """A network, a batch and a radius."""

    depth: int = 4
    width: int = 128
    batch: int = 16
    rows: int = 10
    eps: float = 0.01


SWEEPS: dict[str, Sequence[Any]] = {
    "depth": (2, 4, 8, 16),
    "width": (64, 128, 256, 512),
    "batch": (4, 16, 64, 256),
    "rows": (1, 10, 100, 1000),
    "eps": (0.001, 0.01, 0.1, 1.0),
}


def network(weights: Sequence[jax.Array], x: jax.Array) -> jax.Array:
    """A batch of vectors, through layers without shifts."""
    for w in weights[:-1]:
        x = jax.nn.relu(x @ w)
    return x @ weights[-1]


def seconds(case: Case, method: Callable[..., Any]) -> float:
    """The median of some calls that are compiled already."""
    random = np.random.default_rng(0)
    sizes = [INPUTS, *[case.width] * case.depth, case.rows]
    shapes = itertools.pairwise(sizes)
    weights = [jnp.asarray(random.normal(size=s) * (2 / s[0]) ** 0.5, "float32") for s in shapes]
    x = jnp.asarray(random.normal(size=(case.batch, INPUTS)), "float32")
    bound = jax.jit(functools.partial(method(network), weights))
    times = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        jax.block_until_ready(bound(x, case.eps))
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def plot(table: dict[str, dict[str, list[float]]], path: Path) -> None:
    """One panel a number that is varied, one line a method."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(table), figsize=(3.2 * len(table), 3.2), sharey=True)
    for panel, (name, lines) in zip(panels, table.items(), strict=True):
        for method, values in lines.items():
            panel.loglog(SWEEPS[name], values, marker="o", markersize=4, label=method)
        panel.set_xlabel(name)
        panel.set_xticks(SWEEPS[name], [f"{value:g}" for value in SWEEPS[name]])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("seconds a call")
    panels[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def powers(name: str, values: Sequence[float]) -> str:
    """From each value of the number to the next, the power by which seconds grow."""
    steps = np.diff(np.log(values)) / np.diff(np.log(SWEEPS[name]))
    return ", ".join(f"{step:.1f}" for step in steps)


def main() -> None:
    """All sweeps."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("scaling.json"))
    parser.add_argument("--plot", type=Path, default=Path("docs/scaling.png"))
    options = parser.parse_args()
    table: dict[str, dict[str, list[float]]] = {}
    print("| varied | values | method | seconds | grows by the power |")
    print("| --- | --- | --- | --- | --- |")
    for name, values in SWEEPS.items():
        cases = [replace(Case(), **{name: value}) for value in values]
        table[name] = {m: [seconds(case, f) for case in cases] for m, f in METHODS.items()}
        for method, found in table[name].items():
            numbers = ", ".join(f"{x:.2g}" for x in found)
            listed = ", ".join(map(str, values))
            print(
                f"| {name} | {listed} | {method} | {numbers} | {powers(name, found)} |", flush=True
            )
    options.json.write_text(json.dumps({"base": asdict(Case()), "seconds": table}, indent=1))
    plot(table, options.plot)


if __name__ == "__main__":
    main()
