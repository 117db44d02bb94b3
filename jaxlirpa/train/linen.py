"""BatchNorm and dropout of flax linen in certified training.

The statistics of a batch depend on all of its images, so perturbing an image would perturb them.
Certified training therefore uses the network with the statistics of the clean batch (Shi et al.
2021). Gradients flow through these statistics, but no perturbation changes them.
`shared_statistics` runs the clean batch once and returns that network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxlirpa._errors import ArgumentError
from jaxlirpa._types import Array, PyTree
from jaxlirpa.train.statistics import Moments, pooled, warn_if_untrained

_STATS = "batch_stats"
_OF_BATCH = {"mean": "mean_of_batch", "var": "var_of_batch"}


class Shared(NamedTuple):
    """A network with the statistics of one batch.

    Attributes:
        fn: the module as a function of (params, x), with the statistics and the dropout masks of
            the clean batch; x has the shape of that batch.
        logits: the module's output on the clean batch, as in flax's training mode.
        batch_stats: the new running statistics.
        of_batch: the statistics of the clean batch, in the structure of `batch_stats`.
    """

    fn: Callable[[PyTree, Any], Any]
    logits: Any
    batch_stats: PyTree
    of_batch: PyTree


def shared_statistics(
    module: nn.Module,
    variables: Mapping[str, Any],
    x: Array,
    *args: Any,
    rngs: Any = None,
    **kwargs: Any,
) -> Shared:
    """Runs a clean batch in training mode and returns the network with its statistics fixed.

    Call it inside the function that is differentiated, so that gradients flow through the
    statistics as well:

        def loss(params, batch_stats, x, labels, eps):
            variables = {"params": params, "batch_stats": batch_stats}
            shared = train.linen.shared_statistics(model, variables, x, train=True)
            worst = train.certified(shared.fn)(params, x, labels, eps)
            return worst.mean(), shared.batch_stats

    Args:
        module: the network. Its BatchNorm layers in training mode use the statistics of the clean
            batch; those that use running averages are unchanged.
        variables: the module's "params", "batch_stats" and other collections, which are only read.
            "batch_stats" may be missing if there is no BatchNorm; then only dropout is shared.
        x: the clean batch.
        *args, **kwargs: more arguments of the module, such as `train=True`.
        rngs: the module's random keys. With one for "dropout", the clean batch and the bounds have
            the same masks.

    Returns:
        The network, its logits and the new running statistics.

    Raises:
        ArgumentError: where there are "batch_stats" but no BatchNorm is in training mode, or where
            one has momentum 1.
    """
    others = {name: value for name, value in variables.items() if name != _STATS}
    stats = variables.get(_STATS, {})
    with nn.intercept_methods(_recording):
        logits, updated = module.apply(variables, x, *args, rngs=rngs, mutable=[_STATS], **kwargs)
    running, of_batch = _separated(updated.get(_STATS, {}))
    if stats and not of_batch:
        raise ArgumentError(
            f"no BatchNorm of {type(module).__name__} is in training mode, so there are no "
            "statistics of the batch to share. Say so, often by train=True; or use the module as "
            "it is."
        )

    def fn(params: PyTree, x: Any) -> Any:
        fixed = {**others, "params": params, _STATS: unflatten_dict({**running, **of_batch})}
        with nn.intercept_methods(_fixed):
            return module.apply(fixed, x, *args, rngs=rngs, **kwargs)

    return Shared(fn, logits, unflatten_dict(running), unflatten_dict({**running, **of_batch}))


def precise_statistics(
    module: nn.Module,
    variables: Mapping[str, Any],
    batches: Iterable[Array],
    *args: Any,
    rngs: Any = None,
    **kwargs: Any,
) -> PyTree:
    """The statistics of a whole training set (precise-BN), in place of running averages.

    The means and the variances of the batches are averaged, weighted by batch size. The variance of
    the means is added to the averaged variance.

    Args:
        module, variables, args, rngs, kwargs: as for `shared_statistics`.
        batches: batches of inputs.

    Returns:
        New "batch_stats".

    Raises:
        ArgumentError: as `shared_statistics`; also where there are no batches.
    """

    @jax.jit
    def moments(variables: Mapping[str, Any], x: Array) -> tuple[PyTree, PyTree]:
        found = shared_statistics(module, variables, x, *args, rngs=rngs, **kwargs).of_batch
        return _named(found, "mean"), _named(found, "var")

    total = None
    for x in batches:
        mean, var = moments(variables, x)
        own = Moments(mean, var, len(x))
        total = own if total is None else pooled(total, own)
    if total is None:
        raise ArgumentError("there are no batches to take statistics of.")
    flat = flatten_dict(variables[_STATS])
    for name, tree in (("mean", total.mean), ("var", total.var)):
        flat.update({(*path, name): value for path, value in tree.items()})
    return unflatten_dict(flat)


def inference(
    module: nn.Module, variables: Mapping[str, Any], *args: Any, **kwargs: Any
) -> Callable[[PyTree, Any], Any]:
    """The network for certification: a function of (params, x), with the running statistics.

    Args:
        module, variables, args, kwargs: as for `shared_statistics`; pass `train=False`, say. The
            "params" among the variables are not used.

    Returns:
        The function.

    Raises:
        ArgumentError: by the returned function, where a BatchNorm is in training mode.

    Warns:
        UntrainedBatchNormWarning: where statistics still have their initial values, zero and one.
    """
    others = {name: value for name, value in variables.items() if name != "params"}
    stats = others.get(_STATS, {})
    means, variances = (
        {"/".join(path) or "BatchNorm": value for path, value in _named(stats, name).items()}
        for name in ("mean", "var")
    )
    warn_if_untrained(means, variances)

    def fn(params: PyTree, x: Any) -> Any:
        with nn.intercept_methods(_refusing):
            return module.apply({**others, "params": params}, x, *args, **kwargs)

    return fn


def _named(stats: PyTree, name: str) -> dict[tuple[str, ...], Array]:
    """The leaves of one name, by the path of their module."""
    flat = flatten_dict(stats).items()
    return {path[:-1]: value for path, value in flat if path[-1] == name}


def _separated(stats: PyTree) -> tuple[dict[tuple[str, ...], Array], dict[tuple[str, ...], Array]]:
    """The running statistics, and those of the batch under the names of the running ones."""
    own = {name: flat for flat, name in _OF_BATCH.items()}
    flat = flatten_dict(stats)
    running = {path: value for path, value in flat.items() if path[-1] not in own}
    of_batch = {
        (*path[:-1], own[path[-1]]): value for path, value in flat.items() if path[-1] in own
    }
    return running, of_batch


def _in_training(context: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call is of a BatchNorm in training mode."""
    if not isinstance(context.module, nn.BatchNorm) or context.method_name != "__call__":
        return False
    given = args[1] if len(args) > 1 else kwargs.get("use_running_average")
    flag = context.module.use_running_average if given is None else given
    return flag is not None and not flag


def _recording(
    call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], context: Any
) -> Any:
    """Stores the statistics of the batch next to the running ones.

    They are read off the update: from running statistics of zero, flax's new running statistics are
    `1 - momentum` times those of the batch.
    """
    if not _in_training(context, args, kwargs):
        return call(*args, **kwargs)
    module = context.module
    momentum = module.momentum
    if momentum == 1:
        raise ArgumentError("a BatchNorm of momentum 1 never takes over any statistics.")
    running = {name: module.get_variable(_STATS, name) for name in _OF_BATCH}
    for name, value in running.items():
        module.put_variable(_STATS, name, jnp.zeros_like(value))
    result = call(*args, **kwargs)
    for name, value in running.items():
        part = module.get_variable(_STATS, name)
        module.put_variable(_STATS, name, momentum * value + part)
        module.put_variable(_STATS, _OF_BATCH[name], part / (1 - momentum))
    return result


def _fixed(
    call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], context: Any
) -> Any:
    """Normalises by the stored statistics, instead of those of the batch at hand."""
    if not _in_training(context, args, kwargs):
        return call(*args, **kwargs)
    module = context.module
    still = module.clone(parent=None, name=None, use_running_average=True)
    x = args[0] if args else kwargs["x"]
    return still.apply(module.variables, x)


def _refusing(
    call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], context: Any
) -> Any:
    """Raises if a BatchNorm is in training mode."""
    if _in_training(context, args, kwargs):
        name = "/".join(context.module.path) or type(context.module).__name__
        raise ArgumentError(
            f"{name} is in training mode: its statistics would be those of perturbed images. Use "
            "running averages (often train=False) to evaluate, and shared_statistics to train."
        )
    return call(*args, **kwargs)
