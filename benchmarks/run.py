"""Measure jaxlirpa, beside auto_LiRPA where a checkout is given: ``python -m benchmarks.run``."""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .measure import Measurement, measure
from .workloads import WORKLOADS, Workload

OURS = "jaxlirpa"
HEADER = (
    f"{'workload':<21}{'against':<11}{'ours s':>9}{'theirs s':>9}{'ratio':>7}"
    f"{'MiB':>7}{'theirs':>7}{'trace s':>8}{'comp. s':>8}{'theirs':>7}{'looser':>9}{'tighter':>9}"
)


def commands(workload: Workload, options: argparse.Namespace) -> dict[str, list[str]]:
    """The processes to start for a workload, by contender; ours comes first."""
    common = [workload.name, f"--threads={options.threads}"]
    common += ["--quick"] if options.quick else []
    ours = [sys.executable, "-m", "benchmarks.ours", *common]
    chosen = {OURS: ours}
    if "vmap" in workload.peers:
        chosen["vmap"] = [*ours, "--contender=vmap"]
    if "auto_LiRPA" in workload.peers and options.auto_lirpa:
        checkout = f"--checkout={options.auto_lirpa.resolve()}"
        python = options.auto_lirpa_python
        chosen["auto_LiRPA"] = [python, "-m", "benchmarks.peer", *common, checkout]
    return chosen


def disagreement(ours: Measurement, theirs: Measurement) -> dict[str, float]:
    """By how much our bounds are looser and tighter than theirs, at most, relative to the width.

    Where only the lower bound was asked for, relative to its mean magnitude. A gradient is neither
    looser nor tighter: its largest difference, relative to its largest entry, counts as both.
    """
    mine, other = ours.arrays, theirs.arrays
    if "gradient" in mine:
        error = np.abs(mine["gradient"] - other["gradient"]).max()
        relative = float(error / np.abs(other["gradient"]).max())
        return {"looser": relative, "tighter": relative}
    scale = np.abs(other["upper"] - other["lower"] if "upper" in other else other["lower"]).mean()
    gains = [mine["lower"] - other["lower"]]
    gains += [other["upper"] - mine["upper"]] if "upper" in mine else []
    gain = np.stack(gains) / scale
    return {"looser": float(max(0, -gain.min())), "tighter": float(max(0, gain.max()))}


def row(name: str, results: Mapping[str, Measurement]) -> str:
    """A line per contender we are compared with, or one for ours alone."""
    ours, *others = results.values()
    if ours.error:
        return f"{name:<21}{OURS} failed: {ours.error}"
    lines = []
    for peer, theirs in zip([*results][1:], others, strict=True):
        line = f"{name:<21}{peer:<11}{ours.median:>9.3f}"
        if theirs.error:
            lines.append(f"{line}  failed: {theirs.error}")
            continue
        gap = disagreement(ours, theirs)
        lines.append(
            f"{line}{theirs.median:>9.3f}{theirs.median / ours.median:>7.2f}"
            f"{ours.peak_mib:>7.0f}{theirs.peak_mib:>7.0f}{ours.trace:>8.1f}{ours.compile:>8.1f}"
            f"{theirs.trace + theirs.compile:>7.1f}{gap['looser']:>9.0e}{gap['tighter']:>9.0e}"
        )
    alone = f"{name:<21}{'-':<11}{ours.median:>9.3f}{'':>16}{ours.peak_mib:>7.0f}{'':>7}"
    return "\n".join(lines) or f"{alone}{ours.trace:>8.1f}{ours.compile:>8.1f}"


def record(workload: Workload, results: Mapping[str, Measurement]) -> dict[str, Any]:
    """A row for the JSON file."""
    ours = results[OURS]
    good = {n: m for n, m in results.items() if n != OURS and not (m.error or ours.error)}
    return {
        "workload": workload.name,
        "batch": workload.batch,
        "eps": workload.eps,
        "contenders": {name: m.summary() for name, m in results.items()},
        "ratios": {name: m.median / ours.median for name, m in good.items()},
        "disagreement": {name: disagreement(ours, m) for name, m in good.items()},
    }


def parse() -> argparse.Namespace:
    """The command line."""
    names = [workload.name for workload in WORKLOADS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    add = parser.add_argument
    add("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    add("--auto-lirpa", type=Path, metavar="PATH", help="a checkout of auto_LiRPA")
    add(
        "--auto-lirpa-python",
        default=sys.executable,
        metavar="PYTHON",
        help="the interpreter that has its requirements (default: this one)",
    )
    add("--repeats", type=int, default=7, help="runs per contender, in turns (default: 7)")
    add("--threads", type=int, default=2, help="cores and threads of either side (default: 2)")
    add("--quick", action="store_true", help="an eighth of every batch")
    add("--xla-flags", default="", metavar="FLAGS", help="XLA_FLAGS for our processes")
    add("--json", type=Path, metavar="FILE", help="write every figure to this file")
    return parser.parse_args()


def main() -> None:
    """Measure the chosen workloads, printing each as soon as it is done."""
    options = parse()
    environment = {
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "XLA_FLAGS": options.xla_flags,
        "OMP_NUM_THREADS": str(options.threads),
        "MKL_NUM_THREADS": str(options.threads),
    }
    print(HEADER, flush=True)
    records = []
    for workload in (w for w in WORKLOADS if w.name in options.only):
        reduced = workload.quick() if options.quick else workload
        results = measure(commands(workload, options), environment, options.repeats)
        print(row(workload.name, results), flush=True)
        records.append(record(reduced, results))
    if options.json:
        report = {"threads": options.threads, "xla_flags": options.xla_flags, "rows": records}
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
