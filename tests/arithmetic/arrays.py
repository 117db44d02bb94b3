"""Shapes, selections, reductions and products of whole arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Array = np.ndarray
Rule = Callable[..., Any]


def least(dtype: Any) -> Any:
    """What no number of that type is smaller than."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return False
    return -np.inf if dtype.kind == "f" else np.iinfo(dtype).min


def most(dtype: Any) -> Any:
    """What no number of that type is larger than."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return True
    return np.inf if dtype.kind == "f" else np.iinfo(dtype).max


def along(axis: int, ndim: int) -> list[int]:
    """The shape of an array of `ndim` axes all of whose entries are along one."""
    return [-1 if i == axis else 1 for i in range(ndim)]


# ---- shapes --------------------------------------------------------------------------------


def _broadcast(args: list[Array], params: Any, aval: Any) -> Any:
    shape = [1] * len(aval.shape)
    for size, axis in zip(args[0].shape, params["broadcast_dimensions"], strict=True):
        shape[axis] = size
    return np.broadcast_to(args[0].reshape(shape), aval.shape)


def _reshape(args: list[Array], params: Any, aval: Any) -> Any:
    order = params["dimensions"]
    return (args[0] if order is None else args[0].transpose(order)).reshape(aval.shape)


def _iota(args: list[Array], params: Any, aval: Any) -> Any:
    axis = params["dimension"]
    line = np.arange(aval.shape[axis]).astype(aval.dtype)
    return np.broadcast_to(line.reshape(along(axis, len(aval.shape))), aval.shape)


def _slice(args: list[Array], params: Any, aval: Any) -> Any:
    strides = params["strides"] or [1] * args[0].ndim
    limits = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return args[0][tuple(slice(*limit) for limit in limits)]


def _select(args: list[Array], params: Any, aval: Any) -> Any:
    which, *cases = args
    if len(cases) == 2:
        return np.where(which, cases[1], cases[0])
    found = cases[0]
    for number, case in enumerate(cases[1:], 1):
        found = np.where(which >= number, case, found)
    return found


# ---- reductions ----------------------------------------------------------------------------


def _reduced(fn: Callable[..., Any], start: Callable[[Any], Any] | None = None) -> Rule:
    def rule(args: list[Array], params: Any, aval: Any) -> Any:
        options = {} if start is None else {"initial": start(args[0].dtype)}
        return fn(args[0], axis=tuple(params["axes"]), **options)

    return rule


def _place(fn: Callable[..., Any]) -> Rule:
    return lambda args, params, aval: fn(args[0], params["axes"][0])


def _accumulated(fn: Callable[..., Any]) -> Rule:
    def rule(args: list[Array], params: Any, aval: Any) -> Any:
        x, axis = args[0], params["axis"]
        if params["reverse"]:
            return np.flip(fn(np.flip(x, axis), axis), axis)
        return fn(x, axis)

    return rule


# ---- products ------------------------------------------------------------------------------


def _product(args: list[Array], params: Any, aval: Any) -> Any:
    (left, right), (left_batch, right_batch) = params["dimension_numbers"]
    x, y = (a.astype(aval.dtype) for a in args)
    left_free = [i for i in range(x.ndim) if i not in (*left, *left_batch)]
    right_free = [i for i in range(y.ndim) if i not in (*right, *right_batch)]

    def matrices(a: Array, *axes: Sequence[int]) -> Array:
        sizes = [int(np.prod([a.shape[i] for i in group], dtype=int)) for group in axes]
        return a.transpose([i for group in axes for i in group]).reshape(sizes)

    product = matrices(x, left_batch, left_free, left) @ matrices(y, right_batch, right, right_free)
    return product.reshape(aval.shape)


RULES: dict[str, Rule] = {
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "squeeze": lambda args, params, aval: args[0].reshape(aval.shape),
    "transpose": lambda args, params, aval: args[0].transpose(params["permutation"]),
    "rev": lambda args, params, aval: np.flip(args[0], params["dimensions"]),
    "concatenate": lambda args, params, aval: np.concatenate(args, params["dimension"]),
    "stack": lambda args, params, aval: np.stack(args, params["axis"]),
    "tile": lambda args, params, aval: np.tile(args[0], params["reps"]),
    "iota": _iota,
    "slice": _slice,
    "select_n": _select,
    "reduce_sum": _reduced(np.sum),
    "reduce_prod": _reduced(np.prod),
    "reduce_max": _reduced(np.max, least),
    "reduce_min": _reduced(np.min, most),
    "reduce_and": _reduced(np.bitwise_and.reduce),
    "reduce_or": _reduced(np.bitwise_or.reduce),
    "argmax": _place(np.argmax),
    "argmin": _place(np.argmin),
    "cumsum": _accumulated(np.cumsum),
    "cumprod": _accumulated(np.cumprod),
    "cummax": _accumulated(np.maximum.accumulate),
    "cummin": _accumulated(np.minimum.accumulate),
    "cumlogsumexp": _accumulated(np.logaddexp.accumulate),
    "dot_general": _product,
}


def _unstacked(args: list[Array], params: Any) -> list[Array]:
    return list(np.moveaxis(args[0], params["axis"], 0))


SEVERAL: dict[str, Callable[[list[Array], Any], list[Array]]] = {
    "split": lambda args, p: np.split(args[0], np.cumsum(p["sizes"])[:-1], p["axis"]),
    "unstack": _unstacked,
}
