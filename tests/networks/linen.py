"""Networks in flax linen, in inference mode: small, but with the topology of their originals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from .plain import Network, random_weights

Function = Callable[[Any], Any]


def network(module: nn.Module, shape: Sequence[int], eps: float = 0.01) -> Network:
    """A module with random weights, and a batch of one example."""
    x = jax.ShapeDtypeStruct((1, *shape), float)
    params = random_weights(jax.eval_shape(module.init, jax.random.key(0), x))
    return Network(module.apply, params, x.shape, eps)


def _norm() -> nn.BatchNorm:
    return nn.BatchNorm(use_running_average=True)


class MLP(nn.Module):
    """Dense layers with an activation between them."""

    activation: Function = nn.relu

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Vectors to three outputs."""
        for width in (8, 6):
            x = self.activation(nn.Dense(width)(x))
        return nn.Dense(3)(x)


class CNN(nn.Module):
    """Convolutions with overlapping and with padded max pooling."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Images to three outputs."""
        x = nn.relu(nn.Conv(4, (3, 3))(x))
        x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
        x = nn.relu(nn.Conv(4, (2, 2), padding="VALID")(x))
        x = nn.max_pool(x, (2, 2), (1, 1), "VALID")
        return nn.Dense(3)(x.reshape(x.shape[0], -1))


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut (He et al. 2016a)."""

    width: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Halves the image where the stride is two."""
        y = nn.Conv(self.width, (3, 3), self.stride, use_bias=False)(x)
        y = nn.relu(_norm()(y))
        y = _norm()(nn.Conv(self.width, (3, 3), use_bias=False)(y))
        if y.shape != x.shape:
            x = _norm()(nn.Conv(self.width, (1, 1), self.stride, use_bias=False)(x))
        return nn.relu(x + y)


class ResNet(nn.Module):
    """ResNet of basic blocks; `(2, 2, 2, 2)` of them are a ResNet-18."""

    blocks: Sequence[int]
    widths: Sequence[int]
    imagenet_stem: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Images to three outputs."""
        window, stride = (7, 2) if self.imagenet_stem else (3, 1)
        x = nn.Conv(self.widths[0], (window, window), stride, use_bias=False)(x)
        x = nn.relu(_norm()(x))
        if self.imagenet_stem:
            x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
        for stage, (count, width) in enumerate(zip(self.blocks, self.widths, strict=True)):
            for block in range(count):
                x = BasicBlock(width, 2 if stage and not block else 1)(x)
        return nn.Dense(3)(x.mean((1, 2)))


class WideResNet(nn.Module):
    """Blocks with normalisation and activation in front (Zagoruyko & Komodakis 2016)."""

    blocks: int
    widths: Sequence[int]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Images to three outputs."""
        x = nn.Conv(2, (3, 3))(x)
        for stage, width in enumerate(self.widths):
            for block in range(self.blocks):
                x = self.block(x, width, 2 if stage and not block else 1)
        x = nn.relu(_norm()(x))
        return nn.Dense(3)(x.mean((1, 2)))

    def block(self, x: jax.Array, width: int, stride: int) -> jax.Array:
        """The shortcut starts behind the first activation where the shape changes."""
        y = nn.relu(_norm()(x))
        if stride > 1 or x.shape[-1] != width:
            x = nn.Conv(width, (1, 1), stride)(y)
        y = nn.relu(_norm()(nn.Conv(width, (3, 3), stride)(y)))
        return x + nn.Conv(width, (3, 3))(y)


class ResNeXt(nn.Module):
    """Bottlenecks around a grouped convolution (Xie et al. 2017)."""

    blocks: int
    width: int
    groups: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Images to three outputs."""
        x = nn.relu(_norm()(nn.Conv(2 * self.width, (3, 3), 2)(x)))
        for _ in range(self.blocks):
            y = nn.relu(_norm()(nn.Conv(self.width, (1, 1))(x)))
            grouped = nn.Conv(self.width, (3, 3), feature_group_count=self.groups)
            y = nn.relu(_norm()(grouped(y)))
            x = nn.relu(x + _norm()(nn.Conv(2 * self.width, (1, 1))(y)))
        return nn.Dense(3)(x.mean((1, 2)))


class DenseNet(nn.Module):
    """Every layer reads all before it (Huang et al. 2017)."""

    blocks: Sequence[int]
    growth: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Images to three outputs."""
        x = nn.Conv(2 * self.growth, (3, 3))(x)
        for i, layers in enumerate(self.blocks):
            if i:
                x = nn.Conv(x.shape[-1] // 2, (1, 1))(nn.relu(_norm()(x)))
                x = nn.avg_pool(x, (2, 2), (2, 2))
            for _ in range(layers):
                y = nn.Conv(2 * self.growth, (1, 1))(nn.relu(_norm()(x)))
                y = nn.Conv(self.growth, (3, 3))(nn.relu(_norm()(y)))
                x = jnp.concatenate([x, y], -1)
        x = nn.relu(_norm()(x))
        return nn.Dense(3)(x.mean((1, 2)))


class MobileNet(nn.Module):
    """Inverted residuals with depthwise convolutions; version 3 gates channels and is smooth."""

    version: int = 2

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Images to three outputs."""
        activation = nn.relu6 if self.version == 2 else nn.hard_swish
        x = activation(_norm()(nn.Conv(2, (3, 3), 2)(x)))
        for stride in (1, 2):
            y = activation(_norm()(nn.Conv(4, (1, 1))(x)))
            y = activation(_norm()(nn.Conv(4, (3, 3), stride, feature_group_count=4)(y)))
            if self.version == 3:
                gate = nn.relu(nn.Dense(2)(y.mean((1, 2), keepdims=True)))
                y = y * nn.hard_sigmoid(nn.Dense(4)(gate))
            y = _norm()(nn.Conv(2, (1, 1))(y))
            x = x + y if stride == 1 else y
        return nn.Dense(3)(x.mean((1, 2)))


class Recurrent(nn.Module):
    """A cell over a sequence, and a dense layer behind its last state."""

    cell: type[nn.RNNCellBase]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Sequences of vectors to three outputs."""
        return nn.Dense(3)(nn.RNN(self.cell(4, param_dtype=float))(x)[:, -1])


class EncoderBlock(nn.Module):
    """Attention and a small MLP, each with normalisation in front and a shortcut."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Sequences of vectors to sequences of vectors."""
        x = x + nn.MultiHeadDotProductAttention(num_heads=2)(nn.LayerNorm()(x))
        y = nn.gelu(nn.Dense(2 * x.shape[-1])(nn.LayerNorm()(x)))
        return x + nn.Dense(x.shape[-1])(y)


class Transformer(nn.Module):
    """An encoder (Vaswani et al. 2017) with normalisation in front of every layer."""

    blocks: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Sequences of vectors to three outputs."""
        for _ in range(self.blocks):
            x = EncoderBlock()(x)
        return nn.Dense(3)(nn.LayerNorm()(x).mean(1))


class ViT(nn.Module):
    """A Transformer of the patches of an image and a token of the class (Dosovitskiy 2021)."""

    blocks: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Images to three outputs."""
        x = nn.Conv(4, (3, 3), 3, padding="VALID")(x).reshape(x.shape[0], -1, 4)
        token = self.param("token", nn.initializers.zeros, (1, 1, 4))
        x = jnp.concatenate([jnp.broadcast_to(token, (x.shape[0], 1, 4)), x], 1)
        x = x + self.param("position", nn.initializers.zeros, (1, *x.shape[1:]))
        for _ in range(self.blocks):
            x = EncoderBlock()(x)
        return nn.Dense(3)(nn.LayerNorm()(x)[:, 0])


class Autoencoder(nn.Module):
    """Convolutions to a code, and transposed convolutions back to an image."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Images to images with values between zero and one."""
        x = nn.relu(nn.Conv(3, (3, 3), 2)(x))
        code = nn.tanh(nn.Dense(4)(x.reshape(x.shape[0], -1)))
        x = nn.relu(nn.Dense(x[0].size)(code).reshape(x.shape))
        return nn.sigmoid(nn.ConvTranspose(1, (3, 3), (2, 2))(x))


class Mixer(nn.Module):
    """MLPs across patches and across channels in turn (Tolstikhin et al. 2021)."""

    blocks: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Images to three outputs."""
        x = nn.Conv(4, (3, 3), 3, padding="VALID")(x).reshape(x.shape[0], -1, 4)
        for _ in range(self.blocks):
            y = jnp.swapaxes(nn.LayerNorm()(x), 1, 2)
            y = nn.Dense(y.shape[-1])(nn.gelu(nn.Dense(6)(y)))
            x = x + jnp.swapaxes(y, 1, 2)
            y = nn.gelu(nn.Dense(6)(nn.LayerNorm()(x)))
            x = x + nn.Dense(x.shape[-1])(y)
        return nn.Dense(3)(nn.LayerNorm()(x).mean(1))


IMAGE, SEQUENCE = (6, 6, 1), (3, 4)

NETWORKS: dict[str, Callable[[], Network]] = {
    "cnn": lambda: network(CNN(), IMAGE),
    "resnet": lambda: network(ResNet((1, 1), (2, 4)), IMAGE),
    "wide_resnet": lambda: network(WideResNet(1, (3, 4)), IMAGE),
    "resnext": lambda: network(ResNeXt(1, 4, groups=2), IMAGE),
    "densenet": lambda: network(DenseNet((2, 1), 2), IMAGE),
    "mobilenet": lambda: network(MobileNet(), IMAGE),
    "mobilenet_v3": lambda: network(MobileNet(3), IMAGE),
    "lstm": lambda: network(Recurrent(nn.OptimizedLSTMCell), SEQUENCE),
    "gru": lambda: network(Recurrent(nn.GRUCell), SEQUENCE),
    "transformer": lambda: network(Transformer(1), SEQUENCE, 0.002),
    "vit": lambda: network(ViT(1), IMAGE, 0.002),
    "autoencoder": lambda: network(Autoencoder(), IMAGE),
    "mixer": lambda: network(Mixer(1), IMAGE, 0.002),
}
LARGE: dict[str, Callable[[], Network]] = {
    "resnet18": lambda: network(
        ResNet((2, 2, 2, 2), (4, 8, 8, 8), imagenet_stem=True), (32, 32, 3), 1e-3
    ),
    "densenet_large": lambda: network(DenseNet((3, 3, 3), 3), (8, 8, 3), 1e-3),
    "wide_resnet_large": lambda: network(WideResNet(2, (4, 8, 8)), (8, 8, 3), 1e-3),
    "transformer_large": lambda: network(Transformer(3), (6, 8), 1e-3),
}
