"""Certifies images one method after the other, each on what those before it left open."""

import csv
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm
from training import Network, ahead, in_batches, worst

import jaxlirpa
from jaxlirpa import train

WRONG, ATTACKED, VERIFIED, OPEN = "wrong", "attacked", "verified", "open"
ATTACK = "PGD"
ATTACK_BATCH = 100


class Method(NamedTuple):
    """A transform, and how many images it bounds at once."""

    transform: Callable[..., Callable[..., Any]]
    batch: int


METHODS = {
    "IBP": Method(jaxlirpa.ibp, 200),
    "CROWN-IBP": Method(jaxlirpa.crown_ibp, 100),
    "CROWN": Method(jaxlirpa.crown, 10),
    "alpha-CROWN": Method(functools.partial(jaxlirpa.alpha_crown, steps=20), 10),
}


class Stage(NamedTuple):
    """What one method did: on how many images, how many of them it decided, and how long."""

    name: str
    images: int
    decided: int
    seconds: float
    compilation: float


class Certified(NamedTuple):
    """What is known of every image, and how it came about.

    Attributes:
      labels: the true classes.
      predictions: what the network says.
      verdicts: wrong (of the image itself), attacked, verified, or open.
      methods: which method decided it.
      margins: the greatest lower bound that was proved of how far the label stays ahead, positive
        where the image is verified; NaN where none was computed.
      stages: one a method.
    """

    labels: np.ndarray
    predictions: np.ndarray
    verdicts: np.ndarray
    methods: np.ndarray
    margins: np.ndarray
    stages: list[Stage]


def lower_margin(fn: Network, transform: Callable[..., Any]) -> Callable[..., jax.Array]:
    """Of (params, images, labels, eps): by how much at least the label stays ahead, (n,)."""
    bounded = transform(train.margins(fn))

    def lower(params: dict, x: jax.Array, labels: jax.Array, eps: jax.Array) -> jax.Array:
        upper = bounded(params, train.clipped_box(x, eps), labels).upper
        return -worst(upper, labels)

    return lower


def attacked_margin(fn: Network, steps: int, restarts: int) -> Callable[..., jax.Array]:
    """Of (params, images, labels, eps, key): by how much the label is ahead under attack, (n,)."""
    other = ahead(fn)
    attack = train.pgd(other, steps=steps, restarts=restarts)

    def lowest(
        params: dict, x: jax.Array, labels: jax.Array, eps: jax.Array, key: jax.Array
    ) -> jax.Array:
        found = attack(params, train.clipped_box(x, eps), labels, key=key)
        return -other(params, found, labels)

    return lowest


def certify(
    fn: Network,
    params: dict,
    images: np.ndarray,
    labels: np.ndarray,
    eps: float,
    *,
    methods: Sequence[str],
    key: jax.Array,
    attack_steps: int = 40,
    restarts: int = 3,
) -> Certified:
    """Decides as many images as the methods can.

    The first method bounds all images that are classified as labelled; then those are attacked
    that it leaves open, and the other methods follow.

    Args:
      fn: of (params, images) to logits.
      params: the parameters.
      images: (n, height, width, channels) in [0, 1].
      labels: the true classes, (n,).
      eps: the radius; boxes are cut off at 0 and 1.
      methods: names in METHODS, from the cheapest to the tightest.
      key: of the attack's random starts.
      attack_steps, restarts: of the attack.
    """
    count = len(images)
    predictions = in_batches(
        jax.jit(lambda x: fn(params, x).argmax(-1)), METHODS["IBP"].batch, images
    )
    found = Certified(
        labels=labels,
        predictions=predictions,
        verdicts=np.where(predictions == labels, OPEN, WRONG).astype(object),
        methods=np.full(count, "", object),
        margins=np.full(count, np.nan),
        stages=[],
    )
    attack = attacked_margin(fn, attack_steps, restarts)
    for k, name in enumerate(methods):
        method = METHODS[name]
        lower = lower_margin(fn, method.transform)
        margins, chosen = _run(found, name, lower, method.batch, (params,), images, (eps,))
        found.margins[chosen] = np.fmax(found.margins[chosen], margins)
        _decide(found, chosen[margins > 0], VERIFIED, name)
        if not k:
            margins, chosen = _run(
                found, ATTACK, attack, ATTACK_BATCH, (params,), images, (eps, key)
            )
            _decide(found, chosen[margins <= 0], ATTACKED, ATTACK)
    return found


def _run(
    found: Certified,
    name: str,
    fn: Callable[..., jax.Array],
    size: int,
    before: tuple,
    images: np.ndarray,
    after: tuple,
) -> tuple[np.ndarray, np.ndarray]:
    """A function on all images that are open, and their numbers; adds a stage."""
    (chosen,) = np.nonzero(found.verdicts == OPEN)
    if not len(chosen):
        found.stages.append(Stage(name, 0, 0, 0.0, 0.0))
        return np.zeros(0), chosen
    start = time.perf_counter()
    first = images[np.resize(chosen, size)], found.labels[np.resize(chosen, size)]
    compiled = jax.jit(fn).lower(*before, *first, *after).compile()
    compilation = time.perf_counter() - start
    bar = tqdm(total=len(chosen), desc=name, unit="image", leave=False, disable=None)

    def run(x: jax.Array, labels: jax.Array) -> jax.Array:
        bar.update(min(size, bar.total - bar.n))
        return compiled(*before, x, labels, *after)

    start = time.perf_counter()
    with bar:
        values = in_batches(run, size, images[chosen], found.labels[chosen])
    seconds = time.perf_counter() - start
    found.stages.append(Stage(name, len(chosen), 0, seconds, compilation))
    return values, chosen


def _decide(found: Certified, chosen: np.ndarray, verdict: str, name: str) -> None:
    """Enters a verdict of the last stage."""
    found.verdicts[chosen], found.methods[chosen] = verdict, name
    found.stages[-1] = found.stages[-1]._replace(decided=len(chosen))


def write(path: Path, found: Certified) -> None:
    """One line an image."""
    columns = found.labels, found.predictions, found.verdicts, found.methods, found.margins
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "label", "prediction", "verdict", "method", "margin"))
        for k, (*row, margin) in enumerate(zip(*columns, strict=True)):
            writer.writerow((k, *row, "" if np.isnan(margin) else f"{margin:.6g}"))


def table(found: Certified) -> str:
    """What every method decided, and the errors."""
    lines = [f"{'':12}{'images':>8}{'decided':>9}{'seconds':>10}{'compilation':>14}"]
    for stage in found.stages:
        times = f"{stage.seconds:>9.1f}s{stage.compilation:>13.1f}s"
        lines.append(f"{stage.name:12}{stage.images:>8}{stage.decided:>9}{times}")
    total = len(found.labels)
    shares = {verdict: np.sum(found.verdicts == verdict) for verdict in (WRONG, ATTACKED, OPEN)}
    wrong, attacked, unknown = np.cumsum([*shares.values()]) / total
    lines += [
        "",
        f"{total} images: clean error {wrong:.2%}, PGD error {attacked:.2%}, "
        f"verified error {unknown:.2%} ({shares[OPEN]} open)",
    ]
    return "\n".join(lines)


class Curves(NamedTuple):
    """Errors over the radius, shares of all images."""

    eps: np.ndarray
    errors: dict[str, np.ndarray]


def over_radii(
    fn: Network,
    params: dict,
    images: np.ndarray,
    labels: np.ndarray,
    radii: Sequence[float],
    key: jax.Array,
) -> Curves:
    """The errors under attack, by CROWN-IBP and by IBP, at several radii.

    Raises:
      AssertionError: where an image is verified and attacked at once, which cannot be.
    """
    size = min(ATTACK_BATCH, len(images))
    attack = jax.jit(functools.partial(attacked_margin(fn, steps=20, restarts=2), params))
    bounds = {
        name: jax.jit(functools.partial(lower_margin(fn, METHODS[name].transform), params))
        for name in ("CROWN-IBP", "IBP")
    }
    errors: dict[str, list[float]] = {name: [] for name in (ATTACK, *bounds)}
    for radius in tqdm(radii, "radii", leave=False, disable=None):
        eps = jnp.float32(radius)
        withstood = in_batches(lambda x, y, e=eps: attack(x, y, e, key), size, images, labels) > 0
        errors[ATTACK].append(1 - withstood.mean())
        for name, bound in bounds.items():
            proved = in_batches(lambda x, y, e=eps, f=bound: f(x, y, e), size, images, labels) > 0
            assert not (proved & ~withstood).any(), f"{name} verified an image that was attacked"
            errors[name].append(1 - proved.mean())
    return Curves(np.asarray(radii), {name: np.asarray(x) for name, x in errors.items()})
