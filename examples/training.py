"""The state of a run of certified training, its step, and the check of what was reached.

A run is a function of its settings: the state has the key of all random numbers, and what is drawn
for a step or an epoch depends on that key and their number alone. So it goes on from a stored state
as if it had never stopped, bit by bit.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from data import CHANNELS, CLASSES, Dataset
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from models import MODELS, Normalised
from objectives import METHODS, Problem, augment
from settings import SettingError, Settings

import jaxlirpa
import jaxlirpa.train.linen
from jaxlirpa import train

Network = Callable[[dict, jax.Array], jax.Array]
Schedule = Callable[[Any], Any]
CLIP = 10.0  # the largest norm of a gradient
CHECK_BATCH = 200
CHECK_STEPS = 10  # of the attack
STATISTICS = 2000  # images, for BatchNorm after every epoch


class State(NamedTuple):
    """What changes in training: arrays, and nothing else.

    Attributes:
      step: the number of steps so far.
      epoch: the number of epochs so far.
      key: of all random numbers, as its data; never changes.
      params: the parameters.
      batch_stats: the statistics of BatchNorm.
      optimiser: the state of the optimiser.
    """

    step: jax.Array
    epoch: jax.Array
    key: jax.Array
    params: dict
    batch_stats: dict
    optimiser: optax.OptState


class Sums(NamedTuple):
    """Sums over images of training."""

    images: jax.Array
    loss: jax.Array
    wrong: jax.Array
    unproved: jax.Array  # NaN where the loss is no certificate


class Schedules(NamedTuple):
    """What changes with the step."""

    eps: Schedule
    beta: Schedule
    kappa: Schedule
    regularise: Schedule
    rate: Schedule


class Trainer(NamedTuple):
    """All that the settings determine.

    Attributes:
      settings: of the run.
      model: the network, a function of images.
      optimiser: Adam, with clipped gradients.
      schedules: of the step.
      steps: of an epoch.
      mesh: the devices that share every batch.
    """

    settings: Settings
    model: nn.Module
    optimiser: optax.GradientTransformation
    schedules: Schedules
    steps: int
    mesh: Mesh

    @property
    def copies(self) -> NamedSharding:
        """The whole array on every device."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def parts(self) -> NamedSharding:
        """A part of the batch on every device."""
        return NamedSharding(self.mesh, PartitionSpec("batch"))


def trainer(settings: Settings, count: int, devices: Sequence[jax.Device] | None = None) -> Trainer:
    """What is needed to train.

    Args:
      settings: of the run.
      count: how many training images there are.
      devices: those that share every batch; default: all.

    Raises:
      SettingError: where the batch does not divide over the devices, or exceeds the images.
    """
    mesh = Mesh(np.array(jax.devices() if devices is None else devices), ("batch",))
    if settings.batch % mesh.size:
        raise SettingError(f"--batch {settings.batch} does not divide over {mesh.size} devices")
    if settings.batch > count:
        raise SettingError(f"--batch {settings.batch}: there are {count} training images only")
    steps = count // settings.batch
    schedule = schedules(settings, steps)
    return Trainer(
        settings,
        Normalised(MODELS[settings.model](CLASSES), *CHANNELS[settings.data]),
        optimiser(schedule.rate, settings.accumulate),
        schedule,
        steps,
        mesh,
    )


def schedules(settings: Settings, steps: int) -> Schedules:
    """The schedules of a run with so many steps an epoch."""
    begin, length = settings.warmup * steps, settings.ramp * steps
    total, kappa = settings.epochs * steps, settings.kappa
    falls = {round(0.75 * total): 0.2, round(0.9 * total): 0.2}
    return Schedules(
        eps=train.smoothed(0.0, settings.train_eps, begin, length),
        beta=train.linear(1.0, 0.0, begin, length),
        kappa=train.linear(*kappa, begin, length),
        regularise=lambda step: (
            settings.regularise * (1 - train.smoothed(0.0, 1.0, begin, length)(step))
        ),
        rate=optax.piecewise_constant_schedule(settings.rate, falls),
    )


def optimiser(rate: Schedule, accumulate: int) -> optax.GradientTransformation:
    """Adam with clipped gradients; of the mean gradient of several steps, where that is asked."""
    adam = optax.chain(
        optax.clip_by_global_norm(CLIP), optax.adam(lambda update: rate(update * accumulate))
    )
    if accumulate == 1:
        return adam
    several = optax.MultiSteps(adam, every_k_schedule=accumulate)
    return optax.GradientTransformation(several.init, several.update)


def initial(trainer: Trainer, image: np.ndarray) -> State:
    """The state before the first step, for images shaped as this one."""
    start, key = jax.random.split(jax.random.key(trainer.settings.seed))
    variables = trainer.model.init(start, image[None])
    return State(
        step=jnp.zeros((), jnp.int32),
        epoch=jnp.zeros((), jnp.int32),
        key=jax.random.key_data(key),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        optimiser=trainer.optimiser.init(variables["params"]),
    )


def make_step(trainer: Trainer) -> Callable[..., tuple[State, Sums]]:
    """A compiled function of (state, sums, images, labels) to the next state and sums."""
    settings, schedule = trainer.settings, trainer.schedules
    method = METHODS[settings.method]

    def objective(
        params: dict, state: State, images: jax.Array, labels: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, tuple[dict, Sums]]:
        variables = {"params": params, "batch_stats": state.batch_stats}
        shared = train.linen.shared_statistics(trainer.model, variables, images, train=True)
        box = train.clipped_box(images, schedule.eps(state.step))
        beta, kappa = schedule.beta(state.step), schedule.kappa(state.step)
        found = method(Problem(shared.fn, params, images, box, labels, beta, settings.alpha, key))
        clean = optax.softmax_cross_entropy_with_integer_labels(shared.logits, labels)
        loss = kappa * clean.mean() + (1 - kappa) * found.losses.mean()
        if found.boxes is not None and settings.regularise:
            terms = train.tightness(found.boxes) + train.relu_balance(found.boxes)
            loss += schedule.regularise(state.step) * terms
        count = len(images)
        sums = Sums(
            images=jnp.float32(count),
            loss=loss * count,
            wrong=(shared.logits.argmax(-1) != labels).sum(),
            unproved=jnp.nan if found.proved is None else (~found.proved).sum(),
        )
        return loss, (shared.batch_stats, sums)

    def step(state: State, sums: Sums, images: jax.Array, labels: jax.Array) -> tuple[State, Sums]:
        draws = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        moves, attacks = jax.random.split(draws)
        images = augment(moves, images) if settings.data == "cifar10" else images
        gradient, (batch_stats, more) = jax.grad(objective, has_aux=True)(
            state.params, state, images, labels, attacks
        )
        updates, optimised = trainer.optimiser.update(gradient, state.optimiser, state.params)
        state = state._replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            optimiser=optimised,
        )
        return state, jax.tree.map(lambda a, b: a + jnp.asarray(b, a.dtype), sums, more)

    copies, parts = trainer.copies, trainer.parts
    return jax.jit(
        step, in_shardings=(copies, copies, parts, parts), out_shardings=copies, donate_argnums=0
    )


def nothing(trainer: Trainer) -> Sums:
    """No images yet."""
    zeros = Sums(*(jnp.zeros((), jnp.float32) for _ in Sums._fields))
    return jax.device_put(zeros, trainer.copies)


def batches(
    trainer: Trainer, state: State, images: np.ndarray, labels: np.ndarray
) -> Iterator[tuple[jax.Array, jax.Array]]:
    """The batches of the state's epoch, on the devices; what is over is left out of this epoch."""
    seed = [*np.asarray(state.key).tolist(), int(state.epoch)]
    order = np.random.default_rng(seed).permutation(len(images))
    batch = trainer.settings.batch
    for k in range(trainer.steps):
        chosen = order[k * batch : (k + 1) * batch]
        yield jax.device_put((images[chosen], labels[chosen]), trainer.parts)


def make_statistics(trainer: Trainer) -> Callable[[State, np.ndarray], State]:
    """A function that gives a state the statistics of BatchNorm by the weights that it has."""

    def statistics(params: dict, batch_stats: dict, images: jax.Array) -> dict:
        variables = {"params": params, "batch_stats": batch_stats}
        return train.linen.precise_statistics(trainer.model, variables, [images], train=True)

    copies = trainer.copies
    compiled = jax.jit(
        statistics, in_shardings=(copies, copies, trainer.parts), out_shardings=copies
    )

    def run(state: State, images: np.ndarray) -> State:
        count = min(len(images), STATISTICS) // trainer.mesh.size * trainer.mesh.size
        return state._replace(batch_stats=compiled(state.params, state.batch_stats, images[:count]))

    return run


def network(model: nn.Module, batch_stats: dict) -> Network:
    """What is certified: a function of (params, images) to logits."""
    return train.linen.inference(model, {"batch_stats": batch_stats}, train=False)


def in_batches(
    fn: Callable[..., Any], size: int, *arrays: np.ndarray, sharding: NamedSharding | None = None
) -> Any:
    """A function of a batch on all rows of arrays, in batches of one size.

    Args:
      fn: of `size` rows of every array to arrays with as many rows.
      size: what is over is filled up with other rows.
      arrays: with equally many rows.
      sharding: where the batches go.
    """
    count = len(arrays[0])
    found = []
    for rows in np.resize(np.arange(count), (-(-count // size), size)):
        batch = tuple(array[rows] for array in arrays)
        found.append(jax.device_get(fn(*jax.device_put(batch, sharding))))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *found)


class Checked(NamedTuple):
    """Which images are classified as labelled, withstand the attack, and are verified by IBP."""

    right: np.ndarray
    withstood: np.ndarray
    proved: np.ndarray

    def errors(self) -> dict[str, float]:
        """The shares of the others."""
        names = ("clean_error", "pgd_error", "verified_error")
        return {name: float(1 - found.mean()) for name, found in zip(names, self, strict=True)}


def worst(margins: jax.Array, labels: jax.Array) -> jax.Array:
    """How far the best of the other classes is ahead, of margins as `train.margins` has them."""
    own = jax.nn.one_hot(labels, margins.shape[-1], dtype=bool)
    return jnp.where(own, -jnp.inf, margins).max(-1)


def ahead(fn: Network) -> Callable[[dict, jax.Array, jax.Array], jax.Array]:
    """Of (params, images, labels): how far another class is ahead, (n,); negative where right."""
    margins = train.margins(fn)
    return lambda params, x, labels: worst(margins(params, x, labels), labels)


def make_check(trainer: Trainer) -> Callable[[State, Dataset, float], Checked]:
    """A function that checks the first test images at a radius."""

    def check(state: State, eps: jax.Array, images: jax.Array, labels: jax.Array) -> Checked:
        fn, params = network(trainer.model, state.batch_stats), state.params
        other = ahead(fn)
        box = train.clipped_box(images, eps)
        attack = train.pgd(other, steps=CHECK_STEPS)
        found = attack(params, box, labels, key=jax.random.wrap_key_data(state.key))
        upper = jaxlirpa.ibp(train.margins(fn))(params, box, labels).upper
        right = other(params, images, labels) < 0
        withstood = right & (other(params, found, labels) < 0)
        return Checked(right, withstood, train.verified(upper, labels))

    copies, parts = trainer.copies, trainer.parts
    compiled = jax.jit(check, in_shardings=(copies, copies, parts, parts), out_shardings=parts)
    size = -(-CHECK_BATCH // trainer.mesh.size) * trainer.mesh.size

    def run(state: State, data: Dataset, eps: float) -> Checked:
        count = trainer.settings.check
        part = data.test_images[:count], data.test_labels[:count]
        own = functools.partial(compiled, state, jnp.float32(eps))
        return in_batches(own, size, *part, sharding=parts)

    return run
