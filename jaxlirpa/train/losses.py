"""Losses whose value is never below that of the worst perturbation.

A network is a function `fn(params, x)` of its parameters and a batch to logits `[batch, classes]`,
of which no example influences another. In the place of `x` the losses take any set (`Box`,
`LpBall`), or `x` and, last, a radius `eps`, like the transforms. Labels are integers `[batch]`.
Every loss is one number an example, `[batch]`, to be averaged and differentiated by the user:

    loss = train.fused(model.apply)
    gradient = jax.grad(lambda params: loss(params, x, labels, eps).mean())(params)
"""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

import jaxlirpa
from jaxlirpa._arrays import where
from jaxlirpa._errors import ArgumentError
from jaxlirpa._intervals import Interval
from jaxlirpa._methods.intermediate_boxes import Transform
from jaxlirpa._methods.named_bounds import is_by_intervals
from jaxlirpa._types import Array, ArrayLike, PyTree
from jaxlirpa.sets.base import holds, poison
from jaxlirpa.train.margins import Margins, Network, bounded, margins

Loss: TypeAlias = Callable[..., Any]


def cross_entropy(margins: Array) -> Array:
    """The cross entropy of softmax, from margins.

    It rises in every margin: of upper bounds of the margins it is an upper bound of the loss.

    Args:
        margins: `[..., classes]`, zero at the label.

    Returns:
        `log(sum(exp(margins)))` over the last axis.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxlirpa import train
        >>> print(train.cross_entropy(jnp.array([[0.0, -50.0], [100.0, 0.0]])))
        [  0. 100.]
    """
    return jax.nn.logsumexp(margins, axis=-1)


def verified(upper: Array, labels: Array) -> Array:
    """Whether upper bounds of the margins prove that no other class can be ahead.

    Args:
        upper: `[batch, classes]`, by any transform of `margins(fn)`; the margins themselves at one
            point, to ask whether that one is classified as labelled.
        labels: `[batch]`.

    Returns:
        Booleans, `[batch]`. False where a bound is NaN or infinite.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxlirpa import train
        >>> print(train.verified(jnp.array([[0.0, -1.0], [2.0, 0.0]]), jnp.array([0, 1])))
        [ True False]
    """
    own = jnp.arange(upper.shape[-1]) == labels[..., None]
    return jnp.all(own | (upper < 0), axis=-1)


def natural(fn: Network) -> Loss:
    """The cross entropy of what is not perturbed.

    Args:
        fn: the network.

    Returns:
        A function of (params, x, labels) to `[batch]`.

    Raises:
        ArgumentError: as `margins`.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxlirpa import train
        >>> fn = lambda params, x: x @ params
        >>> print(train.natural(fn)(jnp.array([[0.0, 30.0]]), jnp.array([[1.0]]), jnp.array([0])))
        [30.]
    """
    return lambda params, x, labels: cross_entropy(margins(fn)(params, x, labels))


def certified(
    fn: Network, transform: Transform = jaxlirpa.ibp, *, with_boxes: bool = False
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

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxlirpa import train
        >>> fn = lambda params, x: x @ params
        >>> w, x, y = jnp.array([[0.0, 30.0]]), jnp.array([[1.0]]), jnp.array([0])
        >>> print(train.certified(fn)(w, x, y, 0.5))
        [45.]
    """

    def loss(params: PyTree, x: Any, labels: Array, eps: ArrayLike | None = None) -> Any:
        args = (params, x, labels)
        found = bounded(fn, args, eps, jaxlirpa.ibp)
        if is_by_intervals(transform):
            upper = found.box().upper
        elif eps is None:
            upper = transform(margins(fn))(*args).upper
        else:
            upper = transform(margins(fn), argnums=1)(*args, eps).upper
        return _with(found, cross_entropy(upper), with_boxes)

    return loss


def fused(
    fn: Network, intermediate: Transform | None = jaxlirpa.ibp, *, with_boxes: bool = False
) -> Loss:
    """The upper bound of the loss itself (Xu et al. 2020): one row, however many classes.

    Write `m` for the margins, `[l, u]` for their box and `s` for any number. As `exp` lies below
    its chord on every `[l_j, u_j]`, `sum(exp(m - s))` is at most

        sum_j exp(l_j - s) + c_j (m_j - l_j),     c_j = (exp(u_j - s) - exp(l_j - s)) / (u_j - l_j)

    for all m in the box, and of this the backward pass finds the maximum, in one row. The logarithm
    is taken of that maximum, as it rises: a tangent of it, taken beforehand, would lie above. The
    loss is that plus s, which is the largest u_j, so that nothing overflows. It is intersected with
    the cross entropy of u.

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
        As `certified`; ArgumentError also for a beta that is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxlirpa import train
        >>> fn = lambda params, x: x @ params
        >>> w, x, y = jnp.array([[0.0, 30.0]]), jnp.array([[1.0]]), jnp.array([0])
        >>> print(train.fused(fn)(w, x, y, 0.5), train.fused(fn)(w, x, y, 0.5, beta=0.0))
        [45.] [45.]
    """

    def loss(
        params: PyTree,
        x: Any,
        labels: Array,
        eps: ArrayLike | None = None,
        *,
        beta: ArrayLike = 1.0,
    ) -> Any:
        wanted = not is_by_intervals(intermediate)
        found = bounded(fn, (params, x, labels), eps, intermediate, wanted)
        box = found.box()
        outer = cross_entropy(box.upper)
        losses = _mixed(outer, lambda: _inside(outer, _fused(found, box)), beta)
        return _with(found, losses, with_boxes)

    return loss


def _fused(found: Margins, box: Interval) -> Array:
    """The bound of the loss by one row; see `fused`."""
    shift = jax.lax.stop_gradient(jnp.max(box.upper, 1, keepdims=True))
    low = jnp.exp(box.lower - shift)
    width = box.upper - box.lower
    wide = width > 0
    # (exp(u) - exp(l)) / (u - l), without cancellation.
    ratio = where(wide, -jnp.expm1(-width) / where(wide, width, 1), 1)
    above = found.weighted(jnp.exp(box.upper - shift) * ratio, box.lower)
    # In each class two terms may have been too small for a number, which zero would be below.
    total = jnp.sum(low + 2 * jnp.finfo(low.dtype).tiny, 1) + above
    return jnp.log(total) + shift[:, 0]


def crown_ibp(fn: Network, *, with_boxes: bool = False) -> Loss:
    """The loss of CROWN-IBP (Zhang et al. 2020): of a mixture of two bounds of every margin.

    Args:
        fn: the network.
        with_boxes: as of `certified`.

    Returns:
        A function as that of `fused`, whose keyword `beta` is the share of the CROWN-IBP bounds of
        the margins, the rest being interval bounds. The backward pass has one row a class.

    Raises:
        As `fused`.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxlirpa import train
        >>> fn = lambda params, x: x @ params
        >>> w, x, y = jnp.array([[0.0, 30.0]]), jnp.array([[1.0]]), jnp.array([0])
        >>> print(train.crown_ibp(fn)(w, x, y, 0.5, beta=0.5))
        [45.]
    """

    def loss(
        params: PyTree,
        x: Any,
        labels: Array,
        eps: ArrayLike | None = None,
        *,
        beta: ArrayLike = 1.0,
    ) -> Any:
        found = bounded(fn, (params, x, labels), eps, jaxlirpa.ibp)
        outer = found.box().upper
        upper = _mixed(outer, lambda: _inside(outer, found.crown().upper), beta)
        return _with(found, cross_entropy(upper), with_boxes)

    return loss


def _inside(outer: Array, inner: Array) -> Array:
    """The smaller of two upper bounds; what could not be computed is none."""
    return where(inner < outer, inner, outer)


def _mixed(outer: Array, inner: Callable[[], Array], beta: ArrayLike) -> Array:
    """The weighted mean of two bounds, the second of which is only computed where it counts."""
    proper = (jnp.asarray(beta) >= 0) & (jnp.asarray(beta) <= 1)
    if jnp.shape(beta) != () or not holds(proper):
        raise ArgumentError(f"beta is a share, one number from 0 to 1, and not {beta}.")
    if isinstance(beta, numbers.Number):
        if beta == 0:
            return outer
        return inner() if beta == 1 else beta * inner() + (1 - beta) * outer
    beta = poison(jnp.asarray(beta, outer.dtype), proper)
    return jax.lax.cond(beta == 0, lambda: outer, lambda: beta * inner() + (1 - beta) * outer)


def _with(found: Margins, losses: Array, with_boxes: bool) -> Any:
    return (losses, found.boxes()) if with_boxes else losses
