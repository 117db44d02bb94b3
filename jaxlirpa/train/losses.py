"""Losses whose value is never below that of the worst perturbation.

A network is a function `fn(params, x)` of its parameters and a batch to logits `[batch, classes]`,
of which no example influences another. In the place of `x` the losses take any set (`Box`,
`LpBall`), or `x` and, last, a radius `eps`, like the transforms. Labels are integers `[batch]`.
Every loss is one number an example, `[batch]`, to be averaged and differentiated by the user:

    loss = train.fused(model.apply)
    gradient = jax.grad(lambda params: loss(params, x, labels, eps).mean())(params)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jaxlirpa
from jaxlirpa._typing import Array, ArrayLike, PyTree

Network = Callable[[PyTree, Any], Array]
Loss = Callable[..., Any]


def margins(fn: Network) -> Callable[[PyTree, Array, Array], Array]:
    """The specification that all losses are made of: how far the other classes are ahead.

    Args:
        fn: the network.

    Returns:
        A function of (params, x, labels) to `logits - logits[label]`, `[batch, classes]`: zero at
        the label, and negative elsewhere where the network classifies as labelled. The transforms
        bound it together with the last layer. NaN where a label is not a class.

    Example:
        >>> import jax.numpy as jnp, jaxlirpa
        >>> from jaxlirpa import train
        >>> fn = lambda params, x: x @ params
        >>> w, x, y = jnp.array([[1.0, -1.0]]), jnp.array([[2.0]]), jnp.array([0])
        >>> print(jaxlirpa.ibp(train.margins(fn))(w, jaxlirpa.Box(x - 1, x + 1), y).upper)
        [[ 0. -2.]]
    """
    raise NotImplementedError


def cross_entropy(margins: Array) -> Array:
    """The cross entropy of softmax, from margins.

    It rises in every margin: of upper bounds of the margins it is an upper bound of the loss.

    Args:
        margins: `[batch, classes]`, zero at the label; or more leading axes.

    Returns:
        `log(sum(exp(margins)))` over the last axis.
    """
    raise NotImplementedError


def natural(fn: Network) -> Loss:
    """The cross entropy of what is not perturbed.

    Args:
        fn: the network.

    Returns:
        A function of (params, x, labels) to `[batch]`.
    """
    raise NotImplementedError


def certified(
    fn: Network,
    transform: Callable[..., Callable[..., Any]] = jaxlirpa.ibp,
    *,
    with_boxes: bool = False,
) -> Loss:
    """The cross entropy of upper bounds of the margins.

    Args:
        fn: the network.
        transform: bounds the margins: `ibp` (Gowal et al. 2018), or any other, with options by
            `functools.partial`. One row a class, where it is a linear method.
        with_boxes: return also the `Boxes` inside the network, by intervals, which the
            regularisers read. With `ibp` they cost nothing more.

    Returns:
        A function of (params, x, labels), x being a set, or of (params, x, labels, eps), to
        `[batch]`; or to a pair of that and `Boxes`.

    Raises:
        ArgumentError: where labels are no classes, as far as that is known outside of `jax.jit`,
            or examples influence one another; and as `jaxlirpa.ibp`. By the returned function.
    """
    raise NotImplementedError


def fused(
    fn: Network,
    intermediate: Callable[..., Callable[..., Any]] | None = jaxlirpa.ibp,
    *,
    with_boxes: bool = False,
) -> Loss:
    """The upper bound of the loss itself (Xu et al. 2020): one row, however many classes.

    Args:
        fn: the network.
        intermediate: how the values inside the network and the margins are bounded, as of
            `jaxlirpa.crown`; the default makes it CROWN-IBP with loss fusion.
        with_boxes: as of `certified`.

    Returns:
        A function of (params, x, labels), x being a set, or of (params, x, labels, eps), to
        `[batch]`. As a keyword it takes `beta`, from 0 to 1, by default 1: the share of the fused
        bound, the rest being the loss of interval bounds; may be traced. Where it is 0, nothing is
        carried backwards: also where that is known at run time only.

    Raises:
        As `certified`.
    """
    raise NotImplementedError


def crown_ibp(fn: Network, *, with_boxes: bool = False) -> Loss:
    """The loss of CROWN-IBP (Zhang et al. 2020): of a mixture of two bounds of every margin.

    Args:
        fn: the network.
        with_boxes: as of `certified`.

    Returns:
        A function as that of `fused`, whose keyword `beta` is the share of the CROWN-IBP bounds of
        the margins, the rest being interval bounds. The backward pass has one row a class.

    Raises:
        As `certified`.
    """
    raise NotImplementedError
