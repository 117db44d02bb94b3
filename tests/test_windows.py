"""Rows carried as windows give the very bounds of dense rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import arithmetic
import jax
import jax.numpy as jnp
import lirpa
import numpy as np
import pytest

import jaxlirpa
from jaxlirpa._domains.windows import layout_of
from jaxlirpa._methods import layerwise
from jaxlirpa._methods.chunks import by_chunks
from jaxlirpa._methods.layerwise import _Layers

RANDOM = np.random.default_rng(0)
NHWC, NCHW = ("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW")
Function = Callable[[jax.Array], jax.Array]


def kernel(*shape: int) -> jax.Array:
    """A random kernel that keeps the scale of what it convolves."""
    return jnp.asarray(RANDOM.normal(size=shape) / np.sqrt(np.prod(shape[:-1])))


def image(*shape: int) -> jax.Array:
    """Random numbers, the same whichever tests ran before."""
    return jnp.asarray(np.random.default_rng(1).normal(size=shape))


def conv(
    x: jax.Array,
    weight: jax.Array,
    stride: int = 1,
    padding: int | str = 1,
    dilation: int = 1,
    groups: int = 1,
    layout: tuple[str, str, str] = NHWC,
) -> jax.Array:
    """A convolution in as many dimensions as the layout says."""
    space = len(layout[0]) - 2
    pads = padding if isinstance(padding, str) else [(padding, padding)] * space
    return jax.lax.conv_general_dilated(
        x,
        weight,
        (stride,) * space,
        pads,
        rhs_dilation=(dilation,) * space,
        feature_group_count=groups,
        dimension_numbers=layout,
    )


W1, W2, W3, W4 = kernel(3, 3, 2, 4), kernel(4, 4, 4, 5), kernel(3, 3, 5, 5), kernel(1, 1, 4, 5)
WG, WD, W5 = kernel(3, 3, 2, 4), kernel(3, 3, 4, 4), kernel(5, 8, 3, 3)
relu = jax.nn.relu


def plain(x: jax.Array) -> jax.Array:
    """Strides, biases and padding."""
    h = relu(conv(x, W1) + 0.1)
    return relu(conv(relu(conv(h, W2, 2) - 0.2), W3)).sum(axis=(1, 2))


def residual(x: jax.Array) -> jax.Array:
    """Two branches of different reach, and a scaling per channel as BatchNorm's."""
    h = relu(conv(x, W1, 2))
    y = conv(relu(conv(h, W2, 2)), W3) + conv(h, W4, 2, 0)
    y = relu((y - 0.1) * jnp.arange(-2.0, 3.0) / 3)
    return relu(conv(y, W3, 1, "SAME")).sum(axis=(1, 2))


def pooled(x: jax.Array) -> jax.Array:
    """Dilation, groups, average pooling and curved functions."""
    h = jnp.tanh(conv(x, W1, 2, 2, dilation=2))
    h = jax.nn.leaky_relu(conv(h, WG, groups=2))
    h = jax.lax.reduce_window(h, 0.0, jax.lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "SAME") / -4
    return jax.nn.sigmoid(conv(h, WD, 1, 0)).sum(axis=(1, 2))


def channels_first(x: jax.Array) -> jax.Array:
    """Images with channels first, and two convolutions without a function between them."""

    def turned(weight: jax.Array) -> jax.Array:
        return weight.transpose(3, 2, 0, 1)

    h = relu(conv(x, turned(W1), 1, 0, layout=NCHW))
    h = conv(conv(h, turned(W2), 2, layout=NCHW), turned(W3), layout=NCHW)
    return relu(jnp.abs(h) - 0.5).sum(axis=(2, 3))


def signal(x: jax.Array) -> jax.Array:
    """One dimension."""
    layout = ("NHC", "HIO", "NHC")
    h = relu(conv(x, W1[0], 2, layout=layout))
    return relu(conv(h, W2[0], 2, layout=layout)).sum(axis=1)


def one_image(x: jax.Array) -> jax.Array:
    """An image without a batch: overlapping max pooling, a product, and channels put together."""
    h = relu(conv(x[None], W1))
    h = jnp.concatenate([h, jnp.tanh(h) * jax.nn.sigmoid(conv(h, WD))], -1)
    h = jax.lax.reduce_window(h, -jnp.inf, jax.lax.max, (1, 3, 1, 1), (1, 2, 1, 1), "SAME")
    h = conv(h.transpose(0, 3, 1, 2), W5, layout=NCHW)
    return relu(h.transpose(0, 2, 3, 1) - 0.1).sum(axis=(0, 1, 2))


def compiled(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.jit` that compiles fast rather than well."""
    return jax.jit(fn, compiler_options={"xla_backend_optimization_level": 0})


CASES = {
    "plain": (plain, (1, 12, 12, 2)),
    "residual": (residual, (1, 24, 24, 2)),
    "batch": (residual, (2, 24, 24, 2)),
    "pooled": (pooled, (1, 28, 28, 2)),
    "channels_first": (channels_first, (1, 2, 14, 14)),
    "signal": (signal, (2, 40, 2)),
    "one_image": (one_image, (15, 9, 2)),
}


@pytest.mark.parametrize("fn, shape", CASES.values(), ids=CASES)
def test_windows_equal_dense_rows(
    fn: Function, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = image(*shape)
    used = []

    def observed(*args: object) -> object:
        used.append(layout_of(*args))
        return used[-1]

    monkeypatch.setattr(layerwise, "layout_of", observed)
    windowed = arithmetic.jit(lirpa.crown(fn))(x, 0.2)
    monkeypatch.setattr(layerwise, "layout_of", lambda *args: None)
    # Windows are computed for all entries, so the dense rows must be too.
    dense = arithmetic.jit(lirpa.crown(fn, rows_per_chunk=10**6))(x, 0.2)
    assert any(layout is not None for layout in used)
    np.testing.assert_allclose(windowed.lower, dense.lower, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(windowed.upper, dense.upper, rtol=1e-11, atol=1e-11)


@pytest.mark.few(slow=2)
@pytest.mark.parametrize("rows", [1, pytest.param(30, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "case", [*(pytest.param(x, marks=pytest.mark.slow) for x in ("residual", "pooled")), "signal"]
)
def test_pixels_in_chunks(case: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of as many channels as there are at least; and only those pixels that need it."""
    fn, shape = CASES[case]
    x, chunks = image(*shape), []

    def observed(bound: Any, box: Any, needed: jax.Array, size: int) -> Any:
        chunks.append((len(needed), size))
        return by_chunks(bound, box, needed, size)

    monkeypatch.setattr(layerwise, "by_chunks", observed)
    value, whole = fn(x), compiled(lirpa.crown(fn, rows_per_chunk=10**6))(x, 0.1)
    assert not chunks
    lower, upper = compiled(lirpa.crown(fn, rows_per_chunk=rows))(x, 0.1)
    assert any(pixels > size for pixels, size in chunks)
    assert (lower <= value).all() and (value <= upper).all()
    assert (upper - lower <= 1.1 * (whole.upper - whole.lower) + 1e-9).all()
    monkeypatch.setattr(_Layers, "_open", lambda self, ref, box: jnp.ones(box.lower.shape, bool))
    for mine, other in zip(
        compiled(lirpa.crown(fn, rows_per_chunk=rows))(x, 0.1), whole, strict=True
    ):
        np.testing.assert_allclose(mine, other, rtol=1e-11, atol=1e-11)


@pytest.mark.slow
def test_windows_have_the_gradient_of_dense_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    x = image(1, 12, 12, 2)

    def width(x: jax.Array, eps: float) -> jax.Array:
        lower, upper = lirpa.crown(plain)(x, eps)
        return (upper - lower).sum()

    windowed = compiled(jax.grad(width, (0, 1)))(x, 0.2)
    monkeypatch.setattr(layerwise, "layout_of", lambda *args: None)
    dense = compiled(jax.grad(width, (0, 1)))(x, 0.2)
    for mine, other in zip(windowed, dense, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_norm_balls_and_moved_images_stay_dense() -> None:
    x = image(1, 12, 12, 2)
    ball = jaxlirpa.LpBall(x, 0.1, ord=2)
    lower, upper = compiled(lirpa.crown(plain))(ball)
    turned = compiled(lirpa.crown(lambda x: plain(x[:, ::-1])))(x[:, ::-1], 0.1)
    straight = compiled(lirpa.crown(plain))(x, 0.1)
    assert (lower <= plain(x)).all() and (plain(x) <= upper).all()
    np.testing.assert_allclose(turned.lower, straight.lower, rtol=1e-9)
