"""BatchNorm and dropout of flax nnx in certified training; see `jaxlirpa.train.linen`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from flax import nnx

from jaxlirpa._typing import Array


class Shared(NamedTuple):
    """A network with the statistics of one batch.

    Attributes:
        fn: of (params, x) to what the module returns, with the statistics of the clean batch and
            the same dropout; of the same shape of x.
        logits: what it returns of the clean batch: flax's own output in training mode.
        rest: the new state besides the parameters: running statistics, counters of random numbers.
    """

    fn: Callable[[nnx.State, Any], Any]
    logits: Any
    rest: nnx.State


def shared_statistics(
    graphdef: Any, params: nnx.State, rest: nnx.State, x: Array, *args: Any, **kwargs: Any
) -> Shared:
    """Runs a clean batch in training mode, and shares its statistics with the bounds.

        model.train()
        graphdef, params, rest = nnx.split(model, nnx.Param, ...)

        def loss(params, rest, x, labels, eps):
            fn, logits, rest = train.nnx.shared_statistics(graphdef, params, rest, x)
            return train.certified(fn)(params, x, labels, eps).mean(), rest

    Args:
        graphdef, params, rest: of the module, as `nnx.split` returns them.
        x: the clean batch.
        *args, **kwargs: more arguments of the module.

    Returns:
        The network, its logits and the rest of the state, with new running statistics.

    Raises:
        ArgumentError: where no BatchNorm is in training mode.
    """
    raise NotImplementedError


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
        graphdef, params, rest, args, kwargs: as of `shared_statistics`.
        batches: of inputs.

    Returns:
        `rest` with these statistics.

    Raises:
        ArgumentError: where there are no batches; and as `shared_statistics`.
    """
    raise NotImplementedError


def inference(
    graphdef: Any, rest: nnx.State, *args: Any, **kwargs: Any
) -> Callable[[nnx.State, Any], Any]:
    """The network to be certified: a function of (params, x), in inference mode (`model.eval()`).

    Args:
        graphdef, rest, args, kwargs: as of `shared_statistics`.

    Warns:
        UntrainedBatchNormWarning: where statistics still have their initial values, zero and one.
    """
    raise NotImplementedError
