"""Products and quotients of values that both vary, as products of entries or inner products."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlirpa._arrays import is_floating
from jaxlirpa._graph.graph import Node, Ref, Value
from jaxlirpa._graph.trace import Builder, Rule
from jaxlirpa._ops.rules.dataflow import as_rows, placed, placement, sole, spread
from jaxlirpa._ops.rules.matrices import Patches, inner_products, matrices
from jaxlirpa._types import Array

# Matrix products of more multiplications are not looked at, entry by entry, while tracing.
_MOST = 2**22


def _product(build: Builder, node: Node) -> Sequence[Value] | None:
    """A value times itself is its square; known factors of factors are taken out."""
    if len(node.perturbed) < 2:
        return None
    x, y = node.perturbed
    if x == y:
        return build.apply(lax.square, node.source, x)
    (x, factors), (y, others) = _bare(build, x), _bare(build, y)
    if factors := factors + others:
        return build.apply(
            _scaled(factors), node.source, x, y, *(k for f in factors for k in f.known)
        )
    return build.append("product", node.operands, {}, node.bind, node.outputs, node.source)


def _bare(build: Builder, ref: Ref) -> tuple[Ref, list[Node]]:
    """A value without its known factors and divisors, and the nodes that apply those."""
    factors = []
    while (factor := build.definition(ref)) is not None:
        if factor.primitive not in ("mul", "neg", "div"):
            break
        factors.append(factor)
        (ref,) = factor.perturbed
    return ref, factors


def _scaled(factors: Sequence[Node]) -> Callable[..., Array]:
    """A product of two values, times all factors at once: in a loop they would double each trip."""
    names = [factor.primitive for factor in factors]
    scaling = [name for name in names if name != "neg"]

    def scaled(a: Array, b: Array, *known: Array) -> Array:
        result = a * b
        for name, apply in (("mul", jnp.multiply), ("div", jnp.divide)):
            chosen = [k for k, used in zip(known, scaling, strict=True) if used == name]
            if chosen:
                result = apply(result, functools.reduce(jnp.multiply, chosen))
        return -result if names.count("neg") % 2 else result

    return scaled


def _quotient(build: Builder, node: Node) -> Sequence[Value] | None:
    """A numerator times the reciprocal of a perturbed denominator."""
    numerator, denominator = node.operands
    if not isinstance(denominator, Ref):
        return None
    root, chain = placement(build, denominator)
    (inverse,) = build.apply(lambda y: lax.integer_pow(y, -1), node.source, root)
    factor = placed(build, inverse, chain)
    return build.apply(jnp.multiply, node.source, numerator, factor)


def _power(build: Builder, node: Node) -> Sequence[Value] | None:
    """`x^y = exp(y log(x))`, for positive `x`."""
    if len(node.perturbed) < 2:
        return None
    return build.apply(lambda x, y: jnp.exp(y * jnp.log(x)), node.source, *node.operands)


def _dot(build: Builder, node: Node) -> Sequence[Value] | None:
    """A matrix product of two perturbed operands: inner products of rows and columns."""
    if len(node.perturbed) < 2:
        return None
    (aval,), (rows, columns) = node.outputs, matrices(node)
    if not is_floating(aval):  # a sum of integers may overflow

        def product(x: Array, y: Array) -> Array:
            return jnp.sum(rows(x) * columns(y), -1).reshape(aval.shape)

        return build.apply(product, node.source, *node.operands)
    x, y = build.apply(lambda x, y: (rows(x), columns(y)), node.source, *node.operands)
    found = inner_products(build, "inner_product", (x, y), node.source)
    alike = _alike(build, x, y)
    if alike is not None and alike.any():

        def with_squares(found: Array, x: Array) -> Array:
            squares = jnp.broadcast_to(jnp.sum(lax.square(x), -1), found.shape)
            return jnp.where(alike, squares, found)

        (found,) = build.apply(with_squares, node.source, found, x)
    return build.apply(lambda x: x.reshape(aval.shape), node.source, found)


def _alike(build: Builder, x: Value, y: Value) -> np.ndarray | None:
    """Where an inner product is one of entries with themselves, as on the diagonal of `X X^T`."""
    shape = jnp.broadcast_shapes(*(build.aval(v).shape for v in (x, y)))
    assert isinstance(x, Ref) and isinstance(y, Ref)
    if placement(build, x)[0] != placement(build, y)[0] or math.prod(shape) > _MOST:
        return None
    s, t = spread(build, x), spread(build, y)
    return None if s is None or t is None else (s.places == t.places).all(-1)


def _convolution(build: Builder, node: Node) -> Sequence[Value] | None:
    """A convolution of a perturbed image and a perturbed kernel: patches times the kernel."""
    if len(node.perturbed) < 2 or node.params["batch_group_count"] != 1:
        return None
    patches = Patches(node, build.aval(node.operands[1]).shape)

    def product(image: Array, kernel: Array) -> Array:
        found = jnp.einsum("gpk,gok->gpo", patches.image(image), patches.kernel(kernel))
        return patches.placed(found)

    return build.apply(product, node.source, *node.operands)


def _reduced_product(build: Builder, node: Node) -> Sequence[Value] | None:
    """A product over axes, as a tree of products of halves."""
    (x,) = node.perturbed
    axes = node.params["axes"]

    def product(x: Array) -> Array:
        x = as_rows(x, axes)
        while (size := x.shape[-1]) > 1:
            half = size // 2
            rest = x[..., 2 * half :]
            x = jnp.concatenate([x[..., :half] * x[..., half : 2 * half], rest], -1)
        return x[..., 0] if x.shape[-1] else jnp.ones(x.shape[:-1], x.dtype)

    return build.apply(product, node.source, x)


def _cumulative_product(build: Builder, node: Node) -> Sequence[Value] | None:
    """By the same tree that JAX uses."""
    (x,) = node.perturbed
    axis, reverse = node.params["axis"], node.params["reverse"]

    def product(x: Array) -> Array:
        return lax.associative_scan(jnp.multiply, x, reverse=reverse, axis=axis)

    return build.apply(product, node.source, x)


def _reciprocal(build: Builder, node: Node) -> Sequence[Value] | None:
    """A power of -1; the reciprocal of a square root is one function."""
    if node.params["y"] != -1:
        return None
    root = sole(build.definition(node.perturbed[0]), "sqrt")
    if root is not None:
        return build.apply(lax.rsqrt, node.source, root)
    return build.append("reciprocal", node.operands, {}, node.bind, node.outputs, node.source)


def _remainder(build: Builder, node: Node) -> Sequence[Value] | None:
    """`x - y trunc(x / y)`, for a known divisor."""
    x, y = node.operands
    if isinstance(y, Ref) or not jnp.issubdtype(node.outputs[0].dtype, jnp.floating):
        return None

    def remainder(x: Array, y: Array) -> Array:
        quotient = x / y
        whole = jnp.maximum(jnp.floor(quotient), 0) + jnp.minimum(jnp.ceil(quotient), 0)
        return x - y * whole

    return build.apply(remainder, node.source, x, jax.lax.stop_gradient(y))


RULES: dict[str, tuple[Rule, ...]] = {
    "conv_general_dilated": (_convolution,),
    "cumprod": (_cumulative_product,),
    "div": (_quotient,),
    "dot_general": (_dot,),
    "integer_pow": (_reciprocal,),
    "mul": (_product,),
    "pow": (_power,),
    "reduce_prod": (_reduced_product,),
    "rem": (_remainder,),
}
