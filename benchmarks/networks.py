"""Networks as plain data: layers, the shapes they receive, and their weights as numpy arrays.

A network is a tuple of layers. Each library builds it in its own words from the same description
and the same weights. Images are height x width x channels, kernels height x width x in x out, as is
usual in JAX, and sequences tokens x features.
"""

from dataclasses import dataclass

import numpy as np

Array = np.ndarray
Shape = tuple[int, ...]
Weights = tuple[tuple[Array, Array], ...]


@dataclass(frozen=True)
class Dense:
    """A fully connected layer."""

    features: int


@dataclass(frozen=True)
class Conv:
    """A square convolution, padded alike on all four sides."""

    features: int
    size: int = 3
    stride: int = 1
    padding: int = 1


@dataclass(frozen=True)
class Relu:
    """max(x, 0)."""


@dataclass(frozen=True)
class MaxPool:
    """The largest entry of every square block."""

    size: int = 2


@dataclass(frozen=True)
class Flatten:
    """An image as a vector."""


@dataclass(frozen=True)
class Mean:
    """The mean of all pixels, or of all tokens."""


@dataclass(frozen=True)
class Residual:
    """relu(conv(relu(conv(x))) + shortcut(x)), the first and the shortcut with the stride.

    The shortcut is a 1x1 convolution where the shape changes, and the identity elsewhere.
    """

    features: int
    stride: int = 1

    @property
    def first(self) -> Conv:
        """The first convolution."""
        return Conv(self.features, stride=self.stride)

    @property
    def second(self) -> Conv:
        """The second convolution."""
        return Conv(self.features)

    def shortcut(self, channels: int) -> Conv | None:
        """The convolution beside the two, on an image of so many channels; None: the identity."""
        if self.stride == 1 and channels == self.features:
            return None
        return Conv(self.features, 1, self.stride, 0)


@dataclass(frozen=True)
class Encoder:
    """A layer of a Transformer's encoder.

    `normalise(x + attention(x))`, then `normalise(y + dense(relu(dense(y))))`, with the mean and
    the variance of a token's features. Its weights: queries, keys, values, the attention's
    output, the first normalisation (scale and shift), the two dense layers, the second
    normalisation.
    """

    heads: int
    hidden: int


Layer = Dense | Conv | Relu | MaxPool | Flatten | Mean | Residual | Encoder
Network = tuple[Layer, ...]

# A layer normalisation divides by the root of the variance and this.
VARIANCE_FLOOR = 1e-5

CLASSES = 10

MLP: Network = (*(Dense(256), Relu()) * 5, Dense(CLASSES))
FLAT_MLP: Network = (*(Dense(64), Relu()) * 2, Dense(CLASSES))
SMALL_MLP: Network = (*(Dense(128), Relu()) * 6, Dense(CLASSES))
MNIST: Network = (
    *(Conv(16, 4, 2), Relu(), Conv(32, 4, 2), Relu()),
    *(Flatten(), Dense(100), Relu(), Dense(CLASSES)),
)
POOLED: Network = (
    *(Conv(4, 3, 2, 0), Relu(), MaxPool(), Flatten(), Dense(32), Relu(), Dense(CLASSES)),
)
POOLED_TWICE: Network = (
    *(Conv(8, 3, 1, 0), Relu(), MaxPool(), Conv(16, 3, 1, 0), Relu(), MaxPool()),
    *(Flatten(), Dense(64), Relu(), Dense(CLASSES)),
)
RESNET_2B: Network = (
    *(Conv(8, stride=2), Relu(), Residual(16, 2), Residual(16)),
    *(Flatten(), Dense(100), Relu(), Dense(CLASSES)),
)
RESNET_4B: Network = (
    *(Conv(16, stride=2), Relu(), Residual(32, 2), Residual(32), Residual(32, 2), Residual(32)),
    *(Flatten(), Dense(100), Relu(), Dense(CLASSES)),
)
RESNET_18: Network = (
    *(Conv(64), Relu(), Residual(64), Residual(64), Residual(128, 2), Residual(128)),
    *(Residual(256, 2), Residual(256), Residual(512, 2), Residual(512), Mean(), Dense(CLASSES)),
)
CNN_7LAYER: Network = (
    *(Conv(64), Relu(), Conv(64), Relu(), Conv(128, stride=2), Relu()),
    *(Conv(128), Relu(), Conv(128), Relu()),
    *(Flatten(), Dense(512), Relu(), Dense(CLASSES)),
)
TRANSFORMER: Network = (Encoder(heads=2, hidden=32), Mean(), Dense(CLASSES))


def shapes(network: Network, shape: Shape) -> list[Shape]:
    """The shape, without the batch, that each layer receives."""
    received = []
    for layer in network:
        received.append(shape)
        shape = output_shape(layer, shape)
    return received


def output_shape(layer: Layer, shape: Shape) -> Shape:
    """The shape, without the batch, that a layer returns."""
    match layer:
        case Dense(features):
            return (*shape[:-1], features)
        case Flatten():
            return (int(np.prod(shape)),)
        case Mean():
            return shape[-1:]
        case Conv(features, size, stride, padding):
            height, width = ((n + 2 * padding - size) // stride + 1 for n in shape[:2])
            return height, width, features
        case MaxPool(size):
            return shape[0] // size, shape[1] // size, shape[2]
        case Residual():
            return output_shape(layer.first, shape)
        case Relu() | Encoder():
            return shape


def weights(network: Network, shape: Shape) -> tuple[Weights, ...]:
    """He-scaled random weights, one tuple of (kernel, bias) pairs per layer."""
    rng = np.random.default_rng(0)
    return tuple(
        _layer_weights(layer, received, rng)
        for layer, received in zip(network, shapes(network, shape), strict=True)
    )


def _layer_weights(layer: Layer, shape: Shape, rng: np.random.Generator) -> Weights:
    match layer:
        case Dense(features):
            return (_he((shape[-1], features), rng),)
        case Conv(features, size):
            return (_he((size, size, shape[-1], features), rng),)
        case Residual():
            found = _layer_weights(layer.first, shape, rng)
            found += _layer_weights(layer.second, output_shape(layer, shape), rng)
            shortcut = layer.shortcut(shape[-1])
            return found if shortcut is None else found + _layer_weights(shortcut, shape, rng)
        case Encoder(_, hidden):
            features = shape[-1]
            attention = tuple(_he((features, features), rng) for _ in range(4))
            dense = _he((features, hidden), rng), _he((hidden, features), rng)
            one = np.ones(features, np.float32), np.zeros(features, np.float32)
            return (*attention, one, *dense, one)
        case Relu() | MaxPool() | Flatten() | Mean():
            return ()


def _he(shape: Shape, rng: np.random.Generator) -> tuple[Array, Array]:
    scale = np.sqrt(2 / np.prod(shape[:-1]))
    kernel, bias = rng.normal(size=shape) * scale, rng.normal(size=shape[-1]) * 0.01
    return kernel.astype(np.float32), bias.astype(np.float32)
