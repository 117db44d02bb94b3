"""The networks as torch modules, with the same weights; images are channels first there."""

import numpy as np
import torch
from torch import nn

from .networks import (
    VARIANCE_FLOOR,
    Array,
    Conv,
    Dense,
    Encoder,
    Flatten,
    Layer,
    MaxPool,
    Mean,
    Relu,
    Residual,
    Shape,
    Weights,
    shapes,
)
from .workloads import Workload


class Block(nn.Module):
    """relu(second(relu(first(x))) + shortcut(x))."""

    def __init__(self, first: nn.Module, second: nn.Module, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.first, self.second, self.shortcut = first, second, shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = torch.relu(self.first(x))
        return torch.relu(self.second(inner) + (x if self.shortcut is None else self.shortcut(x)))


class Normalise(nn.Module):
    """A layer normalisation, written out."""

    def __init__(self, scale: Array, shift: Array) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.from_numpy(scale))
        self.shift = nn.Parameter(torch.from_numpy(shift))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        variance = (centred * centred).mean(-1, keepdim=True)
        return centred / torch.sqrt(variance + VARIANCE_FLOOR) * self.scale + self.shift


class EncoderLayer(nn.Module):
    """A layer of a Transformer's encoder."""

    def __init__(self, heads: int, weights: Weights) -> None:
        super().__init__()
        self.heads = heads
        *attention, first, up, down, second = weights
        self.attention = nn.ModuleList(_linear(*pair) for pair in attention)
        self.first, self.second = Normalise(*first), Normalise(*second)
        self.dense = nn.Sequential(_linear(*up), nn.ReLU(), _linear(*down))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, features = x.shape
        each = features // self.heads
        queries, keys, values = (
            dense(x).reshape(batch, tokens, self.heads, each).transpose(1, 2)
            for dense in self.attention[:3]
        )
        scores = queries.matmul(keys.transpose(2, 3)) / each**0.5
        mixed = torch.softmax(scores, dim=-1).matmul(values)
        mixed = mixed.transpose(1, 2).reshape(batch, tokens, features)
        x = self.first(x + self.attention[3](mixed))
        return self.second(x + self.dense(x))


class MeanLayer(nn.Module):
    """The mean over the given axes."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(self.axes)


def module(layer: Layer, weights: Weights, shape: Shape, image: Shape | None) -> nn.Module:
    """One layer.

    Args:
        layer: the layer.
        weights: its weights.
        shape: what it receives.
        image: the shape that was flattened to give that, if any.
    """
    match layer:
        case Dense():
            ((kernel, bias),) = weights
            if image is not None:  # torch flattens channels first.
                kernel = kernel.reshape(*image, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
            return _linear(kernel, bias)
        case Conv(features, size, stride, padding):
            ((kernel, bias),) = weights
            conv = nn.Conv2d(kernel.shape[2], features, size, stride, padding)
            return _filled(conv, kernel.transpose(3, 2, 0, 1), bias)
        case Residual():
            shortcut = layer.shortcut(shape[-1])
            convs = (layer.first, layer.second, *(() if shortcut is None else (shortcut,)))
            pairs = zip(convs, weights, strict=True)
            first, second, *rest = (module(conv, (pair,), shape, None) for conv, pair in pairs)
            return Block(first, second, *(rest or (None,)))
        case Encoder():
            return EncoderLayer(layer.heads, weights)
        case MaxPool(size):
            return nn.MaxPool2d(size)
        case Flatten():
            return nn.Flatten()
        case Mean():
            return MeanLayer((2, 3) if len(shape) == 3 else (1,))
        case Relu():
            return nn.ReLU()


def _linear(kernel: Array, bias: Array) -> nn.Module:
    return _filled(nn.Linear(*kernel.shape), kernel.T, bias)


def _filled(layer: nn.Linear | nn.Conv2d, kernel: Array, bias: Array) -> nn.Module:
    layer.weight.data = torch.from_numpy(np.ascontiguousarray(kernel))
    layer.bias.data = torch.from_numpy(bias)
    return layer


def network(workload: Workload) -> nn.Module:
    """The workload's network with its weights."""
    modules, image = [], None
    received = shapes(workload.network, workload.shape)
    for layer, weights, shape in zip(workload.network, workload.weights(), received, strict=True):
        modules.append(module(layer, weights, shape, image))
        image = shape if isinstance(layer, Flatten) else None
    return nn.Sequential(*modules)
