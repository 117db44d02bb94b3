"""Complex numbers: each is two real ones, its parts, and these are bounded.

A node of complex numbers is kept as it is, and nothing reads it in the end: beside it stand the
nodes of its parts, on which what reads it goes on. What is done to complex numbers is a function of
parts here, in real arithmetic; Fourier transforms are the matrices that they are. A function that
is not among them is refused, as a node that makes complex numbers of the parts.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlirpa._graph.graph import Node, Ref, Value
from jaxlirpa._graph.trace import ANY, Builder, Rule
from jaxlirpa._ops import movement
from jaxlirpa._ops.rules.dataflow import sole
from jaxlirpa._types import Array, Shaped

# Entries of the largest matrix that a transform of several axes becomes at once.
_LARGEST = 2**22
# Lengths of longer transforms make matrices that do not fit into memory.
_LONGEST = 2**13


class Parts(NamedTuple):
    """The real and the imaginary part of an array."""

    real: Any
    imag: Any


Function: TypeAlias = Callable[..., Any]
"""Of operands, the complex ones as `Parts`, to an array, `Parts` or a list of them."""


def is_complex(x: Array | Shaped) -> bool:
    """Whether an array holds complex numbers."""
    return bool(jnp.issubdtype(x.dtype, jnp.complexfloating))


def _in_parts(build: Builder, node: Node) -> Sequence[Value] | None:
    """Functions of complex numbers, as functions of their real and imaginary parts."""
    avals = [build.aval(x) for x in node.operands]
    if not any(map(is_complex, (*avals, *node.outputs))):
        return None
    operands = [_parts(build, x) for x in node.operands]
    if any(x is None for x in operands):  # They come from what is refused.
        return build.kept(node)
    structure: Any
    flat, structure = jax.tree.flatten(operands, is_leaf=lambda x: isinstance(x, Ref))
    make = _FUNCTIONS.get(node.primitive)
    function = make(node) if make else None
    if function is None and all(map(is_complex, node.outputs)):
        return build.kept(_of_parts(node, flat, structure))
    if function is None:
        return build.kept(node)

    def of_flat(*parts: Array) -> Any:
        return function(*structure.unflatten(parts))

    found = iter(build.apply(of_flat, node.source, *flat))
    if not any(map(is_complex, node.outputs)):
        return list(found)
    values = build.kept(node)
    for value in values:
        assert isinstance(value, Ref)
        build.parts[value] = Parts(next(found), next(found))
    return values


def _parts(build: Builder, value: Value) -> Parts | Value | None:
    """The parts of a value that is complex; any other one itself. None if they are not known."""
    if isinstance(value, Ref):
        return build.parts.get(value) if is_complex(build.aval(value)) else value
    return Parts(jnp.real(value), jnp.imag(value)) if jnp.iscomplexobj(value) else value


def _of_parts(node: Node, flat: Sequence[Value], structure: Any) -> Node:
    """A node that reads parts, and makes complex numbers of them."""

    def bind(*parts: Array) -> tuple[Array, ...]:
        operands = structure.unflatten(parts)
        return node.bind(*(lax.complex(*x) if isinstance(x, Parts) else x for x in operands))

    return dataclasses.replace(node, operands=tuple(flat), bind=bind)


# ---- functions of parts --------------------------------------------------------------------


def _plain(function: Function) -> Callable[[Node], Function]:
    """A function that needs no parameter of the node."""
    return lambda node: function


def _by_part(node: Node) -> Function:
    """One that does the same to both parts, and nothing to operands that have none."""

    def function(*operands: Any) -> list[Parts]:
        sides = (
            node.bind(*(x[k] if isinstance(x, Parts) else x for x in operands)) for k in (0, 1)
        )
        return [Parts(*pair) for pair in zip(*sides, strict=True)]

    return function


def _product(multiply: Callable[[Array, Array], Array], z: Parts, w: Parts) -> Parts:
    (a, b), (c, d) = z, w
    return Parts(multiply(a, c) - multiply(b, d), multiply(a, d) + multiply(b, c))


_times = functools.partial(_product, jnp.multiply)


def _dot(node: Node) -> Function:
    numbers = node.params["dimension_numbers"]
    dot = functools.partial(
        lax.dot_general, dimension_numbers=numbers, precision=lax.Precision.HIGHEST
    )
    return functools.partial(_product, dot)


def _quotient(node: Node) -> Function:
    divisor = node.operands[1]
    if not isinstance(divisor, Ref):
        return lambda z, w: _times(z, Parts(*_reciprocal(*w)))

    def quotient(z: Parts, w: Parts) -> Parts:
        size = lax.square(w.real) + lax.square(w.imag)
        return Parts(*(part / size for part in _times(z, Parts(w.real, -w.imag))))

    return quotient


def _reciprocal(real: Array, imag: Array) -> Parts:
    """Of known numbers, without overflow on the way."""
    found = 1 / lax.complex(real, imag)
    return Parts(jnp.real(found), jnp.imag(found))


def _power(node: Node) -> Function | None:
    """A product of some factors."""
    count = node.params["y"]
    if not 1 <= count <= 8:
        return None
    return lambda z: functools.reduce(_times, itertools.repeat(z, count))


def _exponential(z: Parts) -> Parts:
    size = jnp.exp(z.real)
    return Parts(size * jnp.cos(z.imag), size * jnp.sin(z.imag))


def _modulus(z: Parts) -> Array:
    return jnp.sqrt(lax.square(z.real) + lax.square(z.imag))


def _conjugate(z: Any) -> Parts:
    real, imag = z if isinstance(z, Parts) else (z, jnp.zeros_like(z))
    return Parts(real, -imag)


def _converted(node: Node) -> Function | None:
    """From real numbers, to them (the real part), or between two formats."""
    (aval,) = node.outputs
    dtype = np.empty(0, aval.dtype).real.dtype

    def converted(z: Any) -> Any:
        real, imag = z if isinstance(z, Parts) else (z, jnp.zeros(z.shape, dtype))
        real, imag = real.astype(dtype), imag.astype(dtype)
        return Parts(real, imag) if is_complex(aval) else real

    return converted if jnp.issubdtype(dtype, jnp.floating) else None


def _equal(z: Parts, w: Parts) -> Array:
    return (z.real == w.real) & (z.imag == w.imag)


# ---- Fourier transforms --------------------------------------------------------------------


class Kind(enum.IntEnum):
    """What is transformed, as JAX numbers it."""

    FORTH = 0
    BACK = 1
    FROM_REAL = 2
    TO_REAL = 3


_TRANSFORMS: dict[Kind, Callable[..., np.ndarray]] = {
    Kind.FORTH: np.fft.fftn,
    Kind.BACK: np.fft.ifftn,
    Kind.FROM_REAL: np.fft.rfftn,
    Kind.TO_REAL: np.fft.irfftn,
}


def _fourier(node: Node) -> Function | None:
    """The transform of the last axes, as a matrix; of many entries, axis by axis."""
    kind, lengths = Kind(node.params["fft_type"]), tuple(node.params["fft_lengths"])
    if math.prod(lengths) ** 2 <= _LARGEST:
        return functools.partial(_transformed, kind, lengths)
    if max(lengths) > _LONGEST:
        return None
    *others, last = range(-len(lengths), 0)
    inverse = kind in (Kind.BACK, Kind.TO_REAL)
    complete = Kind.BACK if inverse else Kind.FORTH

    def along(axis: int, kind: Kind, z: Any) -> Any:
        moved = jax.tree.map(lambda x: jnp.moveaxis(x, axis, -1), z)
        found = _transformed(kind, (lengths[axis],), moved)
        return jax.tree.map(lambda x: jnp.moveaxis(x, -1, axis), found)

    def function(z: Any) -> Any:
        steps = [(last, kind), *((axis, complete) for axis in others)]
        for axis, own in reversed(steps) if inverse else steps:
            z = along(axis, own, z)
        return z

    return function


def _transformed(kind: Kind, lengths: tuple[int, ...], z: Any) -> Any:
    """The transform of the last axes of an array or of its parts, as one matrix."""
    operands = z if isinstance(z, Parts) else (z,)
    whole = operands[0].shape
    batch, size = whole[: -len(lengths)], math.prod(whole[-len(lengths) :])
    matrices, shape = _matrices(kind, lengths)

    def side(part: Callable[[np.ndarray], np.ndarray]) -> Array:
        products = (
            jnp.matmul(
                x.reshape(*batch, size),
                jnp.asarray(part(matrix), x.dtype),
                precision=lax.Precision.HIGHEST,
            )
            for x, matrix in zip(operands, matrices, strict=True)
        )
        return functools.reduce(jnp.add, products).reshape(*batch, *shape)

    return side(np.real) if kind is Kind.TO_REAL else Parts(side(np.real), side(np.imag))


@functools.lru_cache(maxsize=16)
def _matrices(
    kind: Kind, lengths: tuple[int, ...]
) -> tuple[tuple[np.ndarray, ...], tuple[int, ...]]:
    """What the transform makes of real units, and of imaginary ones; and the shape of a result.

    Returns:
        `[entries, entries of the result]` each; the second one for complex operands alone.
    """
    shape = (*lengths[:-1], lengths[-1] // 2 + 1) if kind is Kind.TO_REAL else lengths
    size = math.prod(shape)
    units = np.eye(size).reshape(size, *shape)
    sides = (units,) if kind is Kind.FROM_REAL else (units, 1j * units)
    axes = tuple(range(1, units.ndim))
    found = [_TRANSFORMS[kind](side, lengths, axes) for side in sides]
    return tuple(x.reshape(size, -1) for x in found), found[0].shape[1:]


# ---- tables --------------------------------------------------------------------------------

_FUNCTIONS: dict[str, Callable[[Node], Function | None]] = {
    **dict.fromkeys(movement.RECORDS, _by_part),
    **dict.fromkeys(("add", "add_any", "cumsum", "neg", "reduce_sum", "sub"), _by_part),
    "abs": _plain(_modulus),
    "complex": _plain(Parts),
    "conj": _plain(_conjugate),
    "convert_element_type": _converted,
    "div": _quotient,
    "dot_general": _dot,
    "eq": _plain(_equal),
    "exp": _plain(_exponential),
    "fft": _fourier,
    "imag": _plain(lambda z: z.imag),
    "integer_pow": _power,
    "mul": _plain(_times),
    "ne": _plain(lambda z, w: ~_equal(z, w)),
    "real": _plain(lambda z: z.real),
    "square": _plain(lambda z: _times(z, z)),
}


def _squared_modulus(build: Builder, node: Node) -> Sequence[Value] | None:
    """The square of a modulus, which is the sum of the squares that it is the root of."""
    if node.params.get("y", 2) != 2:
        return None
    total = sole(build.definition(node.perturbed[0]), "sqrt")
    sum_ = build.definition(total) if total is not None else None
    if total is None or sum_ is None or sum_.primitive != "add":
        return None
    squares = [build.definition(x) for x in sum_.operands]
    return [total] if all(x and x.primitive == "square" for x in squares) else None


RULES: dict[str, tuple[Rule, ...]] = {
    **dict.fromkeys((ANY, "complex", "conj", "fft", "imag", "real"), (_in_parts,)),
    "integer_pow": (_squared_modulus,),
    "square": (_squared_modulus,),
}
