"""What is minimised: the losses of certified training by name, all of one signature."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

import jaxlirpa
from jaxlirpa import train

ATTACK_STEPS = 8  # of PGD in training


class Problem(NamedTuple):
    """A network on a batch, and how it is weighed at this step.

    Attributes:
      fn: of (params, images) to logits, with the statistics of the clean batch.
      params: the parameters.
      images: the clean ones, (n, height, width, channels).
      box: a box around every image.
      labels: the true classes, (n,).
      beta: the share of CROWN-IBP bounds in a mixture with interval bounds.
      alpha: the share of the box (SABR), or of the certified loss (expressive losses).
      key: for the random starts of attacks.
    """

    fn: Callable[[dict, jax.Array], jax.Array]
    params: dict
    images: jax.Array
    box: jaxlirpa.Box
    labels: jax.Array
    beta: jax.Array
    alpha: float
    key: jax.Array


class Outcome(NamedTuple):
    """The loss of every image (n,); what was proved, (n,); and the boxes that regularisers read.

    An image whose worst loss is below log 2 is verified: the label has more than half of the
    probability then. So what is counted by a loss is no more than what its bounds verify. None
    where the loss is no certificate, or has no boxes.
    """

    losses: jax.Array
    proved: jax.Array | None = None
    boxes: train.Boxes | None = None


def natural(problem: Problem) -> Outcome:
    """The images themselves."""
    return Outcome(train.natural(problem.fn)(problem.params, problem.images, problem.labels))


def adversarial(problem: Problem) -> Outcome:
    """Adversarial training (Madry et al. 2018)."""
    return Outcome(train.natural(problem.fn)(problem.params, _attack(problem), problem.labels))


def ibp(problem: Problem) -> Outcome:
    """Interval bounds (Gowal et al. 2018)."""
    loss = train.certified(problem.fn, with_boxes=True)
    return _certificate(*loss(problem.params, problem.box, problem.labels))


def crown_ibp(problem: Problem) -> Outcome:
    """CROWN-IBP (Zhang et al. 2020): one row a class."""
    loss = train.crown_ibp(problem.fn, with_boxes=True)
    return _certificate(*loss(problem.params, problem.box, problem.labels, beta=problem.beta))


def fused(problem: Problem) -> Outcome:
    """CROWN-IBP with loss fusion (Xu et al. 2020): one row."""
    loss = train.fused(problem.fn, with_boxes=True)
    return _certificate(*loss(problem.params, problem.box, problem.labels, beta=problem.beta))


def sabr(problem: Problem) -> Outcome:
    """Interval bounds of a small box around an adversarial example (Müller et al. 2023)."""
    small = train.small_box(problem.box, _attack(problem), problem.alpha)
    loss = train.certified(problem.fn, with_boxes=True)
    losses, boxes = loss(problem.params, small, problem.labels)
    return Outcome(losses, boxes=boxes)


def expressive(mixed: Callable[..., jax.Array], problem: Problem) -> Outcome:
    """A mixture of the adversarial loss and that of interval bounds (De Palma et al. 2024)."""
    found = ibp(problem)
    return found._replace(losses=mixed(found.losses, adversarial(problem).losses, problem.alpha))


def cc_ibp(problem: Problem) -> Outcome:
    """CC-IBP (De Palma et al. 2024): the mixture is of margins."""
    margins = train.margins(problem.fn)
    upper = jaxlirpa.ibp(margins)(problem.params, problem.box, problem.labels).upper
    attacked = margins(problem.params, _attack(problem), problem.labels)
    proved = train.cross_entropy(upper) < math.log(2)
    return Outcome(train.cc_ibp(upper, attacked, problem.alpha), proved)


def _certificate(losses: jax.Array, boxes: train.Boxes) -> Outcome:
    """Of losses that no image in its box exceeds."""
    return Outcome(losses, losses < math.log(2), boxes)


def _attack(problem: Problem) -> jax.Array:
    """An adversarial example in every box."""
    attack = train.pgd(train.natural(problem.fn), steps=ATTACK_STEPS)
    return attack(problem.params, problem.box, problem.labels, key=problem.key)


METHODS: dict[str, Callable[[Problem], Outcome]] = {
    "natural": natural,
    "pgd": adversarial,
    "ibp": ibp,
    "crown-ibp": crown_ibp,
    "fused": fused,
    "sabr": sabr,
    "mtl-ibp": functools.partial(expressive, train.mtl_ibp),
    "exp-ibp": functools.partial(expressive, train.exp_ibp),
    "cc-ibp": cc_ibp,
}


def augment(key: jax.Array, images: jax.Array, margin: int = 4) -> jax.Array:
    """Each image moved by up to `margin` pixels, and flipped or not (He et al. 2016).

    Args:
      key: of the random numbers.
      images: (n, height, width, channels).
      margin: what is moved in is black.
    """
    count, height, width, channels = images.shape
    moves, flips = jax.random.split(key)
    padded = jnp.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
    corners = jax.random.randint(moves, (count, 2), 0, 2 * margin + 1)

    def crop(image: jax.Array, corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (*corner, 0), (height, width, channels))

    cropped = jax.vmap(crop)(padded, corners)
    flipped = jax.random.bernoulli(flips, 0.5, (count, 1, 1, 1))
    return jnp.where(flipped, cropped[:, :, ::-1], cropped)
