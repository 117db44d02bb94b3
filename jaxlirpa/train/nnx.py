"""BatchNorm and dropout of flax nnx in certified training.

As `jaxlirpa.train.linen`, for modules that `nnx.split` has taken apart:

    model.train()
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxlirpa._errors import ArgumentError
from jaxlirpa._types import Array
from jaxlirpa.train.statistics import Moments, pooled, warn_if_untrained


class Shared(NamedTuple):
    """A network with the statistics of one batch.

    Attributes:
        fn: of (params, x) to what the module returns, with the statistics of the clean batch and
            the same dropout; for x of the shape of that batch.
        logits: what it returns of the clean batch: flax's own output in training mode.
        rest: the new state besides the parameters: running statistics, counters of random numbers.
        of_batch: mean and variance of the clean batch, by the names of the layers.
    """

    fn: Callable[[nnx.State, Any], Any]
    logits: Any
    rest: nnx.State
    of_batch: dict[str, tuple[Array, Array]]


def shared_statistics(
    graphdef: Any, params: nnx.State, rest: nnx.State, x: Array, *args: Any, **kwargs: Any
) -> Shared:
    """Runs a clean batch in training mode, and shares its statistics with the bounds.

    Used where the gradient is taken, so that it flows through the statistics as well:

        def loss(params, rest, x, labels, eps):
            shared = train.nnx.shared_statistics(graphdef, params, rest, x)
            worst = train.certified(shared.fn)(params, x, labels, eps)
            return worst.mean(), shared.rest

    Args:
        graphdef, params, rest: of the module, as `nnx.split` returns them. Its BatchNorm layers
            that are in training mode take the statistics of the batch. Dropout gives the same masks
            to the clean batch and to the bounds.
        x: the clean batch.
        *args, **kwargs: more arguments of the module.

    Returns:
        The network, its logits and the rest of the state, with new running statistics.

    Raises:
        ArgumentError: where there are BatchNorm layers but none is in training mode.
    """
    model = nnx.merge(graphdef, params, rest, copy=True)
    norms = _norms(model)
    before = {name: norm.mean[...] for name, norm in norms.items()}
    with _recording(norms.values()):
        logits = model(x, *args, **kwargs)
        in_training = [name for name, norm in norms.items() if norm.mean[...] is not before[name]]
        of_batch = {
            name: (norms[name].own_mean[...], norms[name].own_var[...]) for name in in_training
        }
    if norms and not of_batch:
        raise ArgumentError(
            f"no BatchNorm of {type(model).__name__} is in training mode, so there are no "
            "statistics of the batch to share: call model.train() before nnx.split."
        )
    updated = _rest(model)

    def fn(params: nnx.State, x: Any) -> Any:
        model = nnx.merge(graphdef, params, rest, copy=True)
        norms = _norms(model)
        for name, moments in of_batch.items():
            norms[name].use_running_average = True
            _set(norms[name], *moments)
        held = {name: norm.mean[...] for name, norm in norms.items()}
        logits = model(x, *args, **kwargs)
        _refuse({name for name, norm in norms.items() if norm.mean[...] is not held[name]})
        return logits

    return Shared(fn, logits, updated, of_batch)


def precise_statistics(
    graphdef: Any,
    params: nnx.State,
    rest: nnx.State,
    batches: Iterable[Array],
    *args: Any,
    **kwargs: Any,
) -> nnx.State:
    """The statistics of a whole training set (precise-BN); see `linen.precise_statistics`.

    Args:
        graphdef, params, rest, args, kwargs: as for `shared_statistics`.
        batches: of inputs.

    Returns:
        `rest` with these statistics.

    Raises:
        ArgumentError: where there are no batches; and as `shared_statistics`.
    """

    @jax.jit
    def moments(params: nnx.State, rest: nnx.State, x: Array) -> Any:
        found = shared_statistics(graphdef, params, rest, x, *args, **kwargs).of_batch
        return tuple({name: pair[side] for name, pair in found.items()} for side in range(2))

    total = None
    for x in batches:
        mean, var = moments(params, rest, x)
        own = Moments(mean, var, len(x))
        total = own if total is None else pooled(total, own)
    if total is None:
        raise ArgumentError("there are no batches to take statistics of.")
    model = nnx.merge(graphdef, params, rest, copy=True)
    norms = _norms(model)
    for name in total.mean:
        _set(norms[name], total.mean[name], total.var[name])
    return _rest(model)


def inference(
    graphdef: Any, rest: nnx.State, *args: Any, **kwargs: Any
) -> Callable[[nnx.State, Any], Any]:
    """The network to be certified: a function of (params, x), in inference mode.

    All layers are set to it (`model.eval()`), whatever mode they were in when they were split.

    Args:
        graphdef, rest, args, kwargs: as for `shared_statistics`.

    Returns:
        The function.

    Raises:
        ArgumentError: where a BatchNorm is called in training mode all the same; by the returned
            function.

    Warns:
        UntrainedBatchNormWarning: where statistics still have their initial values, zero and one.
    """
    flat = {path: leaf for path, leaf in nnx.to_flat_state(rest) if isinstance(leaf, nnx.BatchStat)}
    means, variances = (
        {
            ".".join(map(str, path[:-1])) or "BatchNorm": leaf[...]
            for path, leaf in flat.items()
            if path[-1] == name
        }
        for name in ("mean", "var")
    )
    warn_if_untrained(means, variances)

    def fn(params: nnx.State, x: Any) -> Any:
        model = nnx.merge(graphdef, params, rest, copy=True)
        model.eval()
        norms = _norms(model)
        held = {name: norm.mean[...] for name, norm in norms.items()}
        logits = model(x, *args, **kwargs)
        _refuse({name for name, norm in norms.items() if norm.mean[...] is not held[name]})
        return logits

    return fn


def _norms(model: nnx.Module) -> dict[str, Any]:
    """The BatchNorm layers by name."""
    found = nnx.iter_modules(model)
    return {".".join(map(str, path)): m for path, m in found if isinstance(m, nnx.BatchNorm)}


def _rest(model: nnx.Module) -> nnx.State:
    """The state besides the parameters."""
    parts: tuple[Any, ...] = nnx.split(model, nnx.Param, ...)
    return parts[2]


def _set(norm: Any, mean: Array, var: Array) -> None:
    norm.mean.set_value(mean)
    norm.var.set_value(var)


class _Recording(nnx.BatchNorm):
    """A layer that keeps the statistics of its batch, through which gradients flow.

    Flax stops them where it updates the running statistics.
    """

    own_mean: nnx.BatchStat
    own_var: nnx.BatchStat

    def __call__(
        self, x: Array, use_running_average: bool | None = None, *, mask: Array | None = None
    ) -> Array:
        """Flax's own result."""
        values = (x, self.mean[...], self.var[...])
        promoted, *_ = self.promote_dtype(values, dtype=self.dtype)
        mean, var = self._moments(promoted, mask)
        self.own_mean.set_value(mean)
        self.own_var.set_value(var)
        return super().__call__(x, use_running_average, mask=mask)

    def _moments(self, x: Array, mask: Array | None) -> tuple[Array, Array]:
        """Mean and variance over all axes but those of the features, in float32 at least."""
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        features = {axis % x.ndim for axis in np.atleast_1d(self.axis)}
        axes = tuple(axis for axis in range(x.ndim) if axis not in features)

        def mean(values: Array) -> Array:
            own = jnp.mean(values, axes, where=mask)
            groups = self.axis_index_groups
            if self.axis_name is None:
                return own
            return jax.lax.pmean(own, self.axis_name, axis_index_groups=groups)

        centre = mean(x)
        if self.use_fast_variance:
            return centre, jnp.maximum(mean(jnp.square(x)) - jnp.square(centre), 0)
        return centre, mean(jnp.square(x - jnp.expand_dims(centre, axes)))


@functools.cache
def _recorder(kind: Any) -> Any:
    """The class of such layers that otherwise are of a kind of BatchNorm."""
    return _Recording if kind is nnx.BatchNorm else type(kind.__name__, (_Recording, kind), {})


@contextlib.contextmanager
def _recording(norms: Iterable[Any]) -> Iterator[None]:
    """Has layers keep the statistics of their batch, in `own_mean` and `own_var`."""
    norms = list(norms)
    kinds: list[Any] = [type(norm) for norm in norms]
    for norm, kind in zip(norms, kinds, strict=True):
        norm.own_mean = nnx.BatchStat(norm.mean[...])
        norm.own_var = nnx.BatchStat(norm.var[...])
        norm.__class__ = _recorder(kind)
    yield
    for norm, kind in zip(norms, kinds, strict=True):
        norm.__class__ = kind
        del norm.own_mean, norm.own_var


def _refuse(updated: set[str]) -> None:
    """Refuses layers that took the statistics of what is perturbed."""
    if updated:
        raise ArgumentError(
            f"{', '.join(sorted(updated))} took the statistics of perturbed images: it is called "
            "with use_running_average=False. Let model.train() and model.eval() say that."
        )
