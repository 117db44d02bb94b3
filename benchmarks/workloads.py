"""What is measured: networks, weights, inputs and the bound asked for, as plain numpy data.

A network is a tuple of layers. Each library builds it in its own words from the same description
and the same weights. Images are height x width x channels and kernels height x width x in x out, as
is usual in JAX.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

Array = np.ndarray
Shape = tuple[int, ...]
Weights = tuple[tuple[Array, Array], ...]

CLASSES = 10


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
class Flatten:
    """An image as a vector."""


@dataclass(frozen=True)
class Residual:
    """relu(conv(relu(conv(x))) + shortcut(x)), the first and the shortcut with the stride."""

    features: int
    stride: int

    @property
    def convs(self) -> tuple[Conv, Conv, Conv]:
        """The first convolution, the second, and the shortcut."""
        first = Conv(self.features, stride=self.stride)
        return first, Conv(self.features), Conv(self.features, 1, self.stride, 0)


Layer = Dense | Conv | Relu | Flatten | Residual
Network = tuple[Layer, ...]

MLP: Network = (*(Dense(256), Relu()) * 5, Dense(CLASSES))
MNIST: Network = (
    *(Conv(16, 4, 2), Relu(), Conv(32, 4, 2), Relu()),
    *(Flatten(), Dense(100), Relu(), Dense(CLASSES)),
)
SMALL_MLP: Network = (*(Dense(128), Relu()) * 6, Dense(CLASSES))
RESNET_2B: Network = (
    *(Conv(8, stride=2), Relu(), Residual(16, 2), Residual(16, 2)),
    *(Flatten(), Dense(100), Relu(), Dense(CLASSES)),
)
CNN_7LAYER: Network = (
    *(Conv(64), Relu(), Conv(64), Relu(), Conv(128, stride=2), Relu()),
    *(Conv(128), Relu(), Conv(128), Relu()),
    *(Flatten(), Dense(512), Relu(), Dense(CLASSES)),
)


@dataclass(frozen=True)
class Workload:
    """One row of the table.

    ``margins`` bounds the nine differences between an example's label and the other classes instead
    of the ten outputs. ``gradient`` measures the gradient of a certified loss with respect to the
    weights. ``alpha_crown`` makes 20 steps, for the outputs alone or for every inner value as well.
    ``peers`` are the contenders that it makes sense to compare with.
    """

    name: str
    network: Network
    shape: Shape
    batch: int
    eps: float
    method: Literal["ibp", "crown", "crown_ibp", "alpha_crown", "alpha_crown_inner"] = "crown"
    margins: bool = False
    lower_only: bool = False
    gradient: bool = False
    peers: tuple[str, ...] = ("auto_LiRPA",)

    def quick(self) -> "Workload":
        """The same on an eighth of the batch."""
        return replace(self, batch=max(2, self.batch // 8))

    def weights(self) -> tuple[Weights, ...]:
        """He-scaled random weights, one tuple of (kernel, bias) pairs per layer."""
        rng = np.random.default_rng(0)
        return tuple(
            _layer_weights(layer, shape, rng)
            for layer, shape in zip(self.network, shapes(self.network, self.shape), strict=True)
        )

    def inputs(self) -> tuple[Array, Array]:
        """A batch of inputs in [0, 1] and their labels."""
        rng = np.random.default_rng(1)
        x = rng.uniform(size=(self.batch, *self.shape)).astype(np.float32)
        return x, rng.integers(CLASSES, size=self.batch, dtype=np.int32)


def shapes(network: Network, shape: Shape) -> list[Shape]:
    """The shape, without the batch, that each layer receives."""
    received = []
    for layer in network:
        received.append(shape)
        shape = _output_shape(layer, shape)
    return received


def _output_shape(layer: Layer, shape: Shape) -> Shape:
    match layer:
        case Dense(features):
            return (features,)
        case Flatten():
            return (int(np.prod(shape)),)
        case Conv(features, size, stride, padding):
            height, width = ((n + 2 * padding - size) // stride + 1 for n in shape[:2])
            return height, width, features
        case Residual():
            return _output_shape(layer.convs[0], shape)
        case Relu():
            return shape


def _layer_weights(layer: Layer, shape: Shape, rng: np.random.Generator) -> Weights:
    match layer:
        case Dense(features):
            return (_he((shape[0], features), rng),)
        case Conv(features, size):
            return (_he((size, size, shape[-1], features), rng),)
        case Residual():
            first, second, shortcut = layer.convs
            inner = _output_shape(first, shape)
            received = zip((first, second, shortcut), (shape, inner, shape), strict=True)
            return tuple(pair for conv, at in received for pair in _layer_weights(conv, at, rng))
        case Relu() | Flatten():
            return ()


def _he(shape: Shape, rng: np.random.Generator) -> tuple[Array, Array]:
    scale = np.sqrt(2 / np.prod(shape[:-1]))
    kernel, bias = rng.normal(size=shape) * scale, rng.normal(size=shape[-1]) * 0.01
    return kernel.astype(np.float32), bias.astype(np.float32)


_MNIST = Workload("mnist-crown", MNIST, (28, 28, 1), 32, 0.05, margins=True)
_CIFAR = Workload(
    "cifar-ibp", CNN_7LAYER, (32, 32, 3), 64, 1 / 255, "ibp", margins=True, lower_only=True
)
_RESNET = Workload("resnet-crown", RESNET_2B, (32, 32, 3), 4, 1 / 255)
_MLP = Workload("mlp-crown", MLP, (784,), 128, 0.02)
_ALPHA = Workload("mnist-alpha", MNIST, (28, 28, 1), 8, 0.05, "alpha_crown", margins=True)

WORKLOADS: tuple[Workload, ...] = (
    _MLP,
    Workload("mlp-latency", SMALL_MLP, (784,), 1, 0.02),
    replace(_MNIST, name="mnist-crown-lower", lower_only=True),
    _MNIST,
    _RESNET,
    _ALPHA,
    replace(_ALPHA, name="mnist-alpha-inner", method="alpha_crown_inner"),
    _CIFAR,
    replace(_CIFAR, name="cifar-ibp-grad", gradient=True),
    replace(_CIFAR, name="cifar-crown-ibp", method="crown_ibp"),
    replace(_CIFAR, name="cifar-crown-ibp-grad", method="crown_ibp", gradient=True),
    *(replace(w, name=f"{w.name}-axes", peers=("vmap",)) for w in (_MLP, _MNIST, _RESNET)),
)


def named(name: str, quick: bool) -> Workload:
    """The workload of that name, reduced if ``quick``."""
    (workload,) = (w for w in WORKLOADS if w.name == name)
    return workload.quick() if quick else workload
