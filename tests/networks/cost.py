"""What bounds of each network cost before they run: `python -m tests.networks.cost`.

Prints the equations of the traced program and, with `--compile`, instructions and the seconds of
processor that it takes to trace, to lower and to compile. `--write` keeps the equations in
`equations.json`. A test fails above them: unlike seconds, they are the same on every machine.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

# The modules of the tests are found as pytest finds them.
sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
from jaxprs import equations

import jaxlirpa
from networks.plain import Network

METHODS: dict[str, Callable[..., Any]] = {
    "ibp": jaxlirpa.ibp,
    "crown_ibp": jaxlirpa.crown_ibp,
    "crown": jaxlirpa.crown,
}
LIMITS = Path(__file__).parent / "equations.json"


class Cost(NamedTuple):
    """What a program costs.

    Attributes:
        equations: of its jaxpr, inner ones included.
        trace, lower, compile: seconds of processor.
        instructions: of the compiled program.
    """

    equations: int
    trace: float
    lower: float = 0.0
    compile: float = 0.0
    instructions: int = 0


def cost(network: Network, method: Callable[..., Any], compile: bool) -> Cost:
    """What bounds of a network cost by a method, with nothing traced or compiled before."""
    jax.clear_caches()
    box, clock = network.box(), time.process_time
    start = clock()
    traced = jax.jit(method(network.fn)).trace(network.params, box)
    after = clock()
    counted = sum(1 for _ in equations(traced.jaxpr))
    if not compile:
        return Cost(counted, after - start)
    begin = clock()
    lowered = traced.lower()
    below = clock()
    compiled = lowered.compile()
    end = clock()
    instructions = len(re.findall(r"^\s+(?:ROOT )?%?[\w.-]+ = ", compiled.as_text(), re.MULTILINE))
    return Cost(counted, after - start, below - begin, end - below, instructions)


def main() -> None:
    """Prints the table."""
    from networks.test_networks import NETWORKS

    parser = argparse.ArgumentParser(prog="python -m tests.networks.cost", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="NETWORK", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--compile", action="store_true", help="lower and compile as well")
    parser.add_argument("--write", action="store_true", help=f"keep the equations in {LIMITS.name}")
    options = parser.parse_args()
    limits = json.loads(LIMITS.read_text()) if LIMITS.exists() else {}
    print("| network | method | equations | trace s | lower s | compile s | instructions |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for name in options.only:
        for method in options.methods:
            found = cost(NETWORKS[name](), METHODS[method], options.compile)
            limits.setdefault(name, {})[method] = found.equations
            seconds = [f"{x:.2f}" if x else "" for x in found[1:4]]
            cells = (name, method, found.equations, *seconds, found.instructions or "")
            print("|", " | ".join(map(str, cells)), "|", flush=True)
    if options.write:
        limits["jax"] = jax.__version__
        LIMITS.write_text(json.dumps(limits, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
