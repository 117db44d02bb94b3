"""Projected gradient descent (PGD): looks for an adversarial image in a box around every image."""

from collections.abc import Callable

import jax

import jaxlirpa
from jaxlirpa import train


def survives(
    margins: Callable[..., jax.Array],
    params: object,
    lower: jax.Array,
    upper: jax.Array,
    labels: jax.Array,
    *,
    key: jax.Array,
    steps: int = 40,
    restarts: int = 5,
) -> jax.Array:
    """Says which images keep their label under every attack that was tried.

    Every restart begins at a random point of the box and descends, by the sign of the gradient,
    on the smallest margin of each image; the step shrinks linearly to zero.

    Args:
      margins: takes (params, images, labels) to the margins (n, classes - 1), all positive where
        the image is classified as labelled.
      params: the parameters of the network.
      lower: the least value of every pixel, (n, height, width, channels).
      upper: the greatest, of the same shape.
      labels: the true classes, (n,).
      key: a random key for the starting points.
      steps: the number of descent steps.
      restarts: the number of starting points.

    Returns:
      Booleans (n,): False where an adversarial image was found.
    """

    def smallest(params: object, images: jax.Array, labels: jax.Array) -> jax.Array:
        return margins(params, images, labels).min(axis=-1)

    attack = train.pgd(lambda *args: -smallest(*args), steps=steps, restarts=restarts)
    found = attack(params, jaxlirpa.Box(lower, upper), labels, key=key)
    return smallest(params, found, labels) > 0
