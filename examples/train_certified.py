"""Trains a network whose robustness is proved, and certifies it.

Every pixel may change by up to eps within [0, 1]. A run writes a checkpoint, a row of figures and
a line for TensorBoard after every epoch, and a plot at the end, into a folder of its own.

    python examples/train_certified.py
    python examples/train_certified.py --data mnist --data-dir ~/data/mnist --eps 0.3
    python examples/train_certified.py --resume runs/mnist
    python examples/train_certified.py --certify runs/mnist
"""

import argparse
import dataclasses
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from certification import METHODS, certify, over_radii, table, write
from checkpoints import CheckpointError, Checkpoints
from data import DataError, Dataset, load
from logbook import Logbook, read
from plotting import plot_training
from settings import SettingError, Settings, from_given, from_stored, names, stored
from tqdm import tqdm
from training import (
    State,
    Sums,
    Trainer,
    batches,
    initial,
    make_check,
    make_statistics,
    make_step,
    network,
    nothing,
    trainer,
)

EVERY = 10  # steps between two looks at the loss
RADII = 9  # of the plot, from 0 to a third beyond eps


class DivergedError(Exception):
    """The loss is no number any more."""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line; wrong use ends the program with exit code 2."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], argument_default=argparse.SUPPRESS
    )
    add = parser.add_argument
    choices = names()
    add("--data", choices=choices["data"], help="default: digits")
    add("--data-dir", metavar="DIR", help="folder with the files of MNIST or CIFAR-10")
    add("--model", choices=choices["model"], help="default: cnn_small, cnn_7layer_bn for CIFAR-10")
    add("--method", choices=choices["method"], help="default: ibp")
    add("--eps", type=float, metavar="E", help="radius to be certified, of pixels in [0, 1]")
    add("--train-eps", type=float, metavar="E", help="radius of training, default: eps")
    add("--epochs", type=int, metavar="N")
    add("--warmup", type=int, metavar="N", help="epochs with eps 0")
    add("--ramp", type=int, metavar="N", help="epochs after these, in which eps rises")
    add("--batch", type=int, metavar="N", help="images of a step")
    add("--accumulate", type=int, metavar="N", help="steps of an update, default: 1")
    add("--rate", type=float, metavar="R", help="Adam's learning rate")
    add("--kappa", type=float, nargs=2, metavar="K", help="share of the clean loss, first and last")
    add("--alpha", type=float, metavar="A", help="share of sabr, mtl-ibp, exp-ibp and cc-ibp")
    add("--regularise", type=float, metavar="R", help="weight of the regularisers")
    add("--check", type=int, metavar="N", help="test images to check after every epoch")
    add("--seed", type=int, metavar="N", help="default: 0")
    add("--out", type=Path, metavar="DIR", help="folder of the run, default: runs/<data>")
    add("--resume", type=Path, metavar="DIR", help="continue the run in this folder")
    add("--certify", type=Path, metavar="DIR", help="certify a run, or one of its checkpoints")
    add("--images", type=int, metavar="N", help="test images to certify, default: all")
    add("--methods", nargs="+", choices=METHODS, metavar="M", help=f"of {', '.join(METHODS)}")
    args = parser.parse_args(argv)
    if "kappa" in args:
        args.kappa = tuple(args.kappa)
    modes = [name for name in ("out", "resume", "certify") if name in args]
    if len(modes) > 1:
        parser.error(f"--{modes[0]} and --{modes[1]} are different things to do")
    if "certify" not in args and ("images" in args or "methods" in args):
        parser.error("--images and --methods belong to --certify")
    if "images" in args and args.images < 1:
        parser.error("--images: at least 1 is needed")
    return args


def given(args: argparse.Namespace) -> dict[str, Any]:
    """The settings among the arguments."""
    fields = {field.name for field in dataclasses.fields(Settings)}
    return {name: value for name, value in vars(args).items() if name in fields}


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, continues or certifies; returns the exit code."""
    args = parse(argv)
    jax.config.update("jax_default_matmul_precision", "highest")  # run what is bounded
    try:
        if "certify" in args:
            run_certify(args)
        else:
            run_training(args)
    except (DataError, SettingError, CheckpointError) as error:
        print(f"train_certified.py: error: {error}", file=sys.stderr)
        return 2
    except DivergedError as error:
        print(f"train_certified.py: error: {error}", file=sys.stderr)
        return 1
    return 0


def run_training(args: argparse.Namespace) -> None:
    """A new run, or the rest of one."""
    if "resume" in args:
        checkpoints = Checkpoints(args.resume)
        settings = from_stored(checkpoints.settings(), given(args), checkpoints.run)
    else:
        settings = from_given({"data": "digits"} | given(args))
        checkpoints = Checkpoints(getattr(args, "out", Path("runs") / settings.data))
        if checkpoints.latest() is not None:
            raise SettingError(
                f"{checkpoints.run} has a run: go on with --resume, or choose another --out"
            )
    data = load(settings.data, settings.data_dir)
    run = trainer(settings, len(data.train_images))
    state = jax.device_put(initial(run, data.train_images[0]), run.copies)
    if "resume" in args:
        state = checkpoints.restore(state)
    else:
        checkpoints.run.mkdir(parents=True, exist_ok=True)
        checkpoints.save(0, state, stored(settings))
    logbook = Logbook(checkpoints.run, int(state.epoch))
    print(f"{settings.method} on {settings.data}, eps {settings.eps:g}, {run.mesh.size} devices")
    try:
        state = all_epochs(run, state, data, checkpoints, logbook)
    finally:
        logbook.close()
        checkpoints.close()
    finish(run, state, data, checkpoints.run)


def all_epochs(
    run: Trainer, state: State, data: Dataset, checkpoints: Checkpoints, logbook: Logbook
) -> State:
    """What is left of the epochs; after each a check, a row of figures and a checkpoint."""
    settings = run.settings
    step, statistics, check = make_step(run), make_statistics(run), make_check(run)
    total = settings.epochs
    with tqdm(total=total, initial=int(state.epoch), unit="epoch", disable=None) as bar:
        for epoch in range(int(state.epoch) + 1, total + 1):
            start = time.perf_counter()
            state, sums = one_epoch(run, step, state, data)
            state = statistics(state, data.train_images)
            state = jax.device_put(state._replace(epoch=state.epoch + 1), run.copies)
            seconds = time.perf_counter() - start
            errors = check(state, data, settings.eps).errors()
            row = {**figures(run, state, sums), **errors, "seconds": seconds}
            logbook.write(row)
            checkpoints.save(epoch, state, stored(settings))
            text = ", ".join(f"{name.removesuffix('_error')} {x:.2%}" for name, x in errors.items())
            bar.set_postfix_str(text)
            bar.update()
            bar.write(f"epoch {epoch}: at eps {row['eps']:.4f}, {seconds:.1f} s; {text}")
    return state


def one_epoch(run: Trainer, step: Any, state: State, data: Dataset) -> tuple[State, Sums]:
    """All steps of an epoch.

    Raises:
      DivergedError: where the loss or a parameter is no number any more.
    """
    epoch, sums = int(state.epoch), nothing(run)

    def stop(what: str) -> DivergedError:
        eps = float(run.schedules.eps(state.step))
        return DivergedError(
            f"{what} in epoch {epoch + 1}, at eps {eps:.4g}: the training diverged. The checkpoint "
            f"after epoch {epoch} is kept. A smaller --rate, or more epochs of --ramp, may help"
        )

    with tqdm(total=run.steps, desc=f"epoch {epoch + 1}", leave=False, disable=None) as bar:
        for batch in batches(run, state, data.train_images, data.train_labels):
            state, sums = step(state, sums, *batch)
            bar.update()
            if bar.n % EVERY == 0 or bar.n == run.steps:
                show(bar, sums)
                if not math.isfinite(float(sums.loss)):
                    raise stop(f"the loss is {float(sums.loss)}")
    if not all(np.isfinite(x).all() for x in jax.tree.leaves(state.params)):
        raise stop("a parameter is no number")
    return state, sums


def show(bar: tqdm, sums: Sums) -> None:
    """The errors on what was trained with in this epoch."""
    count = float(sums.images)
    text = f"loss {float(sums.loss) / count:.4f}, clean {float(sums.wrong) / count:.2%}"
    unproved = float(sums.unproved) / count
    bar.set_postfix_str(text if math.isnan(unproved) else f"{text}, verified {unproved:.2%}")


def figures(run: Trainer, state: State, sums: Sums) -> dict[str, float]:
    """What is written of an epoch's training."""
    last = state.step - 1
    count = float(sums.images)
    return {
        "epoch": int(state.epoch),
        "eps": float(run.schedules.eps(last)),
        "rate": float(run.schedules.rate(last)),
        "loss": float(sums.loss) / count,
        "train_clean_error": float(sums.wrong) / count,
        "train_verified_error": float(sums.unproved) / count,
    }


def finish(run: Trainer, state: State, data: Dataset, folder: Path) -> None:
    """The errors over epochs and over radii, as a plot; and the last ones in words."""
    settings = run.settings
    fn = network(run.model, state.batch_stats)
    part = data.test_images[: settings.check], data.test_labels[: settings.check]
    radii = np.linspace(0, min(4 / 3 * settings.eps, 1), RADII)
    curves = over_radii(fn, state.params, *part, radii, jax.random.key(settings.seed))
    rows = read(folder)
    title = f"{settings.data}, {settings.method}: errors on {len(part[0])} test images"
    plot_training(folder / "curves.png", title, rows, curves.eps, curves.errors, settings.eps)
    last = rows[-1]
    print(
        f"{len(part[0])} test images at eps {settings.eps:g}: "
        f"clean error {last['clean_error']:.2%}, PGD error {last['pgd_error']:.2%}, "
        f"verified error {last['verified_error']:.2%}\n"
        f"in {folder}: metrics.csv, curves.png, tensorboard, checkpoints"
    )


def run_certify(args: argparse.Namespace) -> None:
    """Certifies the test images by one method after the other."""
    checkpoints = Checkpoints(args.certify)
    own = given(args)
    eps = own.pop("eps", None)
    settings = from_stored(checkpoints.settings(), own, checkpoints.run)
    eps = settings.eps if eps is None else dataclasses.replace(settings, eps=eps).eps
    data = load(settings.data, settings.data_dir)
    run = trainer(settings, len(data.train_images), jax.devices()[:1])
    state = checkpoints.restore(jax.device_put(initial(run, data.train_images[0]), run.copies))
    checkpoints.close()
    images = data.test_images[: getattr(args, "images", None)]
    labels = data.test_labels[: len(images)]
    asked = getattr(args, "methods", [*METHODS])
    found = certify(
        network(run.model, state.batch_stats),
        state.params,
        images,
        labels,
        eps,
        methods=[name for name in METHODS if name in asked],
        key=jax.random.key(settings.seed),
    )
    path = checkpoints.run / f"certified_{eps:g}.csv"
    write(path, found)
    print(f"{checkpoints.run}, epoch {int(state.epoch)}, eps {eps:g}\n\n{table(found)}\n\n{path}")


if __name__ == "__main__":
    sys.exit(main())
