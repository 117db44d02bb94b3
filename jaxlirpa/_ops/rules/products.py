"""Products and quotients of values that both vary, as entry-by-entry products and sums."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlirpa._graph.graph import INPUT, Node, Ref, Value
from jaxlirpa._graph.source import Source
from jaxlirpa._graph.trace import Builder, Rule
from jaxlirpa._ops.rules.dataflow import as_rows, placed, placement, sole
from jaxlirpa._typing import Array


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
    """A matrix product of two perturbed operands: all products, summed."""
    if len(node.perturbed) < 2:
        return None
    (left, right), (left_batch, right_batch) = node.params["dimension_numbers"]
    (aval,) = node.outputs

    def arranged(x: Array, batch: Sequence[int], contracted: Sequence[int]) -> Array:
        """`[*batch, free, contracted]`, with the free axes as one and the contracted as one."""
        free = [i for i in range(x.ndim) if i not in (*batch, *contracted)]
        sizes = [math.prod(x.shape[i] for i in axes) for axes in (free, contracted)]
        x = jnp.transpose(x, (*batch, *free, *contracted)).astype(aval.dtype)
        return x.reshape(*x.shape[: len(batch)], *sizes)

    def rows(x: Array) -> Array:
        return arranged(x, left_batch, left)[..., :, None, :]

    def columns(y: Array) -> Array:
        return arranged(y, right_batch, right)[..., None, :, :]

    x, y = node.perturbed
    for one, other, of_one, of_other in ((x, y, rows, columns), (y, x, columns, rows)):
        ball = _ball(build, one)
        if ball is not None:
            center, radius, ord = ball
            arrangements = (of_one, of_other, of_one, of_one)
            operands = _broadcast(build, (one, other, center, radius), arrangements, node.source)
            found = _ball_product(build, operands, ord, node.source)
            return build.apply(lambda z: z.reshape(aval.shape), node.source, found)

    def product(x: Array, y: Array) -> Array:
        return jnp.sum(rows(x) * columns(y), -1).reshape(aval.shape)

    return build.apply(product, node.source, *node.operands)


def _ball(build: Builder, value: Ref) -> tuple[Array, Array, float] | None:
    """Centre, radius and norm of the ball that all entries of a value are in, each once."""
    root, chain = placement(build, value)
    node = build.definition(root)
    assert node is not None
    ball = node.params.get("ball") if node.primitive == INPUT else None
    sizes = (math.prod(build.aval(ref).shape) for ref in (root, value))
    if ball is None or len({*sizes}) > 1:
        return None
    center, radius = (jnp.broadcast_to(k, ball.aval.shape) for k in (ball.center, ball.radius))
    for step in reversed(chain):
        (center,), (radius,) = step(center), step(radius)
    return center, radius, ball.ord


def _broadcast(
    build: Builder,
    values: Sequence[Value],
    arrangements: Sequence[Callable[[Array], Array]],
    source: Source,
) -> list[Value]:
    """Values, each in an arrangement of its own, as arrays of one shape."""
    pairs = zip(arrangements, values, strict=True)
    arranged = [build.apply(arrange, source, value)[0] for arrange, value in pairs]
    shape = np.broadcast_shapes(*(build.aval(x).shape for x in arranged))
    return [build.apply(lambda x: jnp.broadcast_to(x, shape), source, x)[0] for x in arranged]


def _ball_product(build: Builder, operands: Sequence[Value], ord: float, source: Source) -> Value:
    """The inner products over the last axis of a value in a ball with another one."""
    aval = build.aval(operands[0])
    axis = len(aval.shape) - 1

    def bind(x: Array, y: Array, center: Array, radius: Array) -> tuple[Array, ...]:
        del center, radius
        return (jnp.sum(x * y, axis),)

    result = jax.ShapeDtypeStruct(aval.shape[:-1], aval.dtype)
    params = {"axes": (axis,), "ord": ord}
    return build.append("ball_product", tuple(operands), params, bind, (result,), source)[0]


def _convolution(build: Builder, node: Node) -> Sequence[Value] | None:
    """A convolution of a perturbed image and a perturbed kernel: patches times the kernel."""
    params = node.params
    if len(node.perturbed) < 2 or params["batch_group_count"] != 1:
        return None
    numbers, groups = params["dimension_numbers"], params["feature_group_count"]

    def product(image: Array, kernel: Array) -> Array:
        image = jnp.transpose(image, numbers.lhs_spec)
        kernel = jnp.transpose(kernel, numbers.rhs_spec)
        features, _, *window = kernel.shape
        patches = lax.conv_general_dilated_patches(
            image,
            window,
            params["window_strides"],
            params["padding"],
            params["lhs_dilation"],
            params["rhs_dilation"],
            precision=lax.Precision.HIGHEST,
        )
        batch, _, *space = patches.shape
        patches = patches.reshape(batch, groups, -1, math.prod(space))
        kernel = kernel.reshape(groups, features // groups, -1)
        result = jnp.einsum("ngks,gok->ngos", patches, kernel).reshape(batch, features, *space)
        order = numbers.out_spec
        return jnp.transpose(result, [order.index(i) for i in range(len(order))])

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
