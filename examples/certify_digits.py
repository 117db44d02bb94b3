"""Trains a small network on handwritten digits and certifies how robust it is.

Every pixel of an image may change by up to eps within [0, 1]. An image counts as verified where
the lower bounds on all margins are positive: then no such change alters its class. The attack
(PGD) limits from above what any method could verify.

    python examples/certify_digits.py
    python examples/certify_digits.py --data mnist --data-dir ~/data/mnist
"""

import argparse
import functools
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from attack import survives
from data import DataError, Dataset, load
from network import margins, train
from options import add_data, data_objection, picture_objection, positive, seed
from options import radius as finite_radius
from plotting import plot_accuracy
from tqdm import tqdm

import jaxlirpa

METHODS = {"IBP": jaxlirpa.ibp, "CROWN-IBP": jaxlirpa.crown_ibp, "CROWN": jaxlirpa.crown}
BATCH = 50  # images that are attacked or bounded at once


class Setting(NamedTuple):
    """What suits a data set: the training, and radii at which the methods differ."""

    training_eps: float
    batch: int
    epochs: int
    quick_epochs: int
    examples: int
    eps: tuple[float, ...]


SETTINGS = {
    "digits": Setting(0.03, 64, 40, 10, 200, (0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.14)),
    "mnist": Setting(0.007, 128, 3, 1, 100, (0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08)),
}


class Column(NamedTuple):
    """What one check (the attack or a method) found on n images at each of the radii."""

    name: str
    robust: np.ndarray  # (radii, n) booleans
    seconds: np.ndarray  # (radii,), without compilation
    compilation: float  # seconds, once for all radii


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line; wrong use ends the program with exit code 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add_data(parser, tuple(SETTINGS))
    add("--epochs", type=positive, metavar="N", help="default: 40 for digits, 3 for MNIST")
    add("--eps", type=finite_radius, nargs="+", metavar="E", help="radii for pixels in [0, 1]")
    add("--examples", type=positive, metavar="N", help="test images to certify")
    add("--output", type=Path, metavar="FILE", help="the plot, default: certify_<data>.png")
    add("--seed", type=seed, default=0, metavar="N", help="default: 0")
    add("--quick", action="store_true", help="less training, fewer radii and 50 images")
    args = parser.parse_args(argv)
    args.output = args.output or Path(f"certify_{args.data}.png")
    if objection := data_objection(args.data, args.data_dir) or picture_objection(args.output):
        parser.error(objection)
    setting = SETTINGS[args.data]
    args.epochs = args.epochs or (setting.quick_epochs if args.quick else setting.epochs)
    args.eps = sorted(set(args.eps or setting.eps[:: 2 if args.quick else 1]))
    args.examples = args.examples or (50 if args.quick else setting.examples)
    return args


def trained(data: Dataset, args: argparse.Namespace) -> dict:
    """The parameters of a network after the training that suits the data."""
    setting = SETTINGS[args.data]
    return train(
        data.train_images,
        data.train_labels,
        epochs=args.epochs,
        eps=setting.training_eps,
        batch=setting.batch,
        seed=args.seed,
    )


def around(images: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest values of pixels that change by up to a radius within [0, 1]."""
    lower, upper = np.maximum(images - radius, 0), np.minimum(images + radius, 1)
    return lower.astype(np.float32), upper.astype(np.float32)


def verified(
    method: Callable, params: dict, lower: jax.Array, upper: jax.Array, labels: jax.Array
) -> jax.Array:
    """Booleans (n,): whether all margins are proved positive in the box of each image."""
    bound = method(margins, in_axes=(None, 0, 0))
    least, _ = bound(params, jaxlirpa.Box(lower, upper), labels)
    return (least > 0).all(axis=-1)


def examine(
    name: str,
    check: Callable,
    params: dict,
    images: np.ndarray,
    labels: np.ndarray,
    eps: Sequence[float],
) -> Column:
    """Compiles a check once and runs it on all images at all radii, in batches of equal size.

    Args:
      name: what the table calls it.
      check: takes (params, lower, upper, labels) to booleans (batch,).
      params: the parameters of the network.
      images: (n, height, width, 1) in [0, 1].
      labels: the true classes, (n,).
      eps: the radii.
    """
    count = len(images)
    order = np.resize(np.arange(count), (math.ceil(count / BATCH), BATCH))  # fills up cyclically
    start = time.perf_counter()
    compiled = jax.jit(check).lower(params, images[order[0]], images[order[0]], labels[order[0]])
    compiled = compiled.compile()
    compilation = time.perf_counter() - start
    robust, seconds = [], []
    for radius in eps:
        start = time.perf_counter()
        found = []
        for chosen in tqdm(order, f"{name}, eps {radius:g}", leave=False, disable=None):
            lower, upper = around(images[chosen], radius)
            found.append(np.asarray(compiled(params, lower, upper, labels[chosen])))
        robust.append(np.concatenate(found)[:count])
        seconds.append(time.perf_counter() - start)
    return Column(name, np.array(robust), np.array(seconds), compilation)


def table(eps: Sequence[float], clean: float, columns: Sequence[Column]) -> str:
    """Robust accuracy and run time of every check, one row per radius."""
    lines = ["    eps    clean" + "".join(f"{column.name:>19}" for column in columns)]
    for i, value in enumerate(eps):
        cells = (f"{c.robust[i].mean():11.1%}{c.seconds[i]:6.2f} s" for c in columns)
        lines.append(f"{value:7g}{clean:9.1%}" + "".join(cells))
    cells = (f"{column.compilation:17.2f} s" for column in columns)
    return "\n".join([*lines, f"{'compilation':16}" + "".join(cells)])


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, attacks, certifies, prints the table and saves the plot; returns the exit code."""
    args = parse(argv)
    jax.config.update("jax_default_matmul_precision", "highest")  # run what is bounded
    try:
        data = load(args.data, args.data_dir)
    except DataError as error:
        print(f"certify_digits.py: error: {error}", file=sys.stderr)
        return 2
    start = time.perf_counter()
    params = trained(data, args)
    print(f"{args.data}: {args.epochs} epochs of training in {time.perf_counter() - start:.1f} s")

    right = (margins(params, data.test_images, data.test_labels) > 0).all(axis=-1)
    print(f"{right.mean():.1%} of all {len(right)} test images are classified as labelled")
    images, labels = data.test_images[: args.examples], data.test_labels[: args.examples]
    correct = np.asarray(right[: args.examples])
    checks = {"PGD attack": functools.partial(survives, margins, key=jax.random.key(args.seed))}
    checks |= {name: functools.partial(verified, method) for name, method in METHODS.items()}
    columns = [
        examine(name, check, params, images, labels, args.eps) for name, check in checks.items()
    ]
    attacked, *methods = columns
    # What fools the network in a small box is also in every larger one.
    surviving = np.logical_and.accumulate(correct & attacked.robust)
    columns[0] = attacked._replace(robust=surviving)
    for column in methods:
        if (column.robust & ~surviving).any():
            print(f"error: {column.name} verified an image that was attacked", file=sys.stderr)
            return 1

    print(f"{len(images)} test images: how many withstand the attack or are verified, run time\n")
    print(table(args.eps, correct.mean(), columns))
    curves = {column.name: column.robust.mean(axis=1) for column in columns}
    title = f"{args.data}: what survives an attack, and what is proved ({len(images)} images)"
    try:
        plot_accuracy(args.output, title, args.eps, correct.mean(), curves)
    except OSError as error:
        print(f"certify_digits.py: error: cannot save the plot: {error}", file=sys.stderr)
        return 2
    print(f"\nplot: {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
