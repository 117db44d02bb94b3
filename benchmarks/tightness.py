"""How wide bounds are: ``python -m benchmarks.tightness [CASE ...] [--methods ...]``.

Prints, for networks with stored bounds of auto_LiRPA (``tests/reference``), the mean width of our
bounds, of theirs, and of the outputs that some point of the set attains; ``docs/tightness.md`` says
how to read it. Run it from the root of the repository; ``JAXLIRPA_REFERENCE`` names a folder with
more cases than the repository holds.
"""

import argparse

import jax
import numpy as np

from tests.reference import program
from tests.reference import test_reference as reference

CASES = (
    *reference.SMALL,
    *reference.CURVED,
    *reference.JOINT,
    *reference.JOINT_LARGE,
    "weights_mlp_l2_first_layer",
)


def row(name: str, method: str) -> str:
    """One line of the table."""
    case = program.load(name)
    (lower, upper), (least, most) = reference.bounds(name, method), case.attained()
    ours, attained = float(np.mean(upper - lower)), float(np.mean(most - least))
    theirs, ratio = "-", "-"
    if f"bounds/{method}/lower" in case.arrays:
        below, above = case.bounds(method)
        width = float(np.mean(above - below))
        theirs, ratio = f"{width:.4g}", f"{ours / width:.4f}"
        if not case.is_target(method):
            ratio = "violated"
    return f"| `{name}` | {method} | {ours:.4g} | {theirs} | {ratio} | {attained:.4g} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", default=CASES)
    parser.add_argument("--methods", nargs="*", default=tuple(reference.METHODS))
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    print("| network | method | ours | auto_LiRPA's | ours / theirs | attained |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for name in options.cases:
        if program.directory(name) is None:
            continue
        stored = program.load(name).record["methods"]
        for method in options.methods:
            if method in stored:
                print(row(name, method), flush=True)


if __name__ == "__main__":
    main()
