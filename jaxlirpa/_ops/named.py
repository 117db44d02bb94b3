"""Library functions that are bounded whole, by the name that their `jit` leaves in a trace."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from jaxlirpa._arrays import where
from jaxlirpa._graph.recognise import LibraryFunction, Vocabulary
from jaxlirpa._types import Array


def _whole(function: Callable[[Array], Array], primitive: str) -> tuple[LibraryFunction, ...]:
    """A function without parameters."""
    return (LibraryFunction(function, primitive, operands=lambda x: (x,), evaluate=function),)


def _with_parameter(
    function: Callable[[Array, Array], Array], primitive: str, default: float
) -> tuple[LibraryFunction, ...]:
    """A function of one parameter, which has a default."""

    def operands(x: Any, value: Any = default) -> tuple[Any, Any]:
        return x, value

    return (LibraryFunction(function, primitive, operands, function),)


def _as_they_are(*operands: Any) -> tuple[Any, ...]:
    return operands


def _searches() -> Iterator[LibraryFunction]:
    """All ways to search: they differ only where the entries are not sorted."""
    methods = "scan", "scan_unrolled", "sort", "compare_all"
    for side, method in itertools.product(("left", "right"), methods):

        def search(entries: Array, values: Array, side: str = side, method: str = method) -> Array:
            return jnp.searchsorted(entries, values, side, method=method)

        params = {"side": side, "method": method}
        yield LibraryFunction(search, "searchsorted", _as_they_are, search, params, entrywise=False)


def _interpolations() -> Iterator[LibraryFunction]:
    """In a known table, for arrays and for functions of a number that are mapped over arrays."""
    ends: list[str | None] = [None, "extrapolate", "given"]
    for mapped, left, right in itertools.product(range(3), ends, ends):
        yield _interpolation(mapped, left, right, periodic=False)
    for mapped in range(3):
        yield _interpolation(mapped, None, None, periodic=True)


def _interpolation(
    mapped: int, left: str | None, right: str | None, *, periodic: bool
) -> LibraryFunction:
    def interpolated(x: Array, xs: Array, ys: Array, *others: Array) -> Array:
        if len(others) != [left, right].count("given") + periodic:
            raise TypeError("the function takes another number of operands")
        rest = iter(others)
        first, last = (next(rest) if end == "given" else end for end in (left, right))
        return jnp.interp(x, xs, ys, first, last, next(rest, None))

    def reference(x: Array, *table: Array) -> Array:
        function = interpolated
        for _ in range(mapped):
            function = jax.vmap(function, (0, *[None] * len(table)))
        return function(x, *table)

    params = {"left": left, "right": right, "periodic": periodic}
    return LibraryFunction(
        reference,
        "interp",
        _as_they_are,
        interpolated,
        params,
        entrywise=False,
        kept=lambda positions: tuple(positions) == (0,),
    )


VOCABULARY: Vocabulary = {
    "leaky_relu": (
        LibraryFunction(
            jax.nn.leaky_relu,
            primitive="leaky_relu",
            operands=lambda x, slope=0.01: (x, slope),
            evaluate=lambda x, slope: where(x >= 0, x, slope * x),
        ),
    ),
    "hard_tanh": (
        LibraryFunction(
            jax.nn.hard_tanh,
            primitive="clamp",
            operands=lambda x: (-1.0, x, 1.0),
            evaluate=jax.lax.clamp,
        ),
    ),
    "searchsorted": tuple(_searches()),
    "sinc": _whole(jnp.sinc, "sinc"),
    "_interp": tuple(_interpolations()),
    "elu": _with_parameter(jax.nn.elu, "elu", 1.0),
    "celu": _with_parameter(jax.nn.celu, "celu", 1.0),
    "squareplus": _with_parameter(jax.nn.squareplus, "squareplus", 4.0),
    "silu": _whole(jax.nn.silu, "silu"),
    "hard_silu": _whole(jax.nn.hard_silu, "hard_silu"),
    "softplus": _whole(jax.nn.softplus, "softplus"),
    "log_sigmoid": _whole(jax.nn.log_sigmoid, "log_sigmoid"),
    "selu": _whole(jax.nn.selu, "selu"),
    "mish": _whole(jax.nn.mish, "mish"),
    "soft_sign": _whole(jax.nn.soft_sign, "soft_sign"),
    "sparse_plus": _whole(jax.nn.sparse_plus, "sparse_plus"),
}
