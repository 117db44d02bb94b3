"""Networks of certified training: images (n, height, width, channels) to logits (n, classes).

All have BatchNorm behind every convolution and every hidden dense layer, or in front of it in
networks whose residual branches begin with it, and start from the weights of Shi et al. 2021,
whose interval bounds neither vanish nor explode with depth. They are small, as is usual in
certified training: interval bounds loosen with every layer.
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxlirpa import train

SUMMED = train.ibp_normal(0.5)  # in front of a sum of two branches, which is twice as wide


class Normalised(nn.Module):
    """A network of normalised images, as a function of images: sets are of pixels in [0, 1].

    Attributes:
      network: takes the normalised images.
      mean: of every channel of the data.
      deviation: the standard deviation of every channel.
    """

    network: nn.Module
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """`train`: whether BatchNorm takes the statistics of the batch."""
        x = (x - jnp.asarray(self.mean, x.dtype)) / jnp.asarray(self.deviation, x.dtype)
        return self.network(x, train)


def _convolution(
    width: int,
    window: int = 3,
    stride: int = 1,
    groups: int = 1,
    start: nn.initializers.Initializer | None = None,
) -> nn.Conv:
    """A square convolution without shifts, which BatchNorm has."""
    return nn.Conv(
        width,
        (window, window),
        stride,
        feature_group_count=groups,
        use_bias=False,
        kernel_init=start or train.ibp_normal(),
    )


def _dense(width: int) -> nn.Dense:
    return nn.Dense(width, use_bias=False, kernel_init=train.ibp_normal())


def _norm(train: bool) -> nn.BatchNorm:
    return nn.BatchNorm(use_running_average=not train, momentum=0.9)


def _head(x: jax.Array, dense: int, classes: int, train: bool) -> jax.Array:
    """A hidden dense layer, and the last one, which starts as flax starts it (Shi et al. 2021)."""
    x = nn.relu(_norm(train)(_dense(dense)(x.reshape(len(x), -1))))
    return nn.Dense(classes)(x)


class CNN(nn.Module):
    """Convolutions, one hidden dense layer and the last one.

    Attributes:
      classes: the number of logits.
      layers: the width and the stride of every convolution. An image of up to eight pixels is not
        halved by the first one.
      window: of every convolution.
      dense: the width of the hidden dense layer.
    """

    classes: int
    layers: Sequence[tuple[int, int]]
    window: int
    dense: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """`train`: whether BatchNorm takes the statistics of the batch."""
        for k, (width, stride) in enumerate(self.layers):
            stride = 1 if not k and x.shape[1] <= 8 else stride
            x = nn.relu(_norm(train)(_convolution(width, self.window, stride)(x)))
        return _head(x, self.dense, self.classes, train)


class WideResNet(nn.Module):
    """Residual blocks with BatchNorm and relu in front (Zagoruyko & Komodakis 2016).

    Attributes:
      classes: the number of logits.
      widths: of the stages; from one to the next the image is halved.
      blocks: of every stage.
      dense: the width of the hidden dense layer.
    """

    classes: int
    widths: Sequence[int] = (64, 128)
    blocks: int = 1
    dense: int = 512

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """`train`: whether BatchNorm takes the statistics of the batch."""
        x = _convolution(16)(x)
        for width in self.widths:
            for block in range(self.blocks):
                stride = 1 if block else 2
                y = nn.relu(_norm(train)(x))
                x = _convolution(width, 1, stride, start=SUMMED)(y) if stride > 1 else x
                y = nn.relu(_norm(train)(_convolution(width, 3, stride)(y)))
                x = x + _convolution(width, start=SUMMED)(y)
        return _head(nn.relu(_norm(train)(x)), self.dense, self.classes, train)


class ResNeXt(nn.Module):
    """Bottlenecks around a convolution in groups (Xie et al. 2017).

    Attributes:
      classes: the number of logits.
      widths: of the bottlenecks, stage by stage; from one to the next the image is halved.
      groups: of the convolution inside.
      dense: the width of the hidden dense layer.
    """

    classes: int
    widths: Sequence[int] = (32, 64, 64)
    groups: int = 2
    dense: int = 512

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """`train`: whether BatchNorm takes the statistics of the batch."""
        x = nn.relu(_norm(train)(_convolution(64)(x)))
        for k, width in enumerate(self.widths):
            stride = 2 if k else 1
            y = nn.relu(_norm(train)(_convolution(width, 1)(x)))
            y = nn.relu(_norm(train)(_convolution(width, 3, stride, self.groups)(y)))
            y = _norm(train)(_convolution(2 * width, 1, start=SUMMED)(y))
            if x.shape != y.shape:
                x = _norm(train)(_convolution(2 * width, 1, stride, start=SUMMED)(x))
            x = nn.relu(x + y)
        return _head(x, self.dense, self.classes, train)


class DenseNet(nn.Module):
    """Every layer reads all before it (Huang et al. 2017).

    Attributes:
      classes: the number of logits.
      blocks: the layers of every block; from one to the next the image is halved.
      growth: the width of every layer.
      dense: the width of the hidden dense layer.
    """

    classes: int
    blocks: Sequence[int] = (2, 4, 4)
    growth: int = 32
    dense: int = 512

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """`train`: whether BatchNorm takes the statistics of the batch."""
        x = _convolution(2 * self.growth)(x)
        for k, layers in enumerate(self.blocks):
            if k:
                x = _convolution(x.shape[-1] // 2, 1)(nn.relu(_norm(train)(x)))
                x = nn.avg_pool(x, (2, 2), (2, 2))
            for _ in range(layers):
                y = _convolution(4 * self.growth, 1)(nn.relu(_norm(train)(x)))
                y = _convolution(self.growth)(nn.relu(_norm(train)(y)))
                x = jnp.concatenate([x, y], -1)
        return _head(nn.relu(_norm(train)(x)), self.dense, self.classes, train)


def cnn_small(classes: int) -> CNN:
    """Two convolutions and a hidden dense layer: for MNIST on a CPU."""
    return CNN(classes, layers=((32, 2), (64, 2)), window=4, dense=256)


def cnn_7layer_bn(classes: int) -> CNN:
    """The network of Shi et al. 2021: five convolutions and a hidden dense layer."""
    layers = ((64, 1), (64, 1), (128, 2), (128, 1), (128, 1))
    return CNN(classes, layers, window=3, dense=512)


MODELS: dict[str, Callable[[int], nn.Module]] = {
    "cnn_small": cnn_small,
    "cnn_7layer_bn": cnn_7layer_bn,
    "densenet": DenseNet,
    "wide_resnet": WideResNet,
    "resnext": ResNeXt,
}
