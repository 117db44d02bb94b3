"""What is read and written at indices, and sorted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax import lax

from arithmetic.arrays import along, least, most

Array = np.ndarray
Rule = Callable[..., Any]


def _starts(shape: Sequence[int], sizes: Sequence[int], starts: Sequence[Array]) -> list[int]:
    """Where a slice begins, so that it ends inside."""
    return [min(max(int(a), 0), n - m) for a, n, m in zip(starts, shape, sizes, strict=True)]


def _dynamic_slice(args: list[Array], params: Any, aval: Any) -> Any:
    x, *starts = args
    begin = _starts(x.shape, aval.shape, starts)
    return x[tuple(slice(a, a + m) for a, m in zip(begin, aval.shape, strict=True))]


def _dynamic_update_slice(args: list[Array], params: Any, aval: Any) -> Any:
    x, update, *starts = args
    begin = _starts(x.shape, update.shape, starts)
    out = x.copy()
    out[tuple(slice(a, a + m) for a, m in zip(begin, update.shape, strict=True))] = update
    return out


# ---- gather and scatter --------------------------------------------------------------------


def _places(
    shape: Sequence[int],
    sizes: Sequence[int],
    indices: Array,
    axes: Sequence[int],
    batching: tuple[Sequence[int], Sequence[int]],
    window: dict[int, int],
    ndim: int,
    mode: Any,
) -> tuple[tuple[Array, ...], Array]:
    """Where in the operand every entry of a gather's result, or of a scatter's update, belongs.

    Args:
        shape: of the operand.
        sizes: of a window of it.
        indices: where windows begin, `[..., len(axes)]`.
        axes: which axes of the operand these are along.
        batching: axes of the operand, and those of the indices that go with them.
        window: for an axis of the operand that windows keep, the axis of the result.
        ndim: axes of the result.
        mode: what becomes of windows that are not inside.

    Returns:
        An index array an axis of the operand, and which entries are inside, all of which can be
        broadcast to the result.
    """
    batch = indices.shape[:-1]
    begin = np.zeros((*batch, len(shape)), np.int64)
    for number, axis in enumerate(axes):
        begin[..., axis] = indices[..., number]
    for axis, number in zip(*batching, strict=True):
        begin[..., axis] = np.arange(batch[number]).reshape(along(number, len(batch)))
    last = np.array(shape, np.int64) - np.array(sizes, np.int64)
    inside = ((begin >= 0) & (begin <= last)).all(-1)
    begin = np.clip(begin, 0, np.maximum(last, 0))
    if not str(mode).endswith("FILL_OR_DROP"):
        inside = np.ones_like(inside)
    others = [i for i in range(ndim) if i not in window.values()]

    def spread(x: Array) -> Array:
        full = [1] * ndim
        for axis, n in zip(others, x.shape, strict=True):
            full[axis] = n
        return x.reshape(full)

    places = [spread(begin[..., axis]) for axis in range(len(shape))]
    for axis, own in window.items():
        places[axis] = places[axis] + np.arange(sizes[axis]).reshape(along(own, ndim))
    return tuple(places), spread(inside)


def _gather(args: list[Array], params: Any, aval: Any) -> Any:
    x, indices = args
    numbers, sizes, mode = params["dimension_numbers"], params["slice_sizes"], params["mode"]
    gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    kept = [i for i in range(x.ndim) if i not in gone]
    places, inside = _places(
        *(x.shape, sizes, indices, numbers.start_index_map),
        (numbers.operand_batching_dims, numbers.start_indices_batching_dims),
        dict(zip(kept, numbers.offset_dims, strict=True)),
        *(len(aval.shape), mode),
    )
    missing = _missing(params["fill_value"], np.dtype(aval.dtype))
    if 0 in x.shape or 0 in aval.shape:
        return np.full(aval.shape, missing, aval.dtype)
    found = np.broadcast_to(x[places], aval.shape)
    return found if inside.all() else np.where(inside, found, missing)


def _missing(value: Any, dtype: np.dtype) -> Any:
    """What a gather gives where it is outside of its operand."""
    if value is not None:
        return value
    if dtype.kind in "fb":
        return {"f": np.nan, "b": True}[dtype.kind]
    return least(dtype) if dtype.kind == "i" else most(dtype)


def _overwrite(out: Array, places: tuple[Array, ...], update: Array) -> None:
    out[places] = update


def _dropping(mode: Any) -> Any:
    """What becomes of updates that are promised to be inside, and are not: they are dropped."""
    modes = lax.GatherScatterMode
    return modes.FILL_OR_DROP if mode is modes.PROMISE_IN_BOUNDS else mode


def _scatter(fn: Callable[..., None]) -> Rule:
    def rule(args: list[Array], params: Any, aval: Any) -> Any:
        x, indices, update = args
        body = params["update_jaxpr"]
        if fn is _overwrite and body is not None:
            return NotImplemented  # a function is applied instead
        numbers = params["dimension_numbers"]
        gone = {*numbers.inserted_window_dims, *numbers.operand_batching_dims}
        kept = [i for i in range(x.ndim) if i not in gone]
        window = dict(zip(kept, numbers.update_window_dims, strict=True))
        places, inside = _places(
            *(x.shape, [update.shape[window[i]] if i in window else 1 for i in range(x.ndim)]),
            *(indices, numbers.scatter_dims_to_operand_dims),
            (numbers.operand_batching_dims, numbers.scatter_indices_batching_dims),
            *(window, update.ndim, _dropping(params["mode"])),
        )
        out = x.copy()
        if not update.ndim:  # NumPy selects from a number as if it were a list of one.
            if inside.all():
                fn(out, tuple(i.reshape(()) for i in places), update)
            return out
        inside = np.broadcast_to(inside, update.shape)
        fn(out, tuple(np.broadcast_to(i, update.shape)[inside] for i in places), update[inside])
        return out

    return rule


# ---- sorting -------------------------------------------------------------------------------


def _sorted(args: list[Array], params: Any) -> list[Array]:
    """By the first operands; what is equal stays in order, and NaN comes last."""
    axis = params["dimension"]
    order = np.broadcast_to(
        np.arange(args[0].shape[axis]).reshape(along(axis, args[0].ndim)), args[0].shape
    )
    for key in reversed(args[: params["num_keys"]]):
        found = np.argsort(np.take_along_axis(key, order, axis), axis, kind="stable")
        order = np.take_along_axis(order, found, axis)
    return [np.take_along_axis(x, order, axis) for x in args]


WRITES: dict[str, Callable[..., None]] = {
    "scatter": _overwrite,
    "scatter-add": np.add.at,
    "scatter-sub": np.subtract.at,
    "scatter-mul": np.multiply.at,
    "scatter-max": np.maximum.at,
    "scatter-min": np.minimum.at,
}

RULES: dict[str, Rule] = {
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "gather": _gather,
    **{name: _scatter(fn) for name, fn in WRITES.items()},
}

SEVERAL: dict[str, Callable[[list[Array], Any], list[Array]]] = {"sort": _sorted}
