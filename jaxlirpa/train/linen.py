"""BatchNorm and dropout of flax linen in certified training.

Statistics of a batch depend on all of its images. Where the images are perturbed, so would the
statistics be. What is trained instead (Shi et al. 2021) is the network with the statistics of the
clean batch: they are numbers as the weights are, through which gradients flow, and no perturbation
changes them. `shared_statistics` runs the clean batch once and returns that network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn

from jaxlirpa._typing import Array, PyTree


class Shared(NamedTuple):
    """A network with the statistics of one batch.

    Attributes:
        fn: of (params, x) to what the module returns, with the statistics of the clean batch and
            the same dropout; of the same shape of x.
        logits: what it returns of the clean batch: flax's own output in training mode.
        batch_stats: the new running statistics.
    """

    fn: Callable[[PyTree, Any], Any]
    logits: Any
    batch_stats: PyTree


def shared_statistics(
    module: nn.Module, variables: Mapping[str, Any], x: Array, *args: Any, rngs: Any = None, **kwargs: Any
) -> Shared:
    """Runs a clean batch in training mode, and shares its statistics with the bounds.

        def loss(params, batch_stats, x, labels, eps):
            variables = {"params": params, "batch_stats": batch_stats}
            fn, logits, batch_stats = train.linen.shared_statistics(model, variables, x, train=True)
            return train.certified(fn)(params, x, labels, eps).mean(), batch_stats

    Args:
        module: its BatchNorm layers that are in training mode take the statistics of the batch;
            those that use running averages are left alone.
        variables: of the module: "params", "batch_stats", and other collections, which are only
            read.
        x: the clean batch.
        *args, **kwargs: more arguments of the module, such as `train=True`.
        rngs: of the module: a key of "dropout" gives the same masks to the clean batch and to the
            bounds.

    Returns:
        The network, its logits and the new running statistics.

    Raises:
        ArgumentError: where no BatchNorm is in training mode or there are no "batch_stats".
    """
    raise NotImplementedError


def precise_statistics(
    module: nn.Module,
    variables: Mapping[str, Any],
    batches: Iterable[Array],
    *args: Any,
    rngs: Any = None,
    **kwargs: Any,
) -> PyTree:
    """The statistics of a whole training set (precise-BN), in place of running averages.

    Means of batches are averaged, weighted by their sizes, and so are variances, to which the
    variance of those means is added.

    Args:
        module, variables, args, rngs, kwargs: as of `shared_statistics`.
        batches: of inputs.

    Returns:
        New "batch_stats".

    Raises:
        ArgumentError: where there are no batches; and as `shared_statistics`.
    """
    raise NotImplementedError


def inference(
    module: nn.Module, variables: Mapping[str, Any], *args: Any, **kwargs: Any
) -> Callable[[PyTree, Any], Any]:
    """The network to be certified: a function of (params, x), with running statistics.

    Args:
        module, variables, args, kwargs: as of `shared_statistics`; such as `train=False`.

    Returns:
        The function; "params" of the variables are not used.

    Raises:
        ArgumentError: where a BatchNorm is in training mode, by the returned function.

    Warns:
        UntrainedBatchNormWarning: where statistics still have their initial values, zero and one.
    """
    raise NotImplementedError
