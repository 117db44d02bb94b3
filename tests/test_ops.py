"""Every primitive, one line each, in every method: each node's box holds, affine ones are exact."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import numpy as np
import oracles
import pytest
from flax import nnx
from jax import lax

import jaxlirpa
from jaxlirpa._graph.graph import Ref
from jaxlirpa._ops.families import Affine, Elementwise
from jaxlirpa._ops.registry import RECORDS
from jaxlirpa._relax.piecewise import Clip

Shape = tuple[int, ...]
Methods = Callable[[int], dict[str, oracles.Transform]]


@dataclasses.dataclass(frozen=True)
class Case:
    """A function of perturbed arrays of given shapes."""

    name: str
    function: Callable[..., Any]
    shapes: tuple[Shape, ...]

    def __str__(self) -> str:
        return self.name

    @property
    def number(self) -> int:
        """One that differs from case to case, and not from run to run."""
        return zlib.crc32(self.name.encode())

    def boxes(self, dtype: Any = np.float64) -> list[jaxlirpa.Box]:
        """A lopsided box in the place of every argument."""
        rng = np.random.default_rng(len(self.name))
        boxes = []
        for shape in self.shapes:
            lower = rng.normal(size=shape)
            upper = lower + rng.uniform(0, 1, shape) ** 2
            boxes.append(jaxlirpa.Box(jnp.asarray(lower, dtype), jnp.asarray(upper, dtype)))
        return boxes


def case(name: str, function: Callable[..., Any], *shapes: Shape) -> Any:
    return pytest.param(Case(name, function, shapes), id=name)


def variant(name: str, function: Callable[..., Any], *shapes: Shape) -> Any:
    """A case whose relatives run by default."""
    return pytest.param(Case(name, function, shapes), id=name, marks=pytest.mark.slow)


def c(*shape: int) -> np.ndarray:
    """A known array with entries of either sign."""
    return np.random.default_rng(shape).normal(size=shape)


# ---- affine functions ----------------------------------------------------------------------

MASK = np.array([[True, False, True], [False, False, True]])

ARITHMETIC = [
    case("neg", lambda x: -x, (2, 3)),
    case("identity", lambda x: x, (3,)),
    case("copy", lambda x: jnp.array(x, copy=True), (3,)),
    case("add", lambda x, y: x + y, (2, 3), (2, 3)),
    case("add constant", lambda x: c(2, 3) + x, (2, 3)),
    case("add broadcast", lambda x, y: x[None] + y[:, None], (3,), (2,)),
    case("add scalar operand", lambda x, y: x + y, (), (3,)),
    case("add itself", lambda x: x + x, (3,)),
    case("sub", lambda x, y: x - y, (3,), (3,)),
    case("sub itself", lambda x: 2.0 * x - x[::-1], (3,)),
    case("constant minus", lambda x: 1.0 - x, (3,)),
    case("sub scalar operand", lambda x, y: x - y, (), (3,)),
    case("mul constant", lambda x: x * c(2, 3), (2, 3)),
    case("constant mul", lambda x: c(2, 3) * x, (2, 3)),
    case("mul negative scalar", lambda x: -2.5 * x, (2, 3)),
    case("mul zero", lambda x: 0.0 * x, (3,)),
    case("mul scalar operand", lambda x: x * c(3), ()),
    case("div constant", lambda x: x / c(2, 3), (2, 3)),
    case("div negative scalar", lambda x: x / -3.0, (2, 3)),
    case("div scalar operand", lambda x: x / c(3), ()),
    case("scalar", lambda x: 3.0 * (1.0 - x) / 2.0, ()),
    case("reduce_sum", lambda x: x.sum(), (2, 3)),
    case("reduce_sum axis", lambda x: x.sum(1, keepdims=True), (2, 3, 2)),
    case("mean", lambda x: x.mean((0, 2)), (2, 3, 2)),
    case("average", lambda x: jnp.average(x, axis=0, weights=np.arange(1.0, 4)), (3, 2)),
    case("cumsum", lambda x: jnp.cumsum(x, 1), (2, 3)),
    case("cumsum reverse", lambda x: lax.cumsum(x, 0, reverse=True), (3, 2)),
    case("diff", lambda x: jnp.diff(x, axis=0), (4, 2)),
    case("trace", lambda x: jnp.trace(x), (3, 3)),
    case("associative_scan", lambda x: lax.associative_scan(jnp.add, x), (5,)),
    case("residual", lambda x: x + c(3, 3) @ (x - 1.0), (3,)),
    case("two inputs, three uses", lambda x, y: (c(2, 3) @ x + y) - c(2, 2) @ y, (3,), (2,)),
]

PRODUCTS = [
    case("matvec", lambda x: c(2, 3) @ x, (3,)),
    case("vecmat", lambda x: x @ c(3, 2), (3,)),
    case("matmul left", lambda x: x @ c(3, 2), (2, 3)),
    case("matmul right", lambda x: c(2, 3) @ x, (3, 2)),
    case("matmul batched", lambda x: x @ c(2, 3, 2), (2, 2, 3)),
    case("perturbed matrix", lambda w: w @ c(3), (2, 3)),
    case("dot", lambda x: jnp.dot(x, c(3)), (3,)),
    case("outer", lambda x: jnp.outer(c(2), x), (3,)),
    case("kron", lambda x: jnp.kron(x, c(2, 2)), (2, 2)),
    case("tensordot", lambda x: jnp.tensordot(c(2, 3, 2), x, ((1, 0), (0, 1))), (3, 2)),
    case("tensordot turned", lambda x: jnp.tensordot(c(2, 3, 2), x, ((1, 2), (1, 0))), (2, 3)),
    case("einsum ab,bc", lambda x: jnp.einsum("ab,bc->ca", x, c(3, 2)), (2, 3)),
    case("einsum right", lambda x: jnp.einsum("ab,bc->ac", c(2, 3), x), (3, 2)),
    case("einsum batch", lambda x: jnp.einsum("nab,nb->na", c(2, 3, 2), x), (2, 2)),
    case("einsum diagonal", lambda x: jnp.einsum("ii,ij->j", x, c(3, 2)), (3, 3)),
    case("einsum three", lambda x: jnp.einsum("a,ab,bc", c(2), x, c(3, 2)), (2, 3)),
    case("convolve", lambda x: jnp.convolve(x, c(3)), (5,)),
    case("vmapped", lambda x: jax.vmap(lambda r: c(2, 3) @ r)(x), (2, 3)),
]

MOVEMENT = [
    case("reshape", lambda x: x.reshape(3, 2), (2, 3)),
    case("flatten", lambda x: x.ravel(), (2, 3)),
    case("transpose", lambda x: jnp.transpose(x, (2, 0, 1)), (2, 3, 2)),
    case("swapaxes", lambda x: jnp.swapaxes(x, 0, 1), (2, 3)),
    case("squeeze", lambda x: jnp.squeeze(x, 1), (2, 1, 3)),
    case("expand_dims", lambda x: x[:, None], (3,)),
    case("expand_dims lax", lambda x: lax.expand_dims(x, (0, 2)), (3,)),
    case("broadcast", lambda x: jnp.broadcast_to(x, (2, 3)), (3,)),
    case("broadcast summed", lambda x: (jnp.broadcast_to(x, (2, 3)) * c(2, 3)).sum(0), (3,)),
    case("concatenate", lambda x, y: jnp.concatenate([x, y, x], 1), (2, 1), (2, 2)),
    case("concatenate constant", lambda x: jnp.concatenate([c(2), x]), (3,)),
    case("stack", lambda x, y: jnp.stack([x, y], 1), (3,), (3,)),
    case("unstack", lambda x: jnp.unstack(x, axis=1)[1] - jnp.unstack(x, axis=1)[0], (2, 3)),
    case("split", lambda x: jnp.split(x, [1, 2], 1)[1:], (2, 4)),
    case("split, one part", lambda x: jnp.split(x, 2)[1] * 2.0, (4,)),
    case("tile", lambda x: jnp.tile(x, (2, 2)), (1, 3)),
    case("repeat", lambda x: jnp.repeat(x, 2, axis=0), (2, 2)),
    case("roll", lambda x: jnp.roll(x, 2), (5,)),
    case("flip", lambda x: jnp.flip(x, 0), (3, 2)),
    case("rot90", lambda x: jnp.rot90(x), (2, 3)),
    case("slice", lambda x: x[1:, ::2], (3, 4)),
    case("slice reversed", lambda x: x[::-2], (5,)),
    case("slice last", lambda x: x[-1], (3, 2)),
    case("dynamic_slice", lambda x: lax.dynamic_slice(x, (1, 0), (2, 2)), (4, 3)),
    case("dynamic_slice clamped", lambda x: lax.dynamic_slice(x, (9,), (2,)), (4,)),
    case("dynamic_index", lambda x: lax.dynamic_index_in_dim(x, 1, 0), (3, 2)),
    case("dynamic_update", lambda x, y: lax.dynamic_update_slice(x, y, (1,)), (4,), (2,)),
    case("dynamic_update known", lambda x: lax.dynamic_update_slice(x, c(2), (1,)), (4,)),
    case("dynamic_update into", lambda x: lax.dynamic_update_slice(c(4), x, (1,)), (2,)),
    case("gather", lambda x: x[np.array([2, 0, 2])], (3, 2)),
    case("gather summed", lambda x: x[np.array([2, 0, 2])].sum(0), (3, 2)),
    case("gather pairs", lambda x: x[np.array([0, 1]), np.array([2, 0])], (2, 3)),
    case("gather negative", lambda x: x[np.array([-1, 0])], (3,)),
    case("take", lambda x: jnp.take(x, np.array([1, 1, 0]), axis=1), (2, 3)),
    case("take clip", lambda x: jnp.take(x, np.array([5, -9, 0]), mode="clip"), (3,)),
    case("take wrap", lambda x: jnp.take(x, np.array([5, -2, 0]), mode="wrap"), (3,)),
    case(
        "take fill",
        lambda x: jnp.take(x, np.array([7, 0]), mode="fill", fill_value=2.0) - x[:2],
        (3,),
    ),
    case("take_along_axis", lambda x: jnp.take_along_axis(x, np.array([[1], [0]]), 1), (2, 3)),
    case("embedding", lambda t: t[np.array([[0, 3], [3, 1]])].sum(1), (4, 2)),
    case("diag", lambda x: jnp.diag(x), (3,)),
    case("triu", lambda x: jnp.triu(x) - jnp.tril(x), (3, 3)),
    case("where", lambda x, y: jnp.where(MASK, x, y), (2, 3), (2, 3)),
    case("where constant", lambda x: jnp.where(MASK, x, -1.0), (2, 3)),
    case("where itself", lambda x: jnp.where(MASK, x, -x), (2, 3)),
    case("select_n scalar", lambda x, y: lax.select_n(jnp.array(True), x, y), (3,), (3,)),
    case("at set", lambda x: x.at[1].set(4.0), (3,)),
    case("at set slice", lambda x, y: x.at[1:3].set(y), (4,), (2,)),
    case("at set column", lambda x, y: x.at[:, 1].set(y), (2, 3), (2,)),
    case(
        "at set unique",
        lambda x, y: x.at[np.array([2, 0])].set(y, unique_indices=True),
        (4,),
        (2,),
    ),
    case("at set distinct", lambda x, y: x.at[np.array([-1, 0, 7])].set(y), (4,), (3,)),
    case("at set known", lambda x: x.at[np.array([2, 0])].set(c(2)), (3,)),
    case("at set into", lambda y: jnp.asarray(c(2, 3)).at[np.array([1, 0]), 1:].set(y), (2, 2)),
    case("at set mask", lambda x, y: x.at[MASK].set(y), (2, 3), (3,)),
    case("mask", lambda x: x[MASK] - x.at[:, MASK[0]].set(1.0).sum(), (2, 3)),
    case("at add", lambda x, y: x.at[np.array([1, 1, 0])].add(y), (3,), (3,)),
    case("at add into", lambda y: jnp.zeros(3).at[np.array([1, 1, 0])].add(y), (3,)),
    case("at subtract", lambda x, y: x.at[np.array([1, 1, 0])].subtract(y), (3,), (3,)),
    case("segment_sum", lambda x: jax.ops.segment_sum(x, np.array([0, 0, 1]), 2), (3,)),
    case("pad constant", lambda x: jnp.pad(x, ((1, 0), (0, 2)), constant_values=3.0), (2, 2)),
    case("pad edge", lambda x: jnp.pad(x, 2, mode="edge"), (3,)),
    case("pad reflect", lambda x: jnp.pad(x, 2, mode="reflect"), (3,)),
    case("pad symmetric", lambda x: jnp.pad(x, 2, mode="symmetric"), (3,)),
    case("pad wrap", lambda x: jnp.pad(x, 2, mode="wrap"), (3,)),
    case("pad linear_ramp", lambda x: jnp.pad(x, 2, mode="linear_ramp", end_values=1.0), (3,)),
    case("pad mean", lambda x: jnp.pad(x, 2, mode="mean"), (3,)),
    case("pad negative", lambda x: lax.pad(x, 0.5, [(-1, 2, 0)]), (4,)),
    case("pad interior", lambda x: lax.pad(x, 0.5, [(1, -1, 2)]), (3,)),
    case("pad by perturbed", lambda x, v: lax.pad(x, v, [(1, 1, 0)]).sum(), (3,), ()),
    case("resize nearest", lambda x: jax.image.resize(x, (5, 3), "nearest"), (3, 2)),
    case("resize bilinear", lambda x: jax.image.resize(x, (5, 3), "bilinear"), (3, 2)),
    variant("resize down", lambda x: jax.image.resize(x, (2, 2), "bilinear"), (4, 3)),
    variant("resize cubic", lambda x: jax.image.resize(x, (5, 3), "bicubic"), (3, 2)),
    variant("resize lanczos", lambda x: jax.image.resize(x, (4,), "lanczos3"), (3,)),
]

CALLS = [
    case("jit", jax.jit(lambda x: 2.0 * x), (3,)),
    case("checkpoint", jax.checkpoint(lambda x: c(2, 3) @ x), (3,)),
    case("barrier", lambda x: lax.optimization_barrier((x, 2.0 * x)), (3,)),
    case("device_put", lambda x: jax.device_put(x) * 2.0, (3,)),
    case("linearize", lambda x: jax.linearize(jnp.sin, c(3))[1](x), (3,)),
    case("transpose of a function", lambda x: jax.vjp(lambda y: c(2, 3) @ y, c(3))[1](x), (2,)),
    case(
        "vjp of a fan-out",
        lambda x, y: jax.vjp(lambda z: (z * 2.0, z * -3.0), c(3))[1]((x, y))[0],
        (3,),
        (3,),
    ),
    case("no entries", lambda x: (x[:0], x[:0].sum() + x), (3,)),
    case("several outputs", lambda x: {"a": x.sum(), "b": (x, c(2))}, (3,)),
]


def reduce_sum(window: Shape, **options: Any) -> Callable[[Any], Any]:
    options = {"window_strides": (1,) * len(window), "padding": "VALID"} | options
    return lambda x: lax.reduce_window(x, 0.0, lax.add, window, **options)


POOLING = [
    case("window sum", reduce_sum((2, 2)), (3, 4)),
    case("window sum strided", reduce_sum((2, 2), window_strides=(2, 1)), (4, 3)),
    case("window sum padded", reduce_sum((3,), padding=[(2, 1)], window_strides=(2,)), (5,)),
    case("window sum same", reduce_sum((3,), padding="SAME"), (4,)),
    case("window sum dilated", reduce_sum((2,), window_dilation=(2,)), (5,)),
    case("window sum base dilated", reduce_sum((2,), base_dilation=(2,)), (4,)),
    case("avg_pool", lambda x: nn.avg_pool(x, (2, 2), (2, 2)), (1, 4, 4, 2)),
    variant("avg_pool same", lambda x: nn.avg_pool(x, (3, 3), (2, 2), "SAME"), (1, 4, 3, 1)),
    case(
        "avg_pool without the padding",
        lambda x: nn.avg_pool(x, (3, 2), (1, 1), "SAME", count_include_pad=False),
        (1, 3, 3, 1),
    ),
    variant("avg_pool 1d", lambda x: nn.avg_pool(x, (2,), (1,), [(1, 0)]), (2, 4, 1)),
    variant("avg_pool 3d", lambda x: nn.avg_pool(x, (2, 2, 2)), (1, 3, 2, 3, 1)),
    case("global pool", lambda x: x.mean((1, 2)), (1, 3, 3, 2)),
]


def conv(kernel: Shape, strides: Shape = (1, 1), padding: Any = "SAME", **options: Any) -> Any:
    """A convolution of a perturbed image with a known kernel; NHWC unless stated otherwise."""
    options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")} | options
    return lambda x: lax.conv_general_dilated(x, c(*kernel), strides, padding, **options)


NCHW, ODD = ("NCHW", "OIHW", "NCHW"), ("CWNH", "IWOH", "HCNW")
NWC, NDHWC = ("NWC", "WIO", "NWC"), ("NDHWC", "DHWIO", "NDHWC")

CONVOLUTIONS = [
    case("conv", conv((3, 3, 2, 2)), (1, 4, 3, 2)),
    variant("conv batch", conv((2, 2, 1, 2)), (2, 3, 3, 1)),
    variant("conv valid", conv((3, 2, 1, 2), padding="VALID"), (1, 4, 4, 1)),
    case("conv 1x1", conv((1, 1, 3, 2)), (1, 2, 2, 3)),
    case("conv explicit", conv((2, 3, 1, 2), (1, 1), [(2, 0), (0, 1)]), (1, 3, 4, 1)),
    case("conv negative padding", conv((2, 2, 1, 2), (1, 1), [(-1, 1), (0, -1)]), (1, 4, 4, 1)),
    case("conv stride 2", conv((3, 3, 1, 2), (2, 2)), (1, 5, 4, 1)),
    variant("conv stride 2 valid", conv((3, 3, 2, 1), (2, 2), "VALID"), (1, 6, 5, 2)),
    variant("conv uneven strides", conv((3, 2, 1, 2), (3, 1)), (1, 7, 3, 1)),
    case("conv stride beyond kernel", conv((1, 2, 1, 2), (2, 3), "VALID"), (2, 5, 7, 1)),
    variant("conv stride 2 explicit", conv((4, 3, 1, 2), (2, 2), [(1, 2), (0, 3)]), (1, 5, 5, 1)),
    variant("conv stride 2 negative", conv((2, 2, 1, 2), (2, 2), [(-1, 1), (1, -2)]), (1, 6, 7, 1)),
    case("conv stride 2 NCHW", conv((2, 2, 3, 3), (2, 2), dimension_numbers=NCHW), (1, 2, 5, 5)),
    case("conv stride 2 odd", conv((2, 3, 2, 2), (2, 1), dimension_numbers=ODD), (2, 4, 1, 5)),
    case("conv NCHW", conv((2, 2, 3, 3), dimension_numbers=NCHW), (1, 2, 3, 3)),
    case("conv dilated", conv((2, 2, 1, 2), rhs_dilation=(2, 3)), (1, 5, 5, 1)),
    variant("conv dilated stride", conv((2, 2, 1, 1), (2, 2), rhs_dilation=(2, 1)), (1, 6, 5, 1)),
    case(
        "conv lhs dilated",
        conv((3, 3, 1, 2), (1, 1), [(0, 0), (1, 2)], lhs_dilation=(2, 2)),
        (1, 3, 3, 1),
    ),
    case(
        "conv lhs dilated stride",
        conv((2, 2, 1, 1), (3, 2), [(1, 1), (2, 0)], lhs_dilation=(2, 3)),
        (1, 4, 3, 1),
    ),
    case("conv groups", conv((2, 2, 2, 4), feature_group_count=2), (1, 3, 3, 4)),
    case("conv depthwise", conv((3, 3, 1, 4), (2, 2), feature_group_count=2), (1, 4, 4, 2)),
    case("conv batch groups", conv((2, 2, 1, 4), batch_group_count=2), (4, 3, 3, 1)),
    variant(
        "conv batch groups stride",
        conv((2, 2, 1, 2), (2, 2), "VALID", batch_group_count=2),
        (2, 5, 4, 1),
    ),
    case("conv 1d", conv((3, 2, 2), (1,), dimension_numbers=NWC), (2, 5, 2)),
    variant(
        "conv 1d stride", conv((2, 2, 3), (2,), dimension_numbers=("NCH", "OIH", "NCH")), (1, 2, 5)
    ),
    case("conv 3d", conv((2, 2, 2, 1, 2), (1, 1, 1), dimension_numbers=NDHWC), (1, 3, 2, 3, 1)),
    variant(
        "conv 3d stride",
        conv((3, 2, 2, 2, 1), (2, 1, 2), "VALID", dimension_numbers=NDHWC),
        (1, 5, 3, 4, 2),
    ),
    case("conv 0d", conv((2, 3), (), [], dimension_numbers=("NC", "IO", "NC")), (2, 2)),
    case(
        "conv transpose",
        lambda x: lax.conv_transpose(x, c(3, 3, 2, 1), (2, 2), "SAME"),
        (1, 3, 2, 2),
    ),
    case(
        "conv transpose valid",
        lambda x: lax.conv_transpose(x, c(2, 3, 1, 2), (3, 2), "VALID"),
        (1, 2, 2, 1),
    ),
    case(
        "conv transpose of a kernel",
        lambda x: lax.conv_transpose(x, c(3, 3, 2, 1), (2, 2), "SAME", transpose_kernel=True),
        (1, 2, 3, 1),
    ),
    case(
        "conv perturbed kernel",
        lambda k: lax.conv_general_dilated(
            c(2, 4, 4, 1), k, (2, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ),
        (3, 2, 1, 2),
    ),
    variant(
        "conv perturbed grouped kernel",
        lambda k: lax.conv_general_dilated(
            c(1, 4, 3, 3), k, (2, 2), "SAME", rhs_dilation=(1, 2), feature_group_count=2
        ),
        (2, 2, 2, 2),
    ),
    case(
        "patches",
        lambda x: lax.conv_general_dilated_patches(x, (2, 2), (1, 2), "SAME"),
        (1, 2, 3, 3),
    ),
]


def variables(layer: nn.Module, x: np.ndarray, **options: Any) -> Any:
    """Random variables of a linen module, none of them at its initial value."""
    shapes = jax.eval_shape(lambda: layer.init(jax.random.key(0), x, **options))

    def drawn(leaf: Any) -> np.ndarray:
        value = c(*leaf.shape, 7)[..., 0]
        return value if len(leaf.shape) > 1 else 0.5 + np.abs(value)

    return jax.tree.map(drawn, shapes)


def module(layer: nn.Module, *shape: int, **options: Any) -> Callable[[Any], Any]:
    """A linen module as a function of its input."""
    return lambda x: layer.apply(variables(layer, np.ones(shape), **options), x, **options)


def kernel_of(layer: nn.Module, x: np.ndarray) -> Callable[[Any], Any]:
    """A linen module as a function of its kernel."""

    def function(kernel: Any) -> Any:
        params = variables(layer, x)["params"]
        return layer.apply({"params": params | {"kernel": kernel}}, x)

    return function


MODULES = [
    case("Dense", module(nn.Dense(2), 1, 3), (2, 3)),
    case("Dense kernel", kernel_of(nn.Dense(2), c(2, 3)), (3, 2)),
    case("DenseGeneral", module(nn.DenseGeneral((2, 2), axis=(-2, -1)), 1, 3, 2), (2, 3, 2)),
    case("Conv", module(nn.Conv(2, (3, 3), strides=(2, 2)), 1, 4, 4, 1), (1, 5, 4, 1)),
    case("Conv circular", module(nn.Conv(1, (3,), padding="CIRCULAR"), 1, 4, 1), (1, 4, 1)),
    case("Conv causal", module(nn.Conv(1, (3,), padding="CAUSAL"), 1, 4, 1), (1, 4, 1)),
    case("Conv kernel", kernel_of(nn.Conv(2, (2, 2)), c(1, 3, 3, 1)), (2, 2, 1, 2)),
    case("ConvTranspose", module(nn.ConvTranspose(2, (3, 3), (2, 2)), 1, 3, 3, 1), (1, 3, 2, 1)),
    variant(
        "ConvTranspose circular",
        module(nn.ConvTranspose(1, (4,), (2,), padding="CIRCULAR"), 1, 3, 1),
        (1, 3, 1),
    ),
    case("BatchNorm", module(nn.BatchNorm(use_running_average=True), 1, 3), (2, 3)),
    case(
        "Embed",
        lambda t: nn.Embed(4, 2).apply({"params": {"embedding": t}}, np.array([3, 0, 3])),
        (4, 2),
    ),
    case("Dropout", module(nn.Dropout(0.5, deterministic=True), 3), (3,)),
    case("nnx Linear", nnx.Linear(3, 2, rngs=nnx.Rngs(0)), (2, 3)),
    case("nnx Conv", nnx.Conv(1, 2, (3, 3), rngs=nnx.Rngs(0)), (1, 3, 3, 1)),
    case(
        "nnx BatchNorm",
        nnx.BatchNorm(3, use_running_average=True, rngs=nnx.Rngs(0)),
        (2, 3),
    ),
    case("nnx Dropout", nnx.Dropout(0.5, deterministic=True, rngs=nnx.Rngs(0)), (3,)),
]


def regular(*shape: int) -> np.ndarray:
    """Known matrices that are far from singular."""
    return 0.5 * c(*shape) + 3 * np.eye(shape[-1])


def positive(size: int) -> np.ndarray:
    """A known positive definite matrix."""
    return regular(size, size) @ regular(size, size).T


EQUATIONS = [
    case("solve", lambda b: jnp.linalg.solve(regular(3, 3), b), (3,)),
    variant("solve, inside", lambda b: jnp.linalg.solve(regular(3, 3), b - 1.0) + b, (3,)),
    case("solve columns", lambda b: jnp.linalg.solve(regular(3, 3), b), (3, 2)),
    variant("solve batch", lambda b: jnp.linalg.solve(regular(2, 3, 3), b), (2, 3, 2)),
    variant("solve mapped", jax.vmap(lambda b: jnp.linalg.solve(regular(3, 3), b)), (2, 3)),
    variant("solve positive", lambda b: jsl.solve(positive(3), b, assume_a="pos"), (3, 2)),
    variant("solve twice", lambda b: jsl.lu_solve(jsl.lu_factor(regular(3, 3)), b, trans=1), (3,)),
    case("cho_solve", lambda b: jsl.cho_solve(jsl.cho_factor(positive(3)), b), (3,)),
    variant("cho_solve lower", lambda b: jsl.cho_solve((regular(3, 3), True), b), (3, 2)),
    variant("solve_triangular", lambda b: jsl.solve_triangular(regular(3, 3), b), (3,)),
    variant(
        "solve_triangular transposed",
        lambda b: jsl.solve_triangular(regular(3, 3), b, trans=1, lower=True, unit_diagonal=True),
        (3, 2),
    ),
    case(
        "triangular_solve right",
        lambda b: lax.linalg.triangular_solve(regular(2, 3, 3), b, transpose_a=True, lower=True),
        (2, 1, 3),
    ),
    case(
        "tridiagonal_solve",
        lambda b: lax.linalg.tridiagonal_solve(
            jnp.asarray([0.0, 1, -1]), jnp.asarray([3.0, -4, 3]), jnp.asarray([1.0, 2, 0]), b
        ),
        (3, 2),
    ),
    variant("inverse", lambda b: jnp.linalg.inv(regular(3, 3)) @ b, (3,)),
    variant("lstsq", lambda b: jnp.linalg.lstsq(c(4, 3), b)[0], (4,)),
    variant(
        "pullback of solve",
        lambda y: jax.vjp(lambda b: jnp.linalg.solve(regular(3, 3), b), c(3))[1](y),
        (3,),
    ),
]

FILTER = c(5) + 1j * c(1, 5)[0]


def scanned_complex(x: Any) -> Any:
    """Turned and shrunk some times."""
    return lax.fori_loop(0, 3, lambda _, z: z * (0.5 + 0.5j), lax.complex(x, x[::-1])).imag


COMPLEX = [
    variant("rfft, real", lambda x: jnp.fft.rfft(x).real, (6,)),
    case("rfft, imag", lambda x: jnp.fft.rfft(x).imag, (2, 5)),
    variant("fft", lambda x: jnp.fft.fft(x, axis=0, norm="ortho").imag, (5, 2)),
    variant("fft2", lambda x: jnp.fft.fft2(x).real, (3, 4)),
    variant("rfft2", lambda x: jnp.fft.rfft2(x).imag, (3, 4)),
    variant("ifft", lambda x: jnp.fft.ifft(x, 8).imag, (5,)),
    case("irfft2", lambda x, y: jnp.fft.irfft2(lax.complex(x, y), (3, 4)), (3, 3), (3, 3)),
    variant("fft long", lambda x: jnp.fft.fftn(x, (3, 2, 4)).imag, (2, 2, 2)),
    case("filter", lambda x: jnp.fft.ifft(jnp.fft.fft(x) * FILTER).real, (5,)),
    variant("fftshift", lambda x: jnp.fft.fftshift(jnp.fft.fft(x)).real, (5,)),
    variant("dct", lambda x: jax.scipy.fft.dct(x), (5,)),
    variant("complex matrix", lambda x: ((c(2, 3) + 1j * c(2, 3)) @ (x + 1j * x[::-1])).imag, (3,)),
    variant("complex quotient", lambda x: (jnp.conj(1j * x + 2) / (3 - 4j)).imag, (3,)),
    variant("complex moves", lambda x: jnp.zeros(4, complex).at[1].set(x[0] * 1j).imag, (3,)),
    variant("complex where", lambda x: jnp.where(MASK[0], x * 1j, 2 * x).imag, (3,)),
    variant("complex sums", lambda x: jnp.cumsum(x * (1 + 2j)).sum(keepdims=True).imag, (3,)),
    case("complex loop", scanned_complex, (3,)),
]

AFFINE = [
    *ARITHMETIC,
    *PRODUCTS,
    *MOVEMENT,
    *CALLS,
    *POOLING,
    *CONVOLUTIONS,
    *MODULES,
    *EQUATIONS,
    *COMPLEX,
]


methods = pytest.mark.parametrize(
    "methods",
    [oracles.in_turn, pytest.param(lambda _: oracles.METHODS, marks=pytest.mark.long)],
    ids=["in turn", "all"],
)


@methods
@pytest.mark.parametrize("case", AFFINE)
def test_affine(case: Case, methods: Methods):
    """Every method attains the exact extremes."""
    boxes = case.boxes()
    graph, bounds = oracles.check_every_node(case.function, boxes, methods(case.number))
    exact = oracles.affine_extrema(case.function, *boxes)
    ibp = oracles.METHODS["ibp"](case.function)(*boxes)
    actual = list(zip(*map(jax.tree.leaves, ibp), strict=True))
    for (lower, upper), (low, high) in zip(actual, exact, strict=True):
        oracles.equal(lower, low, "ibp")
        oracles.equal(upper, high, "ibp")
    values = [v for v, out in zip(exact, graph.outputs, strict=True) if isinstance(out, Ref)]
    places = [oracles.live_refs(graph).index(ref) for ref in graph.targets]
    for name in bounds.keys() - {"ibp"}:
        for place, (low, high) in zip(places, values, strict=True):
            oracles.equal(bounds[name].lower[place], low, name)
            oracles.equal(bounds[name].upper[place], high, name)


@pytest.mark.parametrize("method", oracles.METHODS.values(), ids=oracles.METHODS)
def test_solutions_are_bounded_as_products_with_the_inverse(method: Any):
    """Inside a function too, where intervals are no wider for the factors of the matrix; and the
    derivative of bounds by the matrix is that of its inverse."""
    a, b = jnp.asarray(regular(3, 3)), jnp.asarray(c(3))
    solved, inverted = (
        lambda a, b: jnp.tanh(jnp.linalg.solve(a, b)),
        lambda a, b: jnp.tanh(jnp.linalg.inv(a) @ b),
    )

    def total(fn: Any) -> Any:
        return jax.value_and_grad(lambda a: jnp.sum(jnp.stack(method(fn)(a, b, 0.2)) ** 2))(a)

    for found, expected in zip(total(solved), total(inverted), strict=True):
        oracles.equal(found, expected)


def test_long_transforms_go_axis_by_axis(monkeypatch: pytest.MonkeyPatch):
    """As one matrix they would not fit into memory; but for rounding they are the same."""
    monkeypatch.setattr("jaxlirpa._ops.rules.complex._LARGEST", 16)
    signal, spectrum = jnp.asarray(c(4, 2, 5)), jnp.asarray(c(4, 2, 3) + 1j * c(1, 4, 2, 3)[0])
    for function, x in [
        (jnp.fft.rfftn, signal),
        (jnp.fft.fftn, signal),
        (jnp.fft.ifftn, spectrum),
        (jnp.fft.irfftn, spectrum),
        (jnp.fft.irfft, spectrum),
    ]:

        def parts(t: Any, function: Any = function, x: Any = x) -> Any:
            z = function(t * x)
            return z.real, z.imag

        ((real, imag), _) = jaxlirpa.ibp(parts)(jaxlirpa.Box(jnp.ones(()), jnp.ones(())))
        oracles.equal(real, function(x).real)
        oracles.equal(imag, function(x).imag)


# ---- nonlinear functions -------------------------------------------------------------------


def hidden(activation: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """An activation between two layers, the second of which makes its lines matter."""
    return lambda x: activation(x @ c(3, 4) - 0.2) @ c(4, 2)


def normalised(d: Any) -> Any:
    """A vector divided by its norm."""
    return d * lax.rsqrt(jnp.mean(lax.square(d)) + 1e-3)


W = c(3, 4)
ORDERS = lax.lt_to_p, lax.le_to_p, lax.eq_to_p
KNOTS = np.array([-1.0, -0.2, 0.3, 0.3, 1.0])
ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "relu": jax.nn.relu,
    "relu, linen": nn.relu,
    "max": lambda x: jnp.maximum(x, 0.3),
    "max, constant first": lambda x: jnp.maximum(-0.3, x),
    "max of an array": lambda x: jnp.maximum(x, c(4)),
    "min": lambda x: jnp.minimum(x, 0.3),
    "min of an array": lambda x: jnp.minimum(c(4), x),
    "max and min": lambda x: jnp.maximum(jnp.minimum(x, 0.8), -0.4),
    "abs": jnp.abs,
    "abs, python": abs,
    "leaky_relu": jax.nn.leaky_relu,
    "leaky_relu 0.2": lambda x: jax.nn.leaky_relu(x, 0.2),
    "leaky_relu keyword": lambda x: jax.nn.leaky_relu(x, negative_slope=0.3),
    "leaky_relu falling": lambda x: jax.nn.leaky_relu(x, -0.5),
    "leaky_relu steep": lambda x: jax.nn.leaky_relu(x, 1.5),
    "leaky_relu per entry": lambda x: jax.nn.leaky_relu(x, np.array([0.1, -0.2, 1.0, 2.0])),
    "relu6": jax.nn.relu6,
    "hard_tanh": jax.nn.hard_tanh,
    "clip": lambda x: jnp.clip(x, -0.5, 0.4),
    "clip below": lambda x: jnp.clip(x, -0.5),
    "clip above": lambda x: jnp.clip(x, max=0.4),
    "clip arrays": lambda x: jnp.clip(x, -np.abs(c(4)), np.abs(c(4, 1)[:, 0])),
    "clip the other way round": lambda x: jnp.clip(x, 0.5, -0.5),
    "clip infinite": lambda x: jnp.clip(x, -jnp.inf, jnp.inf),
    "clamp": lambda x: lax.clamp(-0.2, x, 0.9),
    "clamp arrays": lambda x: lax.clamp(-np.abs(c(4)), x, np.abs(c(4))),
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "hard_sigmoid": jax.nn.hard_sigmoid,
    "exp": jnp.exp,
    "exp2": jnp.exp2,
    "expm1": jnp.expm1,
    "log": lambda x: jnp.log(jnp.abs(x) + 0.1),
    "log1p": lambda x: jnp.log1p(jax.nn.relu(x)),
    "sqrt": lambda x: jnp.sqrt(jnp.abs(x)),
    "rsqrt": lambda x: lax.rsqrt(jnp.abs(x) + 0.2),
    "cbrt": jnp.cbrt,
    "square": jnp.square,
    "cube": lambda x: x**3,
    "reciprocal": lambda x: 1.0 / (jnp.abs(x) + 0.3),
    "quotient of an array": lambda x: c(4) / (-jnp.abs(x) - 0.3),
    "pow": lambda x: jnp.abs(x) ** 1.7,
    "pow of an array": lambda x: (jnp.abs(x) + 0.1) ** np.array([0.5, -1.5, 2.0, 3.0]),
    "pow of whole numbers": lambda x: x ** np.arange(4.0),
    "pow of a known base": lambda x: np.array([0.5, 1.0, 2.0, 3.0]) ** x,
    "pow of a scalar base": lambda x: (x.sum() ** 2 + 0.5) ** c(4),
    "sin": jnp.sin,
    "cos": lambda x: jnp.cos(3.0 * x),
    "tan": lambda x: jnp.tan(jnp.tanh(x)),
    "asin": lambda x: jnp.arcsin(jnp.clip(x, -1.0, 1.0)),
    "acos": lambda x: jnp.arccos(jnp.clip(x, -0.9, 0.9)),
    "atan": jnp.arctan,
    "sinh": jnp.sinh,
    "cosh": jnp.cosh,
    "asinh": jnp.arcsinh,
    "acosh": lambda x: jnp.arccosh(1.1 + jnp.abs(x)),
    "atanh": lambda x: jnp.arctanh(jnp.clip(x, -0.9, 0.9)),
    "erf": jax.lax.erf,
    "erfc": jax.lax.erfc,
    "erf_inv": lambda x: jax.lax.erf_inv(jnp.clip(x, -0.9, 0.9)),
    "lgamma": lambda x: lax.lgamma(jnp.abs(x) + 0.1),
    "digamma": lambda x: lax.digamma(jnp.abs(x) + 0.1),
    "sign": jnp.sign,
    "floor": jnp.floor,
    "ceil": jnp.ceil,
    "round": jnp.round,
    "round away": lambda x: lax.round(x, lax.RoundingMethod.AWAY_FROM_ZERO),
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "elu": jax.nn.elu,
    "elu of an array": lambda x: jax.nn.elu(x, np.abs(c(4))),
    "selu": jax.nn.selu,
    "celu": lambda x: jax.nn.celu(x, 0.7),
    "mish": jax.nn.mish,
    "soft_sign": jax.nn.soft_sign,
    "log_sigmoid": jax.nn.log_sigmoid,
    "hard_silu": jax.nn.hard_swish,
    "squareplus": jax.nn.squareplus,
    "squareplus 1": lambda x: jax.nn.squareplus(x, 1.0),
    "sparse_plus": jax.nn.sparse_plus,
    "sinc": jnp.sinc,
    "interp": lambda x: jnp.interp(x, KNOTS, c(5)),
    "interp beyond": lambda x: jnp.interp(x, KNOTS, c(5), left=1.5, right="extrapolate"),
    "interp of a period": lambda x: jnp.interp(x, KNOTS, c(5), period=1.5),
    "interp, mapped": jax.vmap(lambda x: jnp.interp(x, KNOTS[:3], c(3), "extrapolate", -1.0)),
    "interp of one knot": lambda x: jnp.interp(x, KNOTS[:1], c(1), left=1.5),
    "sparse_sigmoid": jax.nn.sparse_sigmoid,
    "soft threshold": lambda x: jax.nn.relu(x - 0.2) - jax.nn.relu(-x - 0.2),
    "maxout of one": lambda x: x + jax.nn.relu(0.5 - x),
    "crelu": lambda x: jnp.concatenate([jax.nn.relu(x[:2]), jax.nn.relu(-x[2:])]),
    "twice": lambda x: jnp.tanh(jax.nn.relu(x) - 0.5 * jnp.abs(x)),
    "residual": lambda x: x + jax.nn.relu(x @ c(4, 4)),
}
NONLINEAR = [
    *[case(name, hidden(activation), (3,)) for name, activation in ACTIVATIONS.items()],
    case("abs of a scalar", lambda x: jnp.abs(x - 0.1), ()),
    case("relu of the input", lambda x: jax.nn.relu(x) - 0.5 * x, (3,)),
    case("output is hidden too", lambda x: (jnp.abs(x @ W), jnp.abs(x @ W).sum()), (3,)),
    case("perturbed weights", lambda w, b: jax.nn.relu(c(2, 3) @ w + b), (3, 2), (2,)),
    case(
        "perturbed layers",
        lambda w, v, b: c(2) @ (jax.nn.relu(w @ c(3)) + v) + b,
        (2, 3),
        (2,),
        (),
    ),
    case(
        "perturbed convolution",
        lambda x, k: lax.conv_general_dilated(x, k, (2,), [(1, 0)], (1,), (2,), NWC),
        (1, 5, 1),
        (2, 1, 1),
    ),
    case("stop_gradient", lambda x: jax.nn.relu(lax.stop_gradient(x) - x + 0.2), (3,)),
    case(
        "convolutions",
        lambda x: conv((2, 2, 2, 1), (2, 2))(jax.nn.relu(conv((3, 3, 1, 2), (2, 1))(x))),
        (1, 5, 4, 1),
    ),
    variant(
        "convolutions NCHW",
        lambda x: conv((1, 2, 2, 2), (1, 2), dimension_numbers=NCHW)(
            jnp.tanh(conv((2, 1, 3, 3), (2, 2), dimension_numbers=NCHW)(x))
        ),
        (2, 1, 4, 5),
    ),
    case(
        "convolution, pool, dense",
        lambda x: nn.avg_pool(jax.nn.relu(conv((3, 3, 1, 2))(x)), (2, 2), (2, 2)).ravel() @ c(8, 2),
        (1, 4, 4, 1),
    ),
    variant(
        "transposed",
        lambda x: jnp.abs(lax.conv_transpose(jnp.tanh(x), c(3, 1, 2), (2,), "SAME")),
        (1, 3, 1),
    ),
    case("power spectrum", lambda x: jnp.abs(jnp.fft.rfft(x)) ** 2, (5,)),
    variant("power spectrum, conj", lambda x: (jnp.fft.fft(x) * jnp.fft.fft(x).conj()).real, (5,)),
    variant("spectrum", lambda x: jnp.abs(jnp.fft.rfft2(jnp.tanh(x))), (3, 4)),
    variant("phase", lambda x: jnp.angle(jnp.fft.rfft(x) + 4), (4,)),
    variant("fftconvolve", lambda x, y: jax.scipy.signal.fftconvolve(x, y), (3,), (2,)),
    variant("complex exponential", lambda x: (jnp.exp(x * (1j - 0.5)) ** 3).real, (3,)),
    variant("complex division", lambda x: (x * 1j / (2 + 1j * jnp.square(x))).imag, (3,)),
    variant("complex equality", lambda x: (x * 1j == 1j) | (x + 0j != x[::-1]), (3,)),
    case("atan2", lambda y, x: jnp.arctan2(y @ c(3, 4), x @ c(2, 4) + 4.0) @ c(4, 2), (3,), (2,)),
    case("atan2 above", lambda y, x: jnp.arctan2(jnp.exp(y), x), (4,), (4,)),
    case("atan2 anywhere", lambda y, x: jnp.arctan2(y, x), (12,), (12,)),
    case("atan2 of a constant", lambda x: jnp.arctan2(c(8), x) - jnp.arctan2(x, c(8)), (8,)),
    case("products of negatives", lambda x, y: ((-x) * (-y), (-x) * (2 * y)), (3,), (3,)),
    case("no variance", lambda x: lax.square(x).sum() / 2 - lax.square(x.sum() / 2), (3,)),
    case("normalised, not centred", lambda x: normalised(x - x.sum() / 4), (2,)),
    case("normalised", lambda x: normalised(x - x.sum() / 3), (3,)),
    case("truth values", lambda x: (~(x > 0), (x > 0) ^ (x < 1), (x > 1) | (x < 0)), (9,)),
    case("rounded", lambda x: x.astype(jnp.bfloat16).astype(x.dtype) - x, (9,)),
    case("rounded digits", lambda x: lax.reduce_precision(x, 5, 10) - x, (9,)),
    case("at multiply", lambda x, y: x.at[np.array([2, 0, 2, 2])].mul(y), (4,), (4,)),
    case("at multiply known", lambda x: x.at[1:, np.array([0, 0])].mul(c(2, 2)), (3, 2)),
    case("at multiply into", lambda y: jnp.asarray(c(3)).at[np.array([-1, 7])].mul(y), (2,)),
    case("at max", lambda x, y: x.at[np.array([[1], [0], [1]]), :2].max(y), (2, 3), (3, 1, 2)),
    case("at max known", lambda x: x.at[np.array([1, 1, 5])].max(c(3)), (3,)),
    case("at min", lambda x, y: x.at[np.array([1, 1])].min(jnp.tanh(y)), (3,), (2,)),
    case("at min of nothing", lambda x: x.at[np.zeros(0, int)].min(c(0)) * x, (3,)),
    case("segment_max", lambda x: jax.ops.segment_max(x, np.array([0, 1, 1, 0]), 2), (4,)),
    case("at set truths", lambda x, y: (x > 0).at[MASK[0]].set(y > 0), (3,), (2,)),
    case("argmax", lambda x: [jnp.argmax(x, axis) for axis in (None, 0, 1)], (2, 3)),
    case("argmin", lambda x: lax.argmin(jnp.round(x).astype(np.uint8), 1, np.int8), (2, 3)),
    case("argmax of truths", lambda x: jnp.argmax(x > 0, 0) - jnp.argmin(x > 0.3, 0), (4, 3)),
    case(
        "at the largest",
        lambda x, y: y[:, jnp.argmax(x)] + jnp.asarray(c(3))[jnp.argmin(x)],
        (3,),
        (2, 3),
    ),
    case("at integers", lambda x: x[jnp.round(x).astype(int)], (4,)),
    case(
        "at integers, or filled",
        lambda x: jnp.take(x, jnp.floor(2 * x).astype(int), 1, mode="fill", fill_value=9.0),
        (2, 2),
    ),
    case("taken along", lambda x: jnp.take_along_axis(x, (x[:, :1] > 0).astype(int), 1), (2, 3)),
    case(
        "slice at places",
        lambda x, y: lax.dynamic_slice(x, (jnp.argmax(y), 1, jnp.argmin(y)), (2, 1, 1)),
        (3, 2, 3),
        (3,),
    ),
    case("searchsorted", lambda x, y: jnp.searchsorted(jnp.sort(x), y), (4,), (2, 3)),
    case("digitize", lambda x: jnp.digitize(x, KNOTS[::-1], right=True) * x, (6,)),
    case("total order", lambda x, y: [p.bind(x, y) for p in ORDERS], (12,), (12,)),
    case("select", lambda x: jnp.select([x < 0, x[::-1] > 0.5], [x, x * x], jnp.sin(x)), (6,)),
    case(
        "select integers",
        lambda x: jnp.select([x < 0, x > 0.5], [jnp.floor(x).astype(int), 1], default=5),
        (6,),
    ),
    case("piecewise", lambda x: jnp.piecewise(x, [x < 0, x > 0.5], [abs, jnp.sin, 2.0]), (6,)),
    case("switch", lambda x: lax.switch(jnp.argmax(x), [jnp.sin, jnp.cos, jnp.tanh], x), (3,)),
    case("reduce, sum", lambda x: lax.reduce(x, 0.5, lax.add, (1,)), (2, 3)),
    case("reduce, product", lambda x: lax.reduce(x, 2.0, lambda a, b: b * a, (0,)), (2, 3)),
    case("reduce, max", lambda x, y: lax.reduce(x, y, lax.max, (0, 1)), (2, 3), ()),
    case("reduce, min", lambda x: lax.reduce(x, 0.1, jnp.minimum, (1,)), (2, 3)),
    case("reduce, and", lambda x: lax.reduce(x > 0, x[0, 0] > 1, lax.bitwise_and, (1,)), (2, 3)),
    case("reduce, or", lambda x: lax.reduce(x > 0, x[0, 0] < 1, lax.bitwise_or, (1,)), (2, 3)),
    case(
        "reduce_window, max",
        lambda x: lax.reduce_window(x, 0.2, lax.max, (2, 2), (1, 2), "SAME"),
        (2, 3),
    ),
    case(
        "reduce_window, product",
        lambda x: lax.reduce_window(x, 1.0, lax.mul, (2,), (1,), [(1, 1)]),
        (3,),
    ),
    variant(
        "resized", lambda x: jax.image.resize(jax.nn.relu(x), (4, 3), "bilinear") @ c(3, 2), (2, 2)
    ),
]


@methods
@pytest.mark.parametrize("case", NONLINEAR)
def test_nonlinear(case: Case, methods: Methods):
    """Every node's box holds what it computes, and linear methods are no looser than intervals."""
    found = methods(case.number)
    graph, bounds = oracles.check_every_node(case.function, case.boxes(), found, count=64)
    for name in bounds.keys() - {"ibp", "forward_crown"}:
        for i, ref in enumerate(oracles.live_refs(graph)):
            what = f"{name}: {graph.nodes[ref.node].primitive} {ref}"
            room = oracles.slack(bounds["ibp"].lower[i], bounds["ibp"].upper[i])
            assert (bounds[name].lower[i] >= bounds["ibp"].lower[i] - room).all(), what
            assert (bounds[name].upper[i] <= bounds["ibp"].upper[i] + room).all(), what


@pytest.mark.parametrize("method", oracles.METHODS.values(), ids=oracles.METHODS)
def test_angles(method: Any):
    """Exact where the angle is continuous; any angle where it jumps, or the origin is met."""
    y = jaxlirpa.Box(jnp.array([1.0, -1, -2, -1, 0, -1, -1]), jnp.array([2.0, 1, -1, 1, 1, 0, 1]))
    x = jaxlirpa.Box(jnp.array([-1.0, 1, -1, -2, -2, -2, 0]), jnp.array([1.0, 2, 0, -1, -1, 0, 1]))
    quarter, pi = np.pi / 4, np.pi
    lower, upper = method(jnp.arctan2)(y, x)
    oracles.equal(lower, [quarter, -quarter, -3 * quarter, -pi, -pi, -pi, -pi])
    oracles.equal(upper, [3 * quarter, quarter, -2 * quarter, pi, pi, pi, pi])
    assert (lower[3:] <= -pi).all() and (upper[3:] >= pi).all()


@pytest.mark.few(10)
@pytest.mark.parametrize("ord", [1, 1.5, 2, 3, np.inf])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu falling", "clip", "abs", "sigmoid"])
def test_nonlinear_on_balls(activation: str, ord: float):
    ball = jaxlirpa.LpBall(jnp.asarray(c(3)), jnp.array([0.4, 0.0, 0.9]), ord)
    oracles.check_every_node(hidden(ACTIVATIONS[activation]), [ball], count=256)


@pytest.mark.parametrize("name", ["relu", "clip", "tanh", "leaky_relu 0.2"])
def test_single_precision(name: str):
    """All that is computed stays in the precision of the arguments."""
    activation, first, second = ACTIVATIONS[name], np.float32(c(3, 4)), np.float32(c(4, 2))
    boxes = Case(name, activation, ((3,),)).boxes(np.float32)
    _, bounds = oracles.check_every_node(lambda x: activation(x @ first) @ second, boxes)
    assert {x.dtype for x in jax.tree.leaves(bounds)} == {np.dtype(np.float32)}


@pytest.mark.parametrize("ord", [2, np.inf])
def test_nothing_is_promoted(ord: float):
    """The user may have forbidden NumPy's implicit promotion of ranks and types."""

    def function(x: Any, w: Any) -> Any:
        y = jnp.concatenate([jnp.abs(w * 2.0), jnp.tanh(x)], 1).reshape(2, 2, 2, 1)
        y = conv((2, 2, 1, 1), (2, 1))(jax.nn.leaky_relu(y / -3.0)) - 1.0
        return jnp.clip(y.sum(3), -1.0, 1.0) @ c(2, 2)

    sets = [jaxlirpa.LpBall(jnp.asarray(c(2, 2)), 0.1, ord) for _ in range(2)]
    sets[1] = dataclasses.replace(sets[1], radius=jnp.full((2, 1), 0.1))
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        oracles.check_every_node(function, sets)


@pytest.mark.parametrize("method", oracles.METHODS.values(), ids=oracles.METHODS)
def test_nothing_is_concluded_from_a_limit_that_is_not_a_number(method: Any):
    """Forms over a box without end have such limits."""
    boxes = jaxlirpa.Box(jnp.array(-1.0), 1.0), jaxlirpa.Box(-jnp.inf, jnp.array(1.0))
    lower, upper = method(lambda x, y: jnp.clip(4 * x, 0, 2).astype(int))(*boxes)
    assert lower <= 0 and upper >= 2


@pytest.mark.parametrize("method", oracles.METHODS.values(), ids=oracles.METHODS)
def test_a_limit_that_is_not_a_number_is_not_sorted(method: Any):
    """Such limits would come last, and leave their places to limits of other entries."""
    box = jaxlirpa.Box(jnp.array([1.0, -1.0, 1.0]), jnp.array([jnp.inf, -1.0, jnp.inf]))

    def fn(x: Any) -> Any:
        return jnp.sort(jnp.concatenate([jax.nn.log_softmax(x), x]))

    lower, upper = method(fn)(box)
    for far in (2.0, 1e3, 1e6):
        value = fn(jnp.array([1.0, -1.0, far]))
        assert np.all(lower <= value) and np.all(value <= upper)


@pytest.mark.slow
def test_planes_of_values_that_are_relaxed_themselves():
    """Of those, what is known from below and from above is not the same function."""

    def joint(x: Any) -> Any:
        a, b = jnp.tanh(x @ W), jax.nn.relu(x @ c(3, 4, 1)[..., 0])
        return a * b, jnp.dot(a, -b), jnp.max(a - b), jax.nn.logsumexp(b - a)

    box = jaxlirpa.Box(jnp.full(3, -0.5), jnp.full(3, 0.5))
    oracles.check_every_node(joint, [box], oracles.METHODS, count=256)


@pytest.mark.parametrize("method", oracles.METHODS.values(), ids=oracles.METHODS)
def test_what_may_be_zero_may_be_false(method: Any):
    box = jaxlirpa.Box(jnp.array([-1.0, 0, 0.5, -2]), jnp.array([1.0, 0, 1, -0.5]))
    lower, upper = method(lambda x: x.astype(bool))(box)
    np.testing.assert_array_equal(lower, [False, False, True, True])
    np.testing.assert_array_equal(upper, [True, False, True, True])


@pytest.mark.parametrize("method", oracles.METHODS.values(), ids=oracles.METHODS)
def test_numbers_equal_themselves(method: Any):
    """`isnan` is `x != x`: known where a box is finite, and no_axis else."""
    box = jaxlirpa.Box(jnp.array([0.5, -1.0, 0.0]), jnp.array([1.0, -0.5, jnp.inf]))
    lower, upper = method(lambda x: [(x == x) & (x <= x), (x != x) | (x < x)])(box)
    np.testing.assert_array_equal(lower, [[True, True, False], [False, False, False]])
    np.testing.assert_array_equal(upper, [[True, True, True], [False, False, True]])


@pytest.mark.parametrize("method", oracles.METHODS.values(), ids=oracles.METHODS)
@pytest.mark.parametrize("fn", [jnp.median, jnp.nanmean, jnp.nan_to_num], ids=lambda f: f.__name__)
def test_guards_against_what_is_no_number_cost_nothing(fn: Any, method: Any):
    """What such a function is of numbers: bounds are as tight as without the guard."""
    x = jnp.array([0.5, -1.0, 2.0])
    plain = {"median": lambda x: jnp.sort(x)[1], "nanmean": jnp.mean, "nan_to_num": lambda x: x}
    found, expected = (method(f)(x, 0.1) for f in (fn, plain[fn.__name__]))
    for a, b in zip(found, expected, strict=True):
        oracles.equal(a, b)


def test_widening():
    """Values may become more precise on the way; the bounds are those of the shorter numbers."""
    (box,) = Case("widening", abs, ((3,),)).boxes(np.float32)

    def function(x: Any) -> Any:
        return jnp.abs(x.astype(jnp.float64) @ c(3, 4)) @ c(4, 2)

    values = np.stack([function(x) for x in oracles.sample(box, 0, 64)]).astype(np.float32)
    for name, method in oracles.METHODS.items():
        oracles.contains(values, *(np.float32(x) for x in method(function)(box)), name)


# ---- the tests themselves ------------------------------------------------------------------


WRONG = {
    "neg": Affine((+1,), mixes=False),
    "sub": Affine((+1, +1), mixes=False),
    "tanh": Elementwise(lambda node: Clip(jnp.array(-0.1), jnp.array(0.1))),
    "reduce_sum": Affine((-1,), mixes=True),
    "mul": Affine((+1, +1), mixes=False),
}


@pytest.mark.parametrize("primitive", WRONG)
def test_a_wrong_record_is_caught(primitive: str, monkeypatch: pytest.MonkeyPatch):
    def function(x: Any) -> Any:
        return jnp.sum(jnp.tanh(-x) * np.array([1.0, -2.0, 3.0])) - x

    box = jaxlirpa.Box(jnp.full(3, -0.5), jnp.full(3, 1.0))
    oracles.check_every_node(function, [box])
    monkeypatch.setitem(RECORDS, primitive, WRONG[primitive])
    with pytest.raises(AssertionError, match=f"{primitive} Ref"):
        oracles.check_every_node(function, [box])
