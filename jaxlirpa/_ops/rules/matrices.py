"""Matrix products and convolutions in one form: inner products over the last axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxlirpa._arrays import summed_product
from jaxlirpa._graph.graph import Node, Value
from jaxlirpa._graph.source import Source
from jaxlirpa._graph.trace import Builder
from jaxlirpa._types import Array

Arrange = Callable[[Array], Array]


def inner_products(
    build: Builder, primitive: str, operands: Sequence[Value], source: Source, **params: Any
) -> Value:
    """A node of the inner products of two values over their last axis; the other axes broadcast.

    Args:
        build: the graph so far.
        primitive: of the node.
        operands: the two, and what else the node's relaxation reads.
        source: the user's line.
        params: what else it must know.
    """
    x, y = map(build.aval, operands[:2])
    shape = (*jnp.broadcast_shapes(x.shape, y.shape)[:-1], 1)

    def bind(x: Array, y: Array, *rest: Array) -> tuple[Array, ...]:
        del rest
        return (summed_product(x, y, shape)[..., 0],)

    result = jax.ShapeDtypeStruct(shape[:-1], x.dtype)
    params = {"axes": (len(shape) - 1,), **params}
    return build.append(primitive, tuple(operands), params, bind, (result,), source)[0]


def matrices(node: Node) -> tuple[Arrange, Arrange]:
    """What arranges the operands of a `dot_general`.

    Returns:
        Two functions, to `[*batch, rows, 1, contracted]` and `[*batch, 1, columns, contracted]`, in
        which all free axes are one, and all contracted ones.
    """
    (left, right), (left_batch, right_batch) = node.params["dimension_numbers"]
    dtype = node.outputs[0].dtype

    def arranged(x: Array, batch: Sequence[int], contracted: Sequence[int]) -> Array:
        free = [i for i in range(x.ndim) if i not in (*batch, *contracted)]
        sizes = [math.prod(x.shape[i] for i in axes) for axes in (free, contracted)]
        x = jnp.transpose(x, (*batch, *free, *contracted)).astype(dtype)
        return x.reshape(*x.shape[: len(batch)], *sizes)

    def rows(x: Array) -> Array:
        return arranged(x, left_batch, left)[..., :, None, :]

    def columns(y: Array) -> Array:
        return arranged(y, right_batch, right)[..., None, :, :]

    return rows, columns


class Patches:
    """A convolution as a matrix product of what its windows see with its kernel.

    Args:
        node: a `conv_general_dilated` whose batch is not in groups.
        kernel: the shape of its kernel.
    """

    def __init__(self, node: Node, kernel: Sequence[int]):
        self.params, self.numbers = node.params, node.params["dimension_numbers"]
        self.groups = node.params["feature_group_count"]
        self.features, _, *self.window = (kernel[i] for i in self.numbers.rhs_spec)
        self.shape = [node.outputs[0].shape[i] for i in self.numbers.out_spec]

    def image(self, image: Array) -> Array:
        """The image as `[groups, windows, contracted]`."""
        patches = lax.conv_general_dilated_patches(
            jnp.transpose(image, self.numbers.lhs_spec),
            self.window,
            self.params["window_strides"],
            self.params["padding"],
            self.params["lhs_dilation"],
            self.params["rhs_dilation"],
            precision=lax.Precision.HIGHEST,
        )
        batch, seen, *space = patches.shape
        patches = patches.reshape(batch, self.groups, seen // self.groups, math.prod(space))
        return jnp.transpose(patches, (1, 0, 3, 2)).reshape(
            self.groups, batch * math.prod(space), -1
        )

    def kernel(self, kernel: Array) -> Array:
        """The kernel as `[groups, features of a group, contracted]`."""
        kernel = jnp.transpose(kernel, self.numbers.rhs_spec)
        return kernel.reshape(self.groups, self.features // self.groups, -1)

    def placed(self, result: Array) -> Array:
        """The output from its entries `[groups, windows, features of a group]`."""
        batch, features, *space = self.shape
        result = result.reshape(self.groups, batch, math.prod(space), -1)
        result = jnp.transpose(result, (1, 0, 3, 2)).reshape(batch, features, *space)
        order = self.numbers.out_spec
        return jnp.transpose(result, [order.index(i) for i in range(len(order))])
