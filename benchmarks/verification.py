"""Complete verification of published networks: ``python -m benchmarks.verification``.

The images of published tables, one after the other: how many are proved, refuted and undecided in
so many seconds each, beside what others report. The folder has the networks as arrays in PyTorch's
layout (``NAME.npz``), ``index.json`` with their preprocessing, and ``verification_images.npz``.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlirpa import Box, verify

# Verified images of the same 200, per cent: beta-CROWN and BICCOS, 200 s an image on an H100
# (Zhou et al., "Scalable Neural Network Verification with Branch-and-bound Inferred Cutting
# Planes", NeurIPS 2024).
PUBLISHED = {
    "cifar_cnn_a_mix": (42.5, 48.5),
    "cifar_cnn_a_adv": (45.5, 49.0),
    "mnist_cnn_a_adv": (71.0, 76.5),
}
EPS = {"cifar_cnn_a_mix": 2 / 255, "cifar_cnn_a_adv": 2 / 255, "mnist_cnn_a_adv": 0.3}


class Task(NamedTuple):
    """A network and its images.

    Attributes:
        params: arrays by name.
        images: `[n, channels, height, width]` in [0, 1].
        labels: the true classes.
        mean, std: of each channel.
    """

    params: dict[str, jax.Array]
    images: np.ndarray
    labels: np.ndarray
    mean: np.ndarray
    std: np.ndarray


def load(folder: Path, name: str) -> Task:
    """Reads a network and the images of its table."""
    about = {own["name"]: own for own in json.loads((folder / "index.json").read_text())}[name]
    with np.load(folder / f"{name}.npz") as file:
        params = {key: jnp.asarray(file[key], jnp.float32) for key in file.files}
    kind = "mnist" if "mnist" in name else "cifar"
    with np.load(folder / "verification_images.npz") as file:
        images = file[f"sdp_{kind}_images"].astype(np.float32).transpose(0, 3, 1, 2) / 255
        labels = file[f"sdp_{kind}_labels"].astype(int)
    mean, std = (np.asarray(about[key], np.float32)[:, None, None] for key in ("mean", "std"))
    return Task(params, images, labels, mean, std)


def _convolution(x: jax.Array, weight: jax.Array, bias: jax.Array) -> jax.Array:
    layout = ("NCHW", "OIHW", "NCHW")
    y = jax.lax.conv_general_dilated(
        x[None], weight, (2, 2), [(1, 1)] * 2, dimension_numbers=layout
    )
    return y[0] + bias[:, None, None]


def margins_of(task: Task) -> Callable[..., jax.Array]:
    """The margins of the task's network, as a function of (params, specification, image)."""

    def margins(params: dict[str, jax.Array], specification: jax.Array, x: jax.Array) -> jax.Array:
        x = (x - task.mean) / task.std
        for i in (0, 2):
            x = jax.nn.relu(_convolution(x, params[f"{i}.weight"], params[f"{i}.bias"]))
        x = jax.nn.relu(params["5.weight"] @ x.reshape(-1) + params["5.bias"])
        return specification @ (params["7.weight"] @ x + params["7.bias"])

    return margins


def specification(label: int) -> jax.Array:
    """The differences of the label's logit and all others, `[9, 10]`."""
    rows = np.eye(10)
    return jnp.asarray(np.delete(rows[label] - rows, label, 0), jnp.float32)


def measured(task: Task, eps: float, count: int, seconds: float) -> list[dict[str, Any]]:
    """The verdict on each image that is classified as labelled."""
    margins = margins_of(task)
    run = verify.verify(margins, time_limit=seconds)
    clean = jax.jit(margins)
    rows = []
    for i in range(min(count, len(task.images))):
        x, label = task.images[i], specification(int(task.labels[i]))
        if np.min(clean(task.params, label, x)) <= 0:
            rows.append({"image": i, "status": "misclassified"})
            continue
        start = time.perf_counter()
        box = Box(np.maximum(x - eps, 0), np.minimum(x + eps, 1))
        found = run(task.params, label, box)
        row = {"image": i, "status": found.status, "lower": found.lower}
        row |= {"seconds": time.perf_counter() - start}
        row |= {"subproblems": found.statistics.subproblems, "neurons": found.statistics.neurons}
        rows.append(row)
        print(i, found, flush=True)
    return rows


def line(name: str, rows: Sequence[dict[str, Any]]) -> str:
    """A line of the table in docs/verification.md."""
    counts = [
        sum(row["status"] == status for row in rows)
        for status in ("misclassified", "refuted", "proved", "undecided")
    ]
    proved = [row for row in rows if row["status"] == "proved"]
    seconds = np.mean([row["seconds"] for row in proved]) if proved else np.nan
    beta, best = PUBLISHED[name]
    cells = [name, len(rows), *counts, f"{100 * counts[2] / len(rows):.1f}", f"{seconds:.1f}"]
    return "| " + " | ".join(map(str, [*cells, beta, best])) + " |"


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints every verdict and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--networks", type=Path, required=True, metavar="DIR", help="the folder of networks")
    add("--only", nargs="+", choices=sorted(PUBLISHED), default=sorted(PUBLISHED))
    add("--images", type=int, default=200, metavar="N", help="of 200")
    add("--seconds", type=float, default=20.0, metavar="S", help="an image")
    add("--json", type=Path, metavar="FILE", help="where to write every verdict")
    args = parser.parse_args(argv)
    found = {}
    for name in args.only:
        task = load(args.networks, name)
        found[name] = measured(task, EPS[name], args.images, args.seconds)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    print(
        "| network | images | wrong | refuted | proved | undecided | % | s | beta-CROWN | BICCOS |"
    )
    print("| --- |" + " ---: |" * 9)
    for name, rows in found.items():
        print(line(name, rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
