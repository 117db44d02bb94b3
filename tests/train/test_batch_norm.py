"""BatchNorm and dropout of flax: statistics of the clean batch, shared with the bounds."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import arithmetic
import flax.linen as nn
import jax
import jax.numpy as jnp
import lirpa
import numpy as np
import pytest
from flax import nnx

import jaxlirpa
import jaxlirpa.train.linen
import jaxlirpa.train.nnx
from jaxlirpa import Box, train

from .networks import members

EPS = 0.05
RANDOM = np.random.default_rng(0)
X = jnp.asarray(RANDOM.normal(size=(6, 5, 5, 2)))
LABELS = jnp.asarray([0, 1, 2, 0, 1, 2])
RNGS = {"dropout": jax.random.key(7)}


class Linen(nn.Module):
    """A convolution and a dense layer, both normalised, and dropout."""

    rate: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """One flag is the layer's own, the other one that of the call."""
        x = nn.Conv(4, (3, 3), param_dtype=float)(x)
        x = nn.relu(nn.BatchNorm(not train, momentum=0.9, param_dtype=float)(x))
        x = nn.Dense(8, param_dtype=float)(x.reshape(x.shape[0], -1))
        x = nn.BatchNorm(use_fast_variance=False, param_dtype=float)(x, not train)
        x = nn.Dropout(self.rate, deterministic=not train)(nn.relu(x))
        return nn.Dense(3, param_dtype=float)(x)


class Nnx(nnx.Module):
    """The same."""

    def __init__(self, rngs: nnx.Rngs, rate: float = 0.0):
        self.conv = nnx.Conv(2, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, momentum=0.9, rngs=rngs)
        self.dense = nnx.Linear(100, 8, rngs=rngs)
        self.norms = nnx.List([nnx.BatchNorm(8, use_fast_variance=False, rngs=rngs)])
        self.dropout = nnx.Dropout(rate, rngs=rngs)
        self.last = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Images to logits."""
        x = nnx.relu(self.norm(self.conv(x)))
        x = nnx.relu(self.norms[0](self.dense(x.reshape(x.shape[0], -1))))
        return self.last(self.dropout(x))


class Trained(NamedTuple):
    """A module of either library, seen in the same way.

    Attributes:
        params: its parameters.
        rest: all other state.
        share: `shared_statistics`, of (params, rest, x).
        own: flax's own logits in training mode, and the new state, of (params, rest, x).
        precise: `precise_statistics`, of (params, rest, batches).
        inference: of rest.
        evaluated: flax's own logits in inference mode, of (params, rest, x).
        naive: the module in training mode, of (params, x).
    """

    params: Any
    rest: Any
    share: Callable[..., Any]
    own: Callable[..., Any]
    precise: Callable[..., Any]
    inference: Callable[..., Any]
    evaluated: Callable[..., Any]
    naive: Callable[..., Any]


def linen(rate: float = 0.0) -> Trained:
    """In linen, the rest is "batch_stats"."""
    module, mode = Linen(rate), {"train": True, "rngs": RNGS}
    variables = module.init(jax.random.key(0), X, train=False)

    def joined(params: Any, rest: Any) -> dict[str, Any]:
        return {"params": params, "batch_stats": rest}

    def share(params: Any, rest: Any, x: Any) -> Any:
        found = train.linen.shared_statistics(module, joined(params, rest), x, **mode)
        return found.fn, found.logits, found.batch_stats

    def own(params: Any, rest: Any, x: Any) -> Any:
        variables = joined(params, rest)
        logits, updated = module.apply(variables, x, mutable=["batch_stats"], **mode)
        return logits, updated["batch_stats"]

    def precise(params: Any, rest: Any, batches: Any) -> Any:
        return train.linen.precise_statistics(module, joined(params, rest), batches, **mode)

    return Trained(
        variables["params"],
        variables["batch_stats"],
        share,
        own,
        precise,
        lambda rest: train.linen.inference(module, {"batch_stats": rest}, train=False),
        lambda params, rest, x: module.apply(joined(params, rest), x, train=False),
        lambda params, x: own(params, variables["batch_stats"], x)[0],
    )


def float64(state: Any) -> Any:
    """State in double precision."""
    return jax.tree.map(lambda x: x.astype(float) if x.dtype == jnp.float32 else x, state)


def nnx_(rate: float = 0.0) -> Trained:
    """In nnx, the rest is running statistics and generators."""
    model = Nnx(nnx.Rngs(0), rate)
    model.train()
    graphdef, *state = nnx.split(model, nnx.Param, ...)
    params, rest = map(float64, state)

    def share(params: Any, rest: Any, x: Any) -> Any:
        found = train.nnx.shared_statistics(graphdef, params, rest, x)
        return found.fn, found.logits, found.rest

    def own(params: Any, rest: Any, x: Any) -> Any:
        model = nnx.merge(graphdef, params, rest, copy=True)
        logits = model(x)
        return logits, nnx.split(model, nnx.Param, ...)[2]

    def evaluated(params: Any, rest: Any, x: Any) -> Any:
        model = nnx.merge(graphdef, params, rest, copy=True)
        model.eval()
        return model(x)

    return Trained(
        params,
        rest,
        share,
        own,
        functools.partial(train.nnx.precise_statistics, graphdef),
        functools.partial(train.nnx.inference, graphdef),
        evaluated,
        lambda params, x: own(params, rest, x)[0],
    )


EITHER = pytest.mark.parametrize("make", [linen, nnx_], ids=["linen", "nnx"])


def close(a: Any, b: Any) -> None:
    """Equal up to rounding, in structure too."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = map(jax.random.key_data, (x, y))
        np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-12)


@pytest.mark.few(1)
@EITHER
@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_the_clean_batch_is_flax_s_own(make: Any, rate: float) -> None:
    """Its logits, the running statistics after it, and the network with its statistics."""
    own = make(rate)
    fn, logits, rest = own.share(own.params, own.rest, X)
    expected, updated = own.own(own.params, own.rest, X)
    close((logits, rest), (expected, updated))
    close(fn(own.params, X), expected)
    close(fn(own.params, X), fn(own.params, X))


@EITHER
def test_bounds_are_of_the_network_of_the_clean_batch(make: Any) -> None:
    """Its statistics do not move with the images; the same masks drop out."""
    own = make(0.5)
    fn, _, _ = own.share(own.params, own.rest, X)
    box = Box(X - EPS, X + EPS)
    for loss in (train.certified(fn), train.fused(fn)):
        bound = arithmetic.jit(loss)(own.params, box, LABELS)
        natural = arithmetic.jit(train.natural(fn))
        points = members(box.lower, box.upper, 30)
        met = np.max([natural(own.params, jnp.asarray(x), LABELS) for x in points], 0)
        assert np.all(bound >= met - 1e-10) and np.all(np.isfinite(bound))
        other = X.at[0].set(X[0] + EPS)
        kept = natural(own.params, other, LABELS)[1:], natural(own.params, X, LABELS)[1:]
        np.testing.assert_array_equal(*kept)


@pytest.mark.slow
@EITHER
def test_gradients_flow_through_the_statistics(make: Any) -> None:
    own = make(0.5)
    direction = jax.tree.map(lambda w: jnp.asarray(RANDOM.normal(size=w.shape)), own.params)

    def value(params: Any) -> jax.Array:
        fn, logits, _ = own.share(params, own.rest, X)
        return train.fused(fn)(params, X, LABELS, 0.01).mean() + jnp.square(logits).mean()

    @arithmetic.jit
    def along(step: Any) -> jax.Array:
        return value(jax.tree.map(lambda w, d: w + step * d, own.params, direction))

    h = 1e-6
    difference = (along(h) - along(-h)) / (2 * h)
    np.testing.assert_allclose(arithmetic.jit(jax.grad(along))(0.0), difference, rtol=1e-5)
    gradient = arithmetic.jit(jax.grad(value))(own.params)
    assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(gradient))


@pytest.mark.few(1)
@EITHER
def test_batch_norm_in_training_mode_is_refused(make: Any) -> None:
    """Together, apart by in_axes, and alone."""
    own = make()
    apart = functools.partial(lirpa.ibp, in_axes=(None, 0, 0))
    box = Box(X - EPS, X + EPS)
    for loss in (train.certified(own.naive), train.certified(own.naive, apart)):
        with pytest.raises(jaxlirpa.ArgumentError, match="BatchNorm in training mode"):
            loss(own.params, box, LABELS)
    alone = jax.vmap(lambda x, y: train.certified(own.naive)(own.params, x[None], y[None], EPS))
    with pytest.warns(train.MixedExamplesWarning, match="BatchNorm in training mode"):
        alone(X, LABELS)


# ---- statistics of all --------------------------------------------------------------------


def statistics(make: Any, rest: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the first layer."""
    found = rest["BatchNorm_0"] if make is linen else rest["norm"]
    return np.asarray(found["mean"][...]), np.asarray(found["var"][...])


def first_layer(make: Any, params: Any, x: jax.Array) -> np.ndarray:
    """What the first normalisation reads."""
    conv = params["Conv_0"] if make is linen else params["conv"]
    kernel, bias = conv["kernel"][...], conv["bias"][...]
    numbers = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)
    return np.asarray(y + bias)


@EITHER
def test_precise_statistics_are_those_of_all_images(make: Any) -> None:
    own = make()
    images = jnp.asarray(RANDOM.normal(size=(20, 5, 5, 2))) + jnp.arange(20).reshape(-1, 1, 1, 1)
    batches = [images[:8], images[8:16], images[16:]]
    rest = own.precise(own.params, own.rest, batches)
    assert jax.tree.structure(rest) == jax.tree.structure(own.rest)
    values = first_layer(make, own.params, images)
    mean, var = statistics(make, rest)
    np.testing.assert_allclose(mean, values.mean((0, 1, 2)), rtol=1e-10)
    np.testing.assert_allclose(var, values.var((0, 1, 2)), rtol=1e-8)
    with pytest.raises(jaxlirpa.ArgumentError, match="no batches"):
        own.precise(own.params, own.rest, [])


# ---- evaluation ---------------------------------------------------------------------------


@EITHER
def test_the_network_that_is_certified_uses_running_statistics(make: Any) -> None:
    own = make(0.5)
    _, _, rest = own.share(own.params, own.rest, X)
    fn = own.inference(rest)
    close(fn(own.params, X), own.evaluated(own.params, rest, X))
    lower, upper = arithmetic.jit(lirpa.crown_ibp(fn))(own.params, X, EPS)
    assert np.all((lower <= fn(own.params, X)) & (fn(own.params, X) <= upper))


@EITHER
def test_untrained_statistics_are_warned_about(make: Any) -> None:
    own = make()
    with pytest.warns(train.UntrainedBatchNormWarning, match="still zero and one"):
        own.inference(own.rest)


def test_evaluation_in_training_mode_is_refused() -> None:
    own = linen()
    _, _, rest = own.share(own.params, own.rest, X)
    fn = train.linen.inference(Linen(), {"batch_stats": rest}, train=True)
    with pytest.raises(jaxlirpa.ArgumentError, match="BatchNorm_0 is in training mode"):
        fn(own.params, X)

    class Stubborn(nnx.Module):
        """Takes the statistics of whatever it gets."""

        def __init__(self) -> None:
            self.norm = nnx.BatchNorm(2, rngs=nnx.Rngs(0))

        def __call__(self, x: jax.Array) -> jax.Array:
            """Logits."""
            return self.norm(x, use_running_average=False).mean((1, 2))

    graphdef, params, rest = nnx.split(Stubborn(), nnx.Param, ...)
    x = X.astype(jnp.float32)
    rest = train.nnx.precise_statistics(graphdef, params, rest, [x])
    shared = train.nnx.shared_statistics(graphdef, params, rest, x)
    for fn in (train.nnx.inference(graphdef, rest), shared.fn):
        with pytest.raises(jaxlirpa.ArgumentError, match="norm took the statistics of perturbed"):
            fn(params, x)


def test_modules_without_statistics_to_share_say_so() -> None:
    module = Linen()
    variables = module.init(jax.random.key(0), X, train=False)
    with pytest.raises(jaxlirpa.ArgumentError, match="no BatchNorm of Linen is in training mode"):
        train.linen.shared_statistics(module, variables, X, train=False)
    model = Nnx(nnx.Rngs(0))
    model.eval()
    with pytest.raises(jaxlirpa.ArgumentError, match="no BatchNorm of Nnx is in training mode"):
        train.nnx.shared_statistics(*nnx.split(model, nnx.Param, ...), X)


@pytest.mark.slow
def test_dropout_alone_is_shared() -> None:
    """Without BatchNorm there is nothing else, in either library."""

    class Dropped(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            return nn.Dense(3)(nn.Dropout(0.5, deterministic=False)(x.reshape(x.shape[0], -1)))

    module = Dropped()
    variables = module.init({"params": jax.random.key(0), **RNGS}, X)
    shared = train.linen.shared_statistics(module, variables, X, rngs=RNGS)
    np.testing.assert_array_equal(shared.fn(variables["params"], X), shared.logits)
    assert shared.batch_stats == {}

    model = nnx.Sequential(nnx.Dropout(0.5, rngs=nnx.Rngs(0)), nnx.Linear(2, 3, rngs=nnx.Rngs(1)))
    model.train()
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    found = train.nnx.shared_statistics(graphdef, params, rest, X)
    np.testing.assert_array_equal(found.fn(params, X), found.logits)
    again = train.nnx.shared_statistics(graphdef, params, found.rest, X)
    assert not np.array_equal(again.logits, found.logits), "the generator has moved on"


def test_layers_of_another_kind_keep_their_own_call() -> None:
    class Shifted(nnx.BatchNorm):
        """A user's."""

        def __call__(self, x: Any, *args: Any, **kwargs: Any) -> Any:
            """Shifted by one."""
            return super().__call__(x, *args, **kwargs) + 1

    class Model(nnx.Module):
        def __init__(self) -> None:
            self.norm = Shifted(2, rngs=nnx.Rngs(0))

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.norm(x).mean((1, 2))

    model = Model()
    model.train()
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    x = X.astype(jnp.float32)
    found = train.nnx.shared_statistics(graphdef, params, rest, x)
    np.testing.assert_allclose(found.logits, nnx.merge(graphdef, params, rest, copy=True)(x))
    np.testing.assert_allclose(found.fn(params, x), found.logits, atol=1e-6)
