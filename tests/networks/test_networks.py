"""Whole networks: every method bounds them soundly, and none of CROWN's is looser than IBP.

Nothing is compiled but where that is the question: small networks compile longer than they run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import arithmetic
import flax.linen as nn
import jax
import jax.numpy as jnp
import lirpa
import numpy as np
import optax
import pytest
from flax import nnx as flax_nnx
from marks import slowly
from oracles import METHODS, contains, equal, live_refs, sample, slack, trace

import jaxlirpa
from jaxlirpa._arrays import is_floating

from . import linen, nnx, plain
from .plain import Network

POINTS = 256
# For thousands of operations on few numbers each, which XLA otherwise computes for every reader.
UNFUSED = {"xla_disable_hlo_passes": "fusion"}
DIGITS = Path(__file__).parents[2] / "examples" / "data" / "digits.npz"

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "leaky_relu": nn.leaky_relu,
    "elu": nn.elu,
    "selu": nn.selu,
    "celu": nn.celu,
    "gelu": functools.partial(nn.gelu, approximate=False),
    "gelu_tanh": nn.gelu,
    "silu": nn.silu,
    "softplus": nn.softplus,
    "mish": jax.nn.mish,
    "tanh": nn.tanh,
    "sigmoid": nn.sigmoid,
    "hard_tanh": nn.hard_tanh,
    "relu6": nn.relu6,
    "soft_sign": nn.soft_sign,
    "log_sigmoid": nn.log_sigmoid,
    "hard_silu": jax.nn.hard_silu,
    "squareplus": jax.nn.squareplus,
}

NETWORKS: dict[str, Callable[[], Network]] = {
    **{
        f"mlp-{name}": lambda act=act: linen.network(linen.MLP(act), (5,), 0.05)
        for name, act in ACTIVATIONS.items()
    },
    **{f"linen-{name}": make for name, make in linen.NETWORKS.items()},
    **{f"nnx-{name}": make for name, make in nnx.NETWORKS.items()},
    **{f"plain-{name}": make for name, make in plain.NETWORKS.items()},
}

# By default, the networks that take longest are bounded by the cheap methods, or not at all.
CHEAP = ("ibp", "crown_ibp")
LONG = (
    *("mlp-gelu", "mlp-gelu_tanh", "mlp-silu", "mlp-mish", "mlp-hard_silu"),
    *("linen-cnn", "linen-mobilenet", "linen-gru", "plain-attention"),
    *("linen-wide_resnet", "linen-resnext", "linen-densenet", "linen-autoencoder"),
    *("linen-lstm", "linen-transformer", "plain-closed_loop", "plain-ode"),
    *("nnx-cnn", "nnx-resnet", "nnx-gru"),
)
LONGEST = (
    *("linen-mobilenet_v3", "linen-vit", "linen-mixer"),
    *("nnx-resnext", "nnx-densenet", "nnx-mobilenet", "nnx-lstm", "nnx-autoencoder"),
    *("nnx-transformer", "nnx-vit", "nnx-mixer"),
)
SHORT = [name for name in NETWORKS if name not in (*LONG, *LONGEST)]


# Of these there are relatives among the others, which run by default.
SIMILAR = (
    *("mlp-gelu_tanh", "mlp-mish", "mlp-hard_silu", "linen-mobilenet", "linen-wide_resnet"),
    *("linen-resnext", "linen-densenet", "linen-autoencoder", "linen-transformer"),
    *("nnx-resnet", "nnx-gru"),
)


def attained(network: Network) -> np.ndarray:
    """The outputs at members of the set, many of them corners."""
    points = sample(network.box(), 0, POINTS)
    return arithmetic.call(jax.vmap(network.fn, (None, 0)), network.params, points)


def check(network: Network, methods: Iterable[str] = METHODS) -> None:
    """Checks the bounds of some methods, the first of which is IBP."""
    values = attained(network)
    widths: dict[str, np.ndarray] = {}
    for name in methods:
        lower, upper = METHODS[name](network.fn)(network.params, network.box())
        contains(values, lower, upper, name)
        assert np.isfinite(lower).all() and np.isfinite(upper).all(), name
        widths[name] = np.asarray(upper - lower)
        assert (widths[name] <= widths["ibp"] + slack(lower, upper)).all(), name


@pytest.mark.few(5)
@pytest.mark.parametrize("name", slowly(SHORT, "linen-resnet"))
def test_network_by_every_method(name: str) -> None:
    check(NETWORKS[name]())


@pytest.mark.few(3)
@pytest.mark.parametrize("name", slowly(LONG, long=SIMILAR))
def test_network_by_the_cheap_methods(name: str) -> None:
    check(NETWORKS[name](), CHEAP)


@pytest.mark.long
@pytest.mark.parametrize("name", (*LONG, *LONGEST))
def test_long_network_by_every_method(name: str) -> None:
    check(NETWORKS[name]())


@pytest.mark.parametrize("name", slowly(("mlp-tanh", "linen-resnet"), "linen-resnet"))
def test_network_by_optimised_relaxations(name: str) -> None:
    check_optimised(NETWORKS[name]())


@pytest.mark.long
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_by_optimised_relaxations(name: str) -> None:
    check_optimised(NETWORKS[name](), UNFUSED if name == "plain-closed_loop" else None)


def check_optimised(network: Network, options: dict[str, str] | None = None) -> None:
    """Checks that alpha-CROWN is sound and nowhere looser than CROWN, inner boxes being by IBP."""
    values, found = attained(network), []
    for method in (jaxlirpa.crown, functools.partial(jaxlirpa.alpha_crown, steps=3)):
        bound = method(network.fn, intermediate=jaxlirpa.ibp)
        bound = jax.jit(bound, compiler_options=options) if options else arithmetic.jit(bound)
        lower, upper = bound(network.params, network.box())
        contains(values, lower, upper)
        found.append((lower, upper))
    (lower, upper), (better_lower, better_upper) = found
    room = slack(*(np.asarray(limit, coarsest(network)) for limit in (lower, upper)))
    assert (better_lower >= lower - room).all() and (better_upper <= upper + room).all()


def coarsest(network: Network) -> np.dtype:
    """The shortest format in which a network computes: in JAX softmax of attention has one.

    Programs that are compiled apart round differently by its units in the last place.
    """
    graph, _ = trace(network.fn, network.params, network.box())
    formats = {graph.aval(ref).dtype for ref in live_refs(graph) if is_floating(graph.aval(ref))}
    return max(formats, key=lambda dtype: jnp.finfo(dtype).eps)


@pytest.mark.long
@pytest.mark.parametrize("name", linen.LARGE)
def test_large_network(name: str) -> None:
    check(linen.LARGE[name](), CHEAP)


# ---- weights that were trained ----------------------------------------------------------------


class Classifier(nn.Module):
    """A small convolutional network for digits."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Images (n, 8, 8, 1) to logits."""
        x = nn.relu(nn.Conv(6, (3, 3), 2)(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.relu(nn.Dense(16)(x.reshape(x.shape[0], -1)))
        return nn.Dense(10)(x)


@pytest.mark.slow
def test_trained_classifier() -> None:
    with np.load(DIGITS) as archive:
        images, labels = archive["images"][..., None] / 16.0, archive["labels"].astype(int)
    model = Classifier()
    params = linen.network(model, (8, 8, 1)).params
    optimiser = optax.adam(0.02)

    def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(model.apply(params, x), y).mean()

    @jax.jit
    def step(params: Any, state: Any, x: jax.Array, y: jax.Array) -> tuple[Any, Any]:
        updates, state = optimiser.update(jax.grad(loss)(params, x, y), state)
        return optax.apply_updates(params, updates), state

    state = optimiser.init(params)
    for i in range(80):
        chosen = slice(16 * i, 16 * i + 16)
        params, state = step(params, state, images[chosen], labels[chosen])
    held, truth = images[-200:], labels[-200:]
    right = np.argmax(model.apply(params, held), -1) == truth
    assert right.mean() > 0.7

    # Bounds of the logits' distance to the label's own, for some images that are recognised.
    chosen = np.flatnonzero(right)[:4]
    box = jaxlirpa.Box(held[chosen] - 0.01, held[chosen] + 0.01)

    def margins(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        logits = model.apply(params, x)
        return logits - jnp.take_along_axis(logits, y[:, None], -1)

    points = sample(box, 0, POINTS)
    values = arithmetic.call(jax.vmap(margins, (None, 0, None)), params, points, truth[chosen])
    certified = {}
    for name in (*CHEAP, "crown"):
        lower, upper = METHODS[name](margins, in_axes=(None, 0, 0))(params, box, truth[chosen])
        contains(values, lower, upper, name)
        certified[name] = int((upper <= 0).all(-1).sum())
    assert certified["ibp"] <= certified["crown_ibp"] <= certified["crown"]
    assert certified["crown"] > 0


# ---- under other transformations --------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    slowly(
        ("mlp-relu", "linen-resnet", "linen-gru", "plain-attention"),
        *("linen-resnet", "linen-gru", "plain-attention"),
    ),
)
def test_compiled_bounds_equal_eager_ones(name: str) -> None:
    network = NETWORKS[name]()
    bound = jaxlirpa.crown_ibp(network.fn)
    level = {"xla_backend_optimization_level": 0}
    compiled = jax.jit(bound, compiler_options=level)(network.params, network.box())
    for ours, eager in zip(compiled, bound(network.params, network.box()), strict=True):
        equal(ours, eager)


@pytest.mark.parametrize(
    "name",
    slowly(
        ("mlp-tanh", "linen-resnet", "linen-gru", "plain-attention"),
        *("linen-resnet", "linen-gru", "plain-attention"),
    ),
)
def test_a_bound_is_differentiable_in_the_weights(name: str) -> None:
    network = NETWORKS[name]()

    def width(params: Any) -> jax.Array:
        lower, upper = jaxlirpa.crown_ibp(network.fn)(params, network.box())
        return jnp.sum(upper - lower)

    gradient = jax.tree.leaves(arithmetic.call(jax.grad(width), network.params))
    assert all(np.isfinite(g).all() for g in gradient)
    assert any(np.any(g) for g in gradient)


@pytest.mark.few(1)
@pytest.mark.parametrize("name", slowly(("mlp-relu", "linen-resnet", "linen-gru"), "linen-resnet"))
def test_a_batch_equals_its_examples(name: str) -> None:
    network = NETWORKS[name]()
    xs = [network.center(seed) for seed in (1, 2)]
    batch = lirpa.crown_ibp(network.fn, in_axes=(None, 0))
    joint = batch(network.params, jnp.concatenate(xs), network.eps)
    single = [lirpa.crown_ibp(network.fn)(network.params, x, network.eps) for x in xs]
    for ours, parts in zip(joint, zip(*single, strict=True), strict=True):
        equal(ours, np.concatenate(parts))


# ---- how a module is passed -------------------------------------------------------------------


def test_every_way_to_pass_an_nnx_module() -> None:
    module = nnx.module(lambda rngs: nnx.MLP(5, rngs))
    graph, state = flax_nnx.split(module)
    x, eps = jnp.arange(5.0)[None], 0.1

    def merged(state: Any, x: jax.Array) -> jax.Array:
        return flax_nnx.merge(graph, state)(x)

    def called(module: Any, x: jax.Array) -> jax.Array:
        return module(x)

    found = {
        "the module itself": lirpa.crown_ibp(module)(x, eps),
        "closed over": lirpa.crown_ibp(lambda x: module(x))(x, eps),
        "split and merged": lirpa.crown_ibp(merged)(state, x, eps),
        "an argument": lirpa.crown_ibp(called)(module, x, eps),
        "an argument, jitted": jax.jit(jaxlirpa.crown_ibp(called))(module, x, eps),
        "a batch": lirpa.crown_ibp(called, in_axes=(None, 0))(module, x, eps),
    }
    for way, bounds in found.items():
        equal(np.stack(bounds), np.stack(found["the module itself"]), way)


def test_the_weights_of_an_nnx_module_are_perturbed() -> None:
    module = nnx.module(lambda rngs: nnx.MLP(5, rngs))
    graph, state = flax_nnx.split(module, flax_nnx.Param)
    ball = jaxlirpa.LpBall(state, 0.01)
    x = jnp.arange(5.0)[None]

    def merged(state: Any) -> jax.Array:
        return flax_nnx.merge(graph, state)(x)

    values = arithmetic.call(jax.vmap(merged), sample(ball, 0, POINTS))
    contains(values, *lirpa.ibp(merged)(ball), "ibp")


def test_every_way_to_pass_a_linen_module() -> None:
    network = linen.network(linen.MLP(), (5,), 0.1)
    module, x = linen.MLP(), network.center()
    found = {
        "apply": lirpa.crown_ibp(module.apply)(network.params, x, network.eps),
        "bound": lirpa.crown_ibp(module.bind(network.params))(x, network.eps),
        "closed over": lirpa.crown_ibp(lambda x: module.apply(network.params, x))(x, 0.1),
    }
    for way, bounds in found.items():
        equal(np.stack(bounds), np.stack(found["apply"]), way)


def test_equinox_module() -> None:
    eqx = pytest.importorskip("equinox", reason="equinox is not installed")
    module = eqx.nn.MLP(5, 3, 6, 2, key=jax.random.key(0))
    box = jaxlirpa.Box(jnp.arange(5.0) - 0.1, jnp.arange(5.0) + 0.1)
    for name, method in METHODS.items():
        contains(jax.vmap(module)(sample(box, 0, POINTS)), *method(module)(box), name)
