"""Losses that are upper bounds of the loss under the worst perturbation.

A network is a function `fn(params, x)` that returns logits `[batch, classes]`, in which examples do
not influence each other. Like the transforms, losses take a set (`Box`, `LpBall`) in place of `x`,
or `x` and a radius `eps` as the last argument. Labels are integers `[batch]`. Every loss returns
one number for each example, `[batch]`, which the user averages and differentiates:

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
from jaxlirpa._types import Array, ArrayLike, PyTree
from jaxlirpa.sets.base import holds, poison
from jaxlirpa.train.margins import Margins, Network, bounded, margins

Loss: TypeAlias = Callable[..., Any]


def cross_entropy(margins: Array) -> Array:
    """The cross entropy of softmax, from margins.

    It increases in every margin, so upper bounds of the margins give an upper bound of the loss.

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
    """Whether upper bounds of the margins prove that no other class can be predicted.

    Args:
        upper: `[batch, classes]`, from any transform of `margins(fn)`. Pass the margins themselves
            to ask whether a point is classified correctly.
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
    """The cross entropy without perturbation.

    Args:
        fn: the network.

    Returns:
        A function of (params, x, labels) that returns `[batch]`.

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
        transform: bounds the margins: `ibp` (Gowal et al. 2018), or any other transform, with
            options by `functools.partial`. A linear method carries one row for each class.
        with_boxes: also return the interval `Boxes` inside the network, which the regularisers
            need. With `ibp` they cost nothing extra.

    Returns:
        A function of (params, x, labels), where x is a set, or of (params, x, labels, eps). It
        returns `[batch]`, or a pair of that and `Boxes`.

    Raises:
        ArgumentError: by the returned function, as `jaxlirpa.ibp`; also where examples influence
            each other, and where labels are known and are no classes.

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
        if transform == jaxlirpa.ibp:
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
    """An upper bound of the loss itself (Xu et al. 2020): one row, however many classes.

    Let `m` be the margins, `[l, u]` their box and `s` any number. `exp` lies below its chord on
    every `[l_j, u_j]`, so for all m in the box `sum(exp(m - s))` is at most

        sum_j exp(l_j - s) + c_j (m_j - l_j),     c_j = (exp(u_j - s) - exp(l_j - s)) / (u_j - l_j)

    The backward pass finds the maximum of this, in one row. The loss is the logarithm of that
    maximum, plus s. (The logarithm is increasing, so it may be taken last; a tangent of it would be
    looser.) With the largest u_j for s nothing overflows. The result is intersected with the cross
    entropy of u.

    Args:
        fn: the network.
        intermediate: how the values inside the network and the margins are bounded, as for
            `jaxlirpa.crown`. The default makes it CROWN-IBP with loss fusion.
        with_boxes: as for `certified`.

    Returns:
        A function of (params, x, labels), where x is a set, or of (params, x, labels, eps), that
        returns `[batch]`. It takes a keyword `beta` from 0 to 1, by default 1, which may be traced:
        the weight of the fused bound; the rest is the weight of the interval bound. If it is 0,
        even if only known at run time, there is no backward pass.

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
        wanted = intermediate != jaxlirpa.ibp
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
    """The loss of CROWN-IBP (Zhang et al. 2020): of a weighted mean of two bounds of every margin.

    Args:
        fn: the network.
        with_boxes: as for `certified`.

    Returns:
        A function like that of `fused`. Its keyword `beta` is the weight of the CROWN-IBP bounds of
        the margins; the rest is the weight of interval bounds. The backward pass has one row for
        each class.

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
    """The smaller of two upper bounds; one that is NaN does not count."""
    return where(inner < outer, inner, outer)


def _mixed(outer: Array, inner: Callable[[], Array], beta: ArrayLike) -> Array:
    """The weighted mean of two bounds; the second is only computed if its weight is not zero."""
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
