"""Measure jaxlirpa, beside auto_LiRPA where a checkout is given: ``python -m benchmarks.run``."""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import peak, table
from .compare import compare
from .machine import conditions, peer_versions
from .measure import Measurement, measure
from .needed import multiply_adds
from .workloads import WORKLOADS, Contender, Workload

QUICK_REPEATS = 3


def commands(workload: Workload, options: argparse.Namespace) -> dict[Contender, list[str]]:
    """The processes to start for a workload; ours comes first."""
    common = [workload.name, f"--threads={options.threads}"]
    common += ["--quick"] if options.quick else []
    ours = [sys.executable, "-m", "benchmarks.ours", *common]
    chosen = {Contender.OURS: ours}
    if Contender.VMAP in workload.peers:
        chosen[Contender.VMAP] = [*ours, f"--contender={Contender.VMAP.value}"]
    if Contender.PEER in workload.peers and options.auto_lirpa:
        checkout = f"--checkout={options.auto_lirpa.resolve()}"
        python = options.auto_lirpa_python
        chosen[Contender.PEER] = [python, "-m", "benchmarks.peer", *common, checkout]
    return chosen


def record(workload: Workload, results: Mapping[Contender, Measurement]) -> dict[str, Any]:
    """A row for the JSON file."""
    ours, *_ = results.values()
    compared = {c: m for c, m in results.items() if m.arrays and ours.arrays and m is not ours}
    rows = ours.arrays.get("rows")
    return {
        "workload": workload.name,
        "batch": workload.batch,
        "eps": workload.eps,
        "rows": None if rows is None else rows.tolist(),
        "needed": None if rows is None else multiply_adds(workload, rows.tolist()),
        "contenders": {c.value: m.summary() for c, m in results.items()},
        "ratios": {c.value: m.median / ours.median for c, m in compared.items()},
        "comparison": {c.value: compare(ours, m) for c, m in compared.items()},
    }


def measured_peak(options: argparse.Namespace, environment: Mapping[str, str]) -> dict[str, float]:
    """The multiply-adds a second that each library reaches in a product of large matrices."""
    pythons = {"jax": sys.executable}
    if options.auto_lirpa:
        pythons["torch"] = options.auto_lirpa_python
    started = {
        library: [python, "-m", "benchmarks.peak", library, f"--threads={options.threads}"]
        for library, python in pythons.items()
    }
    results = measure(started, environment, QUICK_REPEATS if options.quick else peak.REPEATS)
    return {name: peak.MULTIPLY_ADDS / min(m.seconds) for name, m in results.items() if m.seconds}


def parse() -> argparse.Namespace:
    """The command line."""
    names = [workload.name for workload in WORKLOADS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    add = parser.add_argument
    add("--only", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    add("--auto-lirpa", type=Path, metavar="PATH", help="a checkout of auto_LiRPA")
    add(
        "--auto-lirpa-python",
        default=sys.executable,
        metavar="PYTHON",
        help="the interpreter that has its requirements (default: this one)",
    )
    add("--repeats", type=int, default=7, help="runs per contender, in turns (default: 7)")
    add("--threads", type=int, default=2, help="cores and threads of either side (default: 2)")
    add("--quick", action="store_true", help="an eighth of every batch, without large networks")
    add("--xla-flags", default="", metavar="FLAGS", help="XLA_FLAGS for our processes")
    add("--json", type=Path, metavar="FILE", help="write every figure to this file")
    return parser.parse_args()


def chosen(options: argparse.Namespace) -> list[Workload]:
    """The workloads to measure, as they are named in the table."""
    if options.only:
        return [w for w in WORKLOADS if w.name in options.only]
    return [w for w in WORKLOADS if not (options.quick and w.large)]


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
    report: dict[str, Any] = {
        **conditions(),
        "threads": options.threads,
        "xla_flags": options.xla_flags,
        "quick": options.quick,
        "repeats": options.repeats,
    }
    if options.auto_lirpa:
        report["versions"] |= peer_versions(options.auto_lirpa, options.auto_lirpa_python)
    report["peaks"] = measured_peak(options, environment)
    report["peak"] = max(report["peaks"].values())
    report["rows"] = []
    print(f"{report['peak'] / 1e9:.1f} billion multiply-adds a second at most")
    print(table.header(), flush=True)
    for workload in chosen(options):
        reduced = workload.quick() if options.quick else workload
        repeats = 0 if workload.compile_only else options.repeats
        results = measure(commands(workload, options), environment, repeats)
        report["rows"].append(record(reduced, results))
        print(table.lines(report["rows"][-1], report["peak"]), flush=True)
        report["load_after"] = os.getloadavg()[0]
        if options.json:  # What is there stays, should the rest be broken off.
            options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
