"""What is measured: a network, a set around a batch of inputs, and the bound asked for."""

import enum
from dataclasses import dataclass, replace

import numpy as np

from .networks import (
    CNN_7LAYER,
    FLAT_MLP,
    MLP,
    MNIST,
    POOLED,
    POOLED_TWICE,
    RESNET_2B,
    RESNET_4B,
    RESNET_18,
    SMALL_MLP,
    TRANSFORMER,
    Array,
    Dense,
    Network,
    Shape,
    Weights,
    weights,
)


@dataclass(frozen=True)
class Ibp:
    """Intervals."""


@dataclass(frozen=True)
class CrownIbp:
    """One backward pass, inner boxes by intervals."""


@dataclass(frozen=True)
class Crown:
    """Backward passes for every layer; ``rows_per_chunk`` is ours alone."""

    rows_per_chunk: int | None = None


@dataclass(frozen=True)
class AlphaCrown:
    """Optimised relaxations, for the outputs or, with ``inner``, for every inner value too."""

    steps: int = 20
    inner: bool = False


Method = Ibp | CrownIbp | Crown | AlphaCrown


class Bounded(enum.Enum):
    """Which function of an example is bounded."""

    OUTPUTS = enum.auto()
    MARGINS = enum.auto()  # the nine differences between its label's output and the others
    CROSS_ENTROPY = enum.auto()  # of its label: a scalar


class Perturbed(enum.Enum):
    """What is only known up to a ball of radius ``eps``."""

    INPUTS = enum.auto()  # every input, in an l-infinity ball
    WEIGHTS = enum.auto()  # every weight matrix, in a 2-norm ball of its own


class Sides(enum.Enum):
    """Which of the bounds are asked for."""

    BOTH = enum.auto()
    LOWER = enum.auto()
    UPPER = enum.auto()


class Contender(enum.Enum):
    """Who takes part; the value is the name in the tables."""

    OURS = "jaxlirpa"
    VMAP = "vmap"
    PEER = "auto_LiRPA"


@dataclass(frozen=True)
class Workload:
    """One row of the table.

    ``training`` measures the value and the gradient of a certified loss with respect to all
    weights: the mean over the batch of the cross entropy of the margins' lower bounds, or of the
    upper bound of the cross entropy itself. Where weights are perturbed it is an upper bound of the
    mean cross entropy, as no weights are worst for all examples at once. ``peers`` are the
    contenders that it makes sense to compare with. ``compile_only`` reports what the compiled
    program would take, without running it. ``large`` is left out of a quick run.
    """

    name: str
    network: Network
    shape: Shape
    batch: int
    eps: float
    method: Method = Crown()
    bounded: Bounded = Bounded.OUTPUTS
    sides: Sides = Sides.BOTH
    perturbed: Perturbed = Perturbed.INPUTS
    training: bool = False
    peers: tuple[Contender, ...] = (Contender.PEER,)
    compile_only: bool = False
    large: bool = False

    def quick(self) -> "Workload":
        """The same on an eighth of the batch."""
        return replace(self, batch=min(self.batch, max(2, self.batch // 8)))

    @property
    def classes(self) -> int:
        """How many outputs there are: those of the last layer."""
        last = self.network[-1]
        assert isinstance(last, Dense)
        return last.features

    def weights(self) -> tuple[Weights, ...]:
        """He-scaled random weights, one tuple of (kernel, bias) pairs per layer."""
        return weights(self.network, self.shape)

    def inputs(self) -> tuple[Array, Array]:
        """A batch of inputs in [0, 1] and their labels."""
        rng = np.random.default_rng(1)
        x = rng.uniform(size=(self.batch, *self.shape)).astype(np.float32)
        return x, rng.integers(self.classes, size=self.batch, dtype=np.int32)


_MLP = Workload("mlp-crown", MLP, (784,), 128, 0.02)
_MNIST = Workload("mnist-crown", MNIST, (28, 28, 1), 32, 0.05, bounded=Bounded.MARGINS)
_ALPHA = replace(_MNIST, name="mnist-alpha", batch=8, method=AlphaCrown())
_RESNET = Workload("resnet2b-crown", RESNET_2B, (32, 32, 3), 4, 1 / 255)
_POOLED = Workload("pooled-crown", POOLED, (28, 28, 1), 16, 0.05)
_TRANSFORMER = Workload("transformer-crown", TRANSFORMER, (8, 16), 8, 0.01)
_IBP = Workload(
    *("cifar-ibp", CNN_7LAYER, (32, 32, 3), 64, 1 / 255, Ibp()),
    bounded=Bounded.MARGINS,
    sides=Sides.LOWER,
)
_STEP = replace(_IBP, name="cifar-crown-ibp-step", method=CrownIbp(), training=True)
_FUSED = replace(_STEP, name="cifar-fused-step", bounded=Bounded.CROSS_ENTROPY, sides=Sides.UPPER)
_STEPS = (replace(_IBP, name="cifar-ibp-step", training=True), _STEP, _FUSED)
_RESNET_18 = Workload("resnet18-crown-ibp", RESNET_18, (32, 32, 3), 1, 1 / 255, CrownIbp())

WORKLOADS: tuple[Workload, ...] = (
    _MLP,
    Workload("mlp-latency", SMALL_MLP, (784,), 1, 0.02),
    replace(_MNIST, name="mnist-crown-lower", sides=Sides.LOWER),
    _MNIST,
    _POOLED,
    replace(_POOLED, name="pooled-twice-crown", network=POOLED_TWICE),
    _RESNET,
    replace(_RESNET, name="resnet4b-crown", network=RESNET_4B, large=True),
    _TRANSFORMER,
    _ALPHA,
    replace(_ALPHA, name="mnist-alpha-inner", method=AlphaCrown(inner=True)),
    _IBP,
    replace(_IBP, name="cifar-crown-ibp", method=CrownIbp()),
    *_STEPS,
    *(
        replace(w, name=f"{w.name}-{n}", network=(*CNN_7LAYER[:-1], Dense(n)), large=True)
        for n in (100, 200)
        for w in _STEPS
    ),
    Workload(
        *("weights-crown-ibp-step", FLAT_MLP, (784,), 500, 0.1, CrownIbp()),
        bounded=Bounded.CROSS_ENTROPY,
        sides=Sides.UPPER,
        perturbed=Perturbed.WEIGHTS,
        training=True,
    ),
    # What fits into memory, one example at a time.
    replace(_RESNET, name="resnet4b-memory", network=RESNET_4B, batch=1, large=True),
    replace(_RESNET_18, large=True),
    replace(
        _RESNET_18,
        name="resnet18-crown",
        method=Crown(rows_per_chunk=256),
        peers=(),
        compile_only=True,
        large=True,
    ),
    *(replace(w, name=f"{w.name}-axes", peers=(Contender.VMAP,)) for w in (_MLP, _MNIST, _RESNET)),
)


def named(name: str, quick: bool) -> Workload:
    """The workload of that name, reduced if ``quick``."""
    (workload,) = (w for w in WORKLOADS if w.name == name)
    return workload.quick() if quick else workload
