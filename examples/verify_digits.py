"""Trains a small network on handwritten digits, and decides how robust it is.

Every pixel of an image may change by up to eps within [0, 1]. An attack refutes that the class
stays the same, CROWN and alpha-CROWN prove it, and between them lies what neither decides. Branch
and bound decides most of that.

    python examples/verify_digits.py
    python examples/verify_digits.py --data mnist --data-dir ~/data/mnist --time-limit 20
"""

import argparse
import collections
import functools
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from attack import survives
from certify_digits import SETTINGS, Column, around, examine, table, trained, verified
from data import DataError, load
from network import margins
from options import add_data, data_objection, picture_objection, positive, seed
from options import radius as finite_radius
from plotting import plot_accuracy
from tqdm import tqdm

import jaxlirpa
from jaxlirpa import verify

METHODS = {"CROWN": jaxlirpa.crown, "alpha-CROWN": jaxlirpa.alpha_crown}
NAME = "branch and bound"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line; wrong use ends the program with exit code 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add_data(parser, tuple(SETTINGS))
    add("--epochs", type=positive, metavar="N", help="default: 20 for digits, 3 for MNIST")
    add("--eps", type=finite_radius, nargs="+", metavar="E", help="radii for pixels in [0, 1]")
    add("--examples", type=positive, metavar="N", default=40, help="test images, default: 40")
    add("--time-limit", type=positive, metavar="S", default=3, help="an image, default: 3 s")
    add("--output", type=Path, metavar="FILE", help="the plot, default: verify_<data>.png")
    add("--seed", type=seed, default=0, metavar="N", help="default: 0")
    add("--quick", action="store_true", help="less training, two radii and 10 images")
    args = parser.parse_args(argv)
    args.output = args.output or Path(f"verify_{args.data}.png")
    if objection := data_objection(args.data, args.data_dir) or picture_objection(args.output):
        parser.error(objection)
    digits = args.data == "digits"
    args.epochs = args.epochs or (5 if args.quick else 20 if digits else 3)
    radii = (0.06, 0.09, 0.12, 0.15) if digits else (0.02, 0.04, 0.06)
    args.eps = sorted(set(args.eps or (radii[:2] if args.quick else radii)))
    args.examples = 10 if args.quick else args.examples
    return args


def decide(
    params: dict,
    images: np.ndarray,
    labels: np.ndarray,
    eps: Sequence[float],
    proved: np.ndarray,
    refuted: np.ndarray,
    limit: float,
) -> tuple[Column, collections.Counter]:
    """Decides by branch and bound what is neither proved nor refuted yet.

    Args:
      params: the parameters of the network.
      images: (n, height, width, 1) in [0, 1].
      labels: the true classes, (n,).
      eps: the radii.
      proved, refuted: what is known already, booleans (radii, n); the latter is added to.
      limit: seconds an image.

    Returns:
      What is proved, and how often there was which verdict.
    """
    decided = verify.verify(margins, time_limit=limit)
    robust, seconds, verdicts = proved.copy(), np.zeros(len(eps)), collections.Counter()
    # The first call compiles.
    start = time.perf_counter()
    decided(params, jaxlirpa.LpBall(images[0], 0.01), labels[0])
    compilation = time.perf_counter() - start
    for i, radius in enumerate(eps):
        start = time.perf_counter()
        left = np.flatnonzero(~proved[i] & ~refuted[i])
        for n in tqdm(left, f"{NAME}, eps {radius:g}", leave=False, disable=None):
            found = decided(params, jaxlirpa.Box(*around(images[n], radius)), labels[n])
            verdicts[found.status] += 1
            robust[i, n] |= found.status == "proved"
            refuted[i, n] |= found.status == "refuted"
        seconds[i] = time.perf_counter() - start
    return Column(NAME, robust, seconds, compilation), verdicts


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, attacks, proves, decides, prints the table and saves the plot."""
    args = parse(argv)
    jax.config.update("jax_default_matmul_precision", "highest")  # run what is bounded
    try:
        data = load(args.data, args.data_dir)
    except DataError as error:
        print(f"verify_digits.py: error: {error}", file=sys.stderr)
        return 2
    params = trained(data, args)
    images, labels = data.test_images[: args.examples], data.test_labels[: args.examples]
    correct = np.asarray((margins(params, images, labels) > 0).all(axis=-1))
    checks = {"PGD attack": functools.partial(survives, margins, key=jax.random.key(args.seed))}
    checks |= {name: functools.partial(verified, method) for name, method in METHODS.items()}
    attacked, *methods = [
        examine(name, check, params, images, labels, args.eps) for name, check in checks.items()
    ]
    refuted = ~np.logical_and.accumulate(correct & attacked.robust)
    proved = functools.reduce(np.logical_or, (column.robust for column in methods))
    searched, verdicts = decide(params, images, labels, args.eps, proved, refuted, args.time_limit)
    surviving = np.logical_and.accumulate(~refuted)
    columns = [attacked._replace(robust=surviving), *methods, searched]
    if any((column.robust & refuted).any() for column in columns[1:]):
        print("error: an image was both verified and attacked", file=sys.stderr)
        return 1

    print(f"{len(images)} test images: how many withstand the attack or are verified, run time\n")
    print(table(args.eps, correct.mean(), columns))
    counts = ", ".join(f"{count} {status}" for status, count in sorted(verdicts.items()))
    print(f"\n{NAME} was asked {sum(verdicts.values())} times: {counts or 'nothing was open'}")
    curves = {column.name: column.robust.mean(axis=1) for column in columns}
    title = f"{args.data}: what survives an attack, and what is proved ({len(images)} images)"
    try:
        plot_accuracy(args.output, title, args.eps, correct.mean(), curves)
    except OSError as error:
        print(f"verify_digits.py: error: cannot save the plot: {error}", file=sys.stderr)
        return 2
    print(f"plot: {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
