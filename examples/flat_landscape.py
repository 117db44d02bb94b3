"""Trains networks that are provably flat around their weights, and quantises them.

A multilayer perceptron is trained twice from each of several seeds: on the loss, and on an upper
bound of the loss over all weights within eps (2-norm, of every matrix) of the network's own
(Xu et al. 2020). Both then are certified, attacked by weights that gradients find,
tested, and tested again with their weights rounded to a few bits.

    python examples/flat_landscape.py
    python examples/flat_landscape.py --data mnist --data-dir ~/data/mnist
"""

import argparse
import itertools
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from data import CLASSES, DataError, Dataset, load
from landscape_plots import plot_bands, plot_bits, plot_slices
from options import add_data, data_objection, positive, radius

from jaxlirpa import landscape

HIDDEN = 64, 64
BITS = 8, 6, 5, 4, 3, 2
CHANNELS = {"tensor": None, "channel": -1}
SHARES = {"all": 1.0, "10 %": 0.1}  # of the training images
OBJECTIVES = "plain", "flat"
BATCH = 128
MOST = 1000  # test images whose loss is bounded
FEW = 50  # test images whose loss is drawn on a plane
NONE = 17  # bits, where not even 16 are certified
MARGIN = 0.1  # by which the loss may grow within the certified radius


class Setting(NamedTuple):
    """What suits a data set."""

    steps: int
    quick_steps: int


SETTINGS = {"digits": Setting(2000, 200), "mnist": Setting(5000, 200)}


class Measured(NamedTuple):
    """What is known of the networks of one objective; one entry a seed, in front.

    `quantised` has the accuracies with rounded weights by `CHANNELS` and `BITS`, `bits` the numbers
    of bits that are certified to change no prediction, one of every image that was looked at.
    """

    accuracy: np.ndarray
    loss: np.ndarray
    attained: np.ndarray
    certified: np.ndarray
    flat_radius: np.ndarray
    quantised: np.ndarray
    bits: np.ndarray


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line; wrong use ends the program with exit code 2."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add_data(parser, tuple(SETTINGS))
    add("--eps", type=radius, default=0.1, metavar="E", help="radius to train for, default: 0.1")
    add("--steps", type=positive, metavar="N", help="of training, default: 2000; 5000 for MNIST")
    add("--seeds", type=positive, metavar="N", help="networks of every kind, default: 3")
    add("--examples", type=positive, metavar="N", help="test images to certify bits for")
    add("--output", type=Path, metavar="DIR", help="of the plots, default: flat_landscape_<data>")
    add(
        "--quick",
        action="store_true",
        help="little training, two seeds, few images, no 10 %% setting",
    )
    args = parser.parse_args(argv)
    if objection := data_objection(args.data, args.data_dir):
        parser.error(objection)
    setting = SETTINGS[args.data]
    args.steps = args.steps or (setting.quick_steps if args.quick else setting.steps)
    args.seeds = args.seeds or (2 if args.quick else 3)
    args.examples = args.examples or (4 if args.quick else 50)
    args.output = args.output or Path(f"flat_landscape_{args.data}")
    return args


def network(params: Sequence[dict], x: jax.Array) -> jax.Array:
    """Images (n, pixels) to logits (n, 10)."""
    *hidden, last = params
    for layer in hidden:
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    return x @ last["kernel"] + last["bias"]


def loss(params: Sequence[dict], x: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean cross entropy of a batch."""
    logits = network(params, x)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


def initial(key: jax.Array, pixels: int) -> list[dict]:
    """Random weights, scaled as He et al. (2015) do."""
    sizes = pixels, *HIDDEN, CLASSES
    pairs = list(itertools.pairwise(sizes))
    keys = jax.random.split(key, len(pairs))
    return [
        {"kernel": jax.random.normal(k, pair) * (2 / pair[0]) ** 0.5, "bias": jnp.zeros(pair[1])}
        for k, pair in zip(keys, pairs, strict=True)
    ]


def train(
    key: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    count: jax.Array,
    *,
    eps: float,
    steps: int,
) -> list[dict]:
    """Trains a network by Adam; with eps > 0, on the worst loss within a growing radius.

    Args:
      key: of the random numbers.
      images: (n, pixels).
      labels: (n,).
      count: how many of them to use, the first ones.
      eps: the radius at the end; it grows from zero during the first half.
      steps: of the optimiser, on batches drawn at random.
    """
    optimiser = optax.adam(optax.cosine_decay_schedule(2e-3, steps))
    grown = optax.linear_schedule(0.0, eps, steps // 2)
    worst = landscape.flat_loss(loss)
    start, order = jax.random.split(key)
    params = initial(start, images.shape[1])

    def objective(params: list[dict], t: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
        return worst(params, grown(t), x, y) if eps else loss(params, x, y)

    def step(carry: Any, t: jax.Array) -> tuple[Any, None]:
        params, state = carry
        chosen = jax.random.randint(jax.random.fold_in(order, t), (BATCH,), 0, count)
        gradient = jax.grad(objective)(params, t, images[chosen], labels[chosen])
        updates, state = optimiser.update(gradient, state)
        return (optax.apply_updates(params, updates), state), None

    carry = params, optimiser.init(params)
    (params, _), _ = jax.lax.scan(step, carry, jnp.arange(steps))
    return params


def accuracy(params: list[dict], x: jax.Array, labels: jax.Array) -> jax.Array:
    """The share of images that are classified as labelled."""
    return jnp.mean(jnp.argmax(network(params, x), -1) == labels)


def measure(
    params: list[dict], x: jax.Array, labels: jax.Array, *, eps: float, examples: int
) -> Measured:
    """All that is known of one network, on test images."""
    few, own = x[:MOST], labels[:MOST]
    ball = landscape.every_matrix(params, eps)
    rounded = [
        [accuracy(landscape.quantise(params, bits, axis), x, labels) for bits in BITS]
        for axis in CHANNELS.values()
    ]
    return Measured(
        accuracy=accuracy(params, x, labels),
        loss=loss(params, few, own),
        attained=landscape.attained(loss, key=jax.random.key(0))(ball, few, own).upper,
        certified=landscape.flat_loss(loss)(params, eps, few, own),
        flat_radius=landscape.flat_radius(loss, MARGIN, most=10 * eps, steps=12)(params, few, own),
        quantised=jnp.array(rounded),
        bits=landscape.certified_bits(network, range(2, NONE))(params, x[:examples]),
    )


def spread(values: np.ndarray, form: str) -> str:
    """The mean over seeds, and the standard deviation."""
    return f"{values.mean():{form}} ± {values.std(ddof=min(1, len(values) - 1)):{form}}"


def table(found: dict[str, Measured]) -> str:
    """What the two objectives lead to, and the difference seed by seed, with its spread."""
    rows = {
        "test accuracy, %": (lambda m: 100 * m.accuracy, ".1f"),
        "loss": (lambda m: m.loss, ".3f"),
        "worst loss found": (lambda m: m.attained, ".3f"),
        "worst loss certified": (lambda m: m.certified, ".3f"),
        f"radius with loss + {MARGIN:g}": (lambda m: m.flat_radius, ".4f"),
        f"certified bits ({NONE}: none)": (lambda m: np.minimum(m.bits, NONE).mean(1), ".1f"),
    }
    for i, kind in enumerate(CHANNELS):
        for j, bits in enumerate(BITS):
            part = partial(lambda m, i, j: 100 * m.quantised[:, i, j], i=i, j=j)
            rows[f"{bits} bits a {kind}, %"] = part, ".1f"
    plain, flat = (found[name] for name in OBJECTIVES)
    lines = [f"{'':26}{'plain':>18}{'certified flat':>18}{'flat - plain':>18}"]
    for name, (part, form) in rows.items():
        values = part(plain), part(flat), part(flat) - part(plain)
        lines.append(f"{name:26}" + "".join(f"{spread(v, form):>18}" for v in values))
    return "\n".join(lines)


def examine(data: Dataset, args: argparse.Namespace) -> None:
    """Trains and measures all networks, prints the tables and saves the plots."""
    images, test = (x.reshape(len(x), -1) for x in (data.train_images, data.test_images))
    keys = jax.random.split(jax.random.key(0), args.seeds)
    sizes = images.shape[1], *HIDDEN, CLASSES
    print(f"{args.data}: {'-'.join(map(str, sizes))}, {args.seeds} seeds, eps {args.eps:g}")
    measured = jax.jit(
        jax.vmap(partial(measure, eps=args.eps, examples=args.examples), (0, None, None))
    )
    trained = {
        name: jax.jit(jax.vmap(partial(train, eps=eps, steps=args.steps), (0, None, None, None)))
        for name, eps in zip(OBJECTIVES, (0.0, args.eps), strict=True)
    }
    for share, part in [*SHARES.items()][: 1 if args.quick else None]:
        count, found, networks = round(part * len(images)), {}, {}
        for name in OBJECTIVES:
            start = time.perf_counter()
            params = trained[name](keys, images, data.train_labels, count)
            networks[name] = jax.block_until_ready(params)
            seconds = time.perf_counter() - start
            print(f"{name}, {count} images: {args.steps} steps of training in {seconds:.1f} s")
            found[name] = Measured(*map(np.asarray, measured(params, test, data.test_labels)))
        print(f"\n{share} of the training images: mean ± standard deviation over seeds\n")
        print(table(found) + "\n")
        draw(args, share, networks, found, test[:MOST], data.test_labels[:MOST])


def draw(
    args: argparse.Namespace,
    share: str,
    networks: dict[str, list[dict]],
    found: dict[str, Measured],
    x: jax.Array,
    labels: jax.Array,
) -> None:
    """Saves the plots: the bands and slices of the first seed, and the accuracies of all."""
    end = f"{args.data}_{share.split()[0]}.png"
    first = {name: jax.tree.map(lambda w: w[0], params) for name, params in networks.items()}
    title = f"{args.data}, {share} of the training images"
    plot_bands(args.output / f"bands_{end}", title, loss, first, (x, labels), 2 * args.eps)
    few = x[:FEW], labels[:FEW]
    plot_slices(args.output / f"slices_{end}", title, loss, first, few, 20 * args.eps)
    quantised = {name: m.quantised for name, m in found.items()}
    whole = {name: m.accuracy for name, m in found.items()}
    plot_bits(args.output / f"bits_{end}", title, BITS, list(CHANNELS), quantised, whole)
    print(f"plots: {args.output}/*_{end}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    args = parse(argv)
    jax.config.update("jax_default_matmul_precision", "highest")  # run what is bounded
    try:
        data = load(args.data, args.data_dir)
        args.output.mkdir(parents=True, exist_ok=True)
    except (DataError, OSError) as error:
        print(f"flat_landscape.py: error: {error}", file=sys.stderr)
        return 2
    examine(data, args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
