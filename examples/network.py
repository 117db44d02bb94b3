"""A small convolutional network for the examples, its margins and its certified training."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from data import CLASSES
from tqdm import tqdm

import jaxlirpa


class Network(nn.Module):
    """Two convolutions and two dense layers; images (..., height, width, 1) to logits (..., 10)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The first convolution halves all but the smallest images."""
        x = nn.relu(nn.Conv(8, (3, 3), strides=2 if x.shape[-2] > 8 else 1)(x))
        x = nn.relu(nn.Conv(16, (3, 3), strides=2)(x))
        x = x.reshape(*x.shape[:-3], -1)
        x = nn.relu(nn.Dense(64)(x))
        return nn.Dense(CLASSES)(x)


def margins(params: dict, images: jax.Array, labels: jax.Array) -> jax.Array:
    """The logit of the label minus each other logit: (n, 9), positive where the label wins."""
    logits = Network().apply(params, images)
    own = labels[..., None]
    others = (own + jnp.arange(1, CLASSES)) % CLASSES
    return jnp.take_along_axis(logits, own, -1) - jnp.take_along_axis(logits, others, -1)


def cross_entropy(margins: jax.Array) -> jax.Array:
    """The mean cross-entropy of softmax, from the margins (n, 9) instead of the logits."""
    return jax.nn.logsumexp(jnp.pad(-margins, ((0, 0), (1, 0))), axis=-1).mean()


def train(
    images: np.ndarray, labels: np.ndarray, *, epochs: int, eps: float, batch: int, seed: int
) -> dict:
    """Trains with half the loss on the images and half on their worst case by interval bounds.

    Args:
      images: the training images, (n, height, width, 1) in [0, 1].
      labels: their classes, (n,).
      epochs: the number of passes over the images.
      eps: the radius of the box around every image, reached after half the training.
      batch: the number of images of one step.
      seed: fixes the initial parameters and the order of the images.

    Returns:
      The parameters of the network.
    """
    batch = min(batch, len(images))
    steps = epochs * (len(images) // batch)
    optimiser = optax.adam(optax.cosine_decay_schedule(2e-3, steps))
    radius = optax.linear_schedule(0.0, eps, steps // 2)
    params = Network().init(jax.random.key(seed), images[:1])

    def loss(params: dict, x: jax.Array, y: jax.Array, eps: jax.Array) -> jax.Array:
        box = jaxlirpa.Box(jnp.maximum(x - eps, 0), jnp.minimum(x + eps, 1))
        worst, _ = jaxlirpa.ibp(margins, in_axes=(None, 0, 0))(params, box, y)
        return 0.5 * (cross_entropy(margins(params, x, y)) + cross_entropy(worst))

    @jax.jit
    def step(params: dict, state: optax.OptState, x: jax.Array, y: jax.Array, count: int) -> tuple:
        gradient = jax.grad(loss)(params, x, y, radius(count))
        updates, state = optimiser.update(gradient, state)
        return optax.apply_updates(params, updates), state

    state = optimiser.init(params)
    random = np.random.default_rng(seed)
    order = np.concatenate([random.permutation(len(images)) for _ in range(epochs)])
    for count in tqdm(range(steps), "training", leave=False, disable=None):
        chosen = order[count * batch : (count + 1) * batch]
        params, state = step(params, state, images[chosen], labels[chosen], count)
    return params
