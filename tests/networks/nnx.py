"""The networks of `linen.py` in flax nnx, with the same parts in the same order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from .plain import Network, random_weights

Function = Callable[[Any], Any]


def module(make: Callable[[nnx.Rngs], nnx.Module]) -> nnx.Module:
    """A module with random weights, in inference mode."""
    graph, state = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))))
    built = nnx.merge(graph, random_weights(state))
    built.eval()
    return built


def network(
    make: Callable[[nnx.Rngs], nnx.Module], shape: Sequence[int], eps: float = 0.01
) -> Network:
    """A module as a pure function of its state, and a batch of one example."""
    graph, state = nnx.split(module(make))

    def apply(state: nnx.State, x: jax.Array) -> jax.Array:
        return nnx.merge(graph, state)(x)

    return Network(apply, state, (1, *shape), eps)


class MLP(nnx.Module):
    """Dense layers with an activation between them."""

    def __init__(self, width: int, rngs: nnx.Rngs, activation: Function = nnx.relu):
        self.first = nnx.Linear(width, 8, rngs=rngs)
        self.second = nnx.Linear(8, 6, rngs=rngs)
        self.last = nnx.Linear(6, 3, rngs=rngs)
        self.activation = activation

    def __call__(self, x: jax.Array) -> jax.Array:
        """Vectors to three outputs."""
        return self.last(self.activation(self.second(self.activation(self.first(x)))))


class CNN(nnx.Module):
    """Convolutions with overlapping and with padded max pooling."""

    def __init__(self, rngs: nnx.Rngs):
        self.first = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.second = nnx.Conv(4, 4, (2, 2), padding="VALID", rngs=rngs)
        self.last = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Images to three outputs."""
        x = nnx.max_pool(nnx.relu(self.first(x)), (3, 3), (2, 2), "SAME")
        x = nnx.max_pool(nnx.relu(self.second(x)), (2, 2), (1, 1), "VALID")
        return self.last(x.reshape(x.shape[0], -1))


class ConvNorm(nnx.Module):
    """A convolution and batch normalisation."""

    def __init__(self, rngs: nnx.Rngs, a: int, b: int, window: int, stride: int = 1, **kwargs: Any):
        self.conv = nnx.Conv(a, b, (window, window), stride, rngs=rngs, **kwargs)
        self.norm = nnx.BatchNorm(b, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Images to images."""
        return self.norm(self.conv(x))


class ResNet(nnx.Module):
    """A stem and two stages of one basic block each."""

    def __init__(self, rngs: nnx.Rngs):
        self.stem = ConvNorm(rngs, 1, 2, 3)
        self.first = nnx.List([ConvNorm(rngs, 2, 2, 3), ConvNorm(rngs, 2, 2, 3)])
        self.second = nnx.List([ConvNorm(rngs, 2, 4, 3, 2), ConvNorm(rngs, 4, 4, 3)])
        self.shortcut = ConvNorm(rngs, 2, 4, 1, 2)
        self.last = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Images to three outputs."""
        x = nnx.relu(self.stem(x))
        x = nnx.relu(x + self.first[1](nnx.relu(self.first[0](x))))
        y = self.second[1](nnx.relu(self.second[0](x)))
        return self.last(nnx.relu(self.shortcut(x) + y).mean((1, 2)))


class ResNeXt(nnx.Module):
    """A bottleneck around a grouped convolution."""

    def __init__(self, rngs: nnx.Rngs):
        self.stem = ConvNorm(rngs, 1, 8, 3, 2)
        self.narrow = ConvNorm(rngs, 8, 4, 1)
        self.grouped = ConvNorm(rngs, 4, 4, 3, feature_group_count=2)
        self.wide = ConvNorm(rngs, 4, 8, 1)
        self.last = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Images to three outputs."""
        x = nnx.relu(self.stem(x))
        y = nnx.relu(self.grouped(nnx.relu(self.narrow(x))))
        return self.last(nnx.relu(x + self.wide(y)).mean((1, 2)))


class DenseNet(nnx.Module):
    """Two dense layers, a transition with average pooling, and one more layer."""

    def __init__(self, rngs: nnx.Rngs):
        self.stem = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.layers = nnx.List([self.layer(width, rngs) for width in (4, 6, 4)])
        self.transition = nnx.List([nnx.BatchNorm(8, rngs=rngs), nnx.Conv(8, 4, (1, 1), rngs=rngs)])
        self.norm = nnx.BatchNorm(6, rngs=rngs)
        self.last = nnx.Linear(6, 3, rngs=rngs)

    def layer(self, width: int, rngs: nnx.Rngs) -> nnx.Sequential:
        """Two channels of all there are."""
        return nnx.Sequential(
            nnx.BatchNorm(width, rngs=rngs),
            nnx.relu,
            nnx.Conv(width, 4, (1, 1), rngs=rngs),
            nnx.BatchNorm(4, rngs=rngs),
            nnx.relu,
            nnx.Conv(4, 2, (3, 3), rngs=rngs),
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Images to three outputs."""
        x = self.stem(x)
        for layer in self.layers[:2]:
            x = jnp.concatenate([x, layer(x)], -1)
        norm, conv = self.transition
        x = nnx.avg_pool(conv(nnx.relu(norm(x))), (2, 2), (2, 2))
        x = jnp.concatenate([x, self.layers[2](x)], -1)
        return self.last(nnx.relu(self.norm(x)).mean((1, 2)))


class MobileNet(nnx.Module):
    """An inverted residual with a depthwise convolution."""

    def __init__(self, rngs: nnx.Rngs):
        self.stem = ConvNorm(rngs, 1, 2, 3, 2)
        self.wide = ConvNorm(rngs, 2, 4, 1)
        self.depthwise = ConvNorm(rngs, 4, 4, 3, feature_group_count=4)
        self.narrow = ConvNorm(rngs, 4, 2, 1)
        self.last = nnx.Linear(2, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Images to three outputs."""
        x = nnx.relu6(self.stem(x))
        y = nnx.relu6(self.depthwise(nnx.relu6(self.wide(x))))
        return self.last((x + self.narrow(y)).mean((1, 2)))


class Recurrent(nnx.Module):
    """A cell over a sequence, and a dense layer behind its last state."""

    def __init__(self, rngs: nnx.Rngs, cell: type):
        self.rnn = nnx.RNN(cell(4, 4, param_dtype=float, rngs=rngs), rngs=rngs)
        self.last = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Sequences of vectors to three outputs."""
        return self.last(self.rnn(x)[:, -1])


class EncoderBlock(nnx.Module):
    """Attention and a small MLP, each with normalisation in front and a shortcut."""

    def __init__(self, rngs: nnx.Rngs, width: int):
        self.norms = nnx.List([nnx.LayerNorm(width, rngs=rngs) for _ in range(2)])
        self.attention = nnx.MultiHeadAttention(2, width, rngs=rngs, decode=False)
        self.wide = nnx.Linear(width, 2 * width, rngs=rngs)
        self.narrow = nnx.Linear(2 * width, width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Sequences of vectors to sequences of vectors."""
        x = x + self.attention(self.norms[0](x))
        return x + self.narrow(nnx.gelu(self.wide(self.norms[1](x))))


class Transformer(nnx.Module):
    """An encoder of one block."""

    def __init__(self, rngs: nnx.Rngs):
        self.block = EncoderBlock(rngs, 4)
        self.norm = nnx.LayerNorm(4, rngs=rngs)
        self.last = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Sequences of vectors to three outputs."""
        return self.last(self.norm(self.block(x)).mean(1))


class ViT(nnx.Module):
    """A Transformer of the patches of an image and a token of the class."""

    def __init__(self, rngs: nnx.Rngs):
        self.patches = nnx.Conv(1, 4, (3, 3), 3, padding="VALID", rngs=rngs)
        self.token = nnx.Param(jnp.zeros((1, 1, 4)))
        self.position = nnx.Param(jnp.zeros((1, 5, 4)))
        self.block = EncoderBlock(rngs, 4)
        self.norm = nnx.LayerNorm(4, rngs=rngs)
        self.last = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Images to three outputs."""
        x = self.patches(x).reshape(x.shape[0], -1, 4)
        token = jnp.broadcast_to(self.token[...], (x.shape[0], 1, 4))
        x = jnp.concatenate([token, x], 1) + self.position[...]
        return self.last(self.norm(self.block(x))[:, 0])


class Autoencoder(nnx.Module):
    """Convolutions to a code, and transposed convolutions back to an image."""

    def __init__(self, rngs: nnx.Rngs):
        self.conv = nnx.Conv(1, 3, (3, 3), 2, rngs=rngs)
        self.encode = nnx.Linear(27, 4, rngs=rngs)
        self.decode = nnx.Linear(4, 27, rngs=rngs)
        self.back = nnx.ConvTranspose(3, 1, (3, 3), (2, 2), rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Images to images with values between zero and one."""
        x = nnx.relu(self.conv(x))
        code = nnx.tanh(self.encode(x.reshape(x.shape[0], -1)))
        return nnx.sigmoid(self.back(nnx.relu(self.decode(code)).reshape(x.shape)))


class Mixer(nnx.Module):
    """MLPs across patches and across channels."""

    def __init__(self, rngs: nnx.Rngs):
        self.patches = nnx.Conv(1, 4, (3, 3), 3, padding="VALID", rngs=rngs)
        self.norms = nnx.List([nnx.LayerNorm(4, rngs=rngs) for _ in range(3)])
        self.wide = nnx.List([nnx.Linear(4, 6, rngs=rngs) for _ in range(2)])
        self.narrow = nnx.List([nnx.Linear(6, 4, rngs=rngs) for _ in range(2)])
        self.last = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Images to three outputs."""
        x = self.patches(x).reshape(x.shape[0], -1, 4)
        y = jnp.swapaxes(self.norms[0](x), 1, 2)
        x = x + jnp.swapaxes(self.narrow[0](nnx.gelu(self.wide[0](y))), 1, 2)
        x = x + self.narrow[1](nnx.gelu(self.wide[1](self.norms[1](x))))
        return self.last(self.norms[2](x).mean(1))


IMAGE, SEQUENCE = (6, 6, 1), (3, 4)

NETWORKS: dict[str, Callable[[], Network]] = {
    "mlp": lambda: network(lambda rngs: MLP(5, rngs), (5,), 0.05),
    "cnn": lambda: network(CNN, IMAGE),
    "resnet": lambda: network(ResNet, IMAGE),
    "resnext": lambda: network(ResNeXt, IMAGE),
    "densenet": lambda: network(DenseNet, IMAGE),
    "mobilenet": lambda: network(MobileNet, IMAGE),
    "lstm": lambda: network(lambda rngs: Recurrent(rngs, nnx.OptimizedLSTMCell), SEQUENCE),
    "gru": lambda: network(lambda rngs: Recurrent(rngs, nnx.GRUCell), SEQUENCE),
    "transformer": lambda: network(Transformer, SEQUENCE, 0.002),
    "vit": lambda: network(ViT, IMAGE, 0.002),
    "autoencoder": lambda: network(Autoencoder, IMAGE),
    "mixer": lambda: network(Mixer, IMAGE, 0.002),
}
