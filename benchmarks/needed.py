"""How many multiply-adds a workload cannot do without.

Counted from the layers, for an implementation that wastes nothing:

* Intervals take two multiply-adds for each of the network: one for centres, one for radii.
* A **row** is a linear functional of one value that is carried back to the inputs. Each affine
  layer that it passes costs as many multiply-adds as its part of that layer has; in front of an
  image's pixel only a *window* of the image is touched, which grows by the kernel at each
  convolution. The layer where a row starts costs nothing, because the row is a row of that layer's
  matrix. Functions of single entries are not counted.
* An intermediate value of CROWN takes two rows, a lower and an upper one, for each entry whose
  *interval* leaves open which line holds (for relus: it has zero inside), and that is behind
  another nonlinearity. How many there are depends on weights and inputs; they are counted in the
  measured network.
* An output takes a row for each side that is asked for.
* A gradient takes twice the multiply-adds of its value. A step of alpha-CROWN is a value and a
  gradient with respect to the relaxations alone, which takes as much as the value.

What is left out makes the count too small, so the share of the peak that is derived from it is
never flattering, but for one thing: inside CROWN intervals start from CROWN's own boxes, and so
leave fewer entries open than the plain intervals that are counted here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .networks import (
    Conv,
    Dense,
    Encoder,
    Flatten,
    Layer,
    MaxPool,
    Mean,
    Network,
    Relu,
    Residual,
    Shape,
    output_shape,
)
from .workloads import AlphaCrown, Bounded, Crown, CrownIbp, Ibp, Perturbed, Sides, Workload


@dataclass(frozen=True)
class Sum:
    """The sum of two values."""


@dataclass(frozen=True)
class Node:
    """A layer in a graph; `operands` are the numbers of earlier nodes, -1 is the input."""

    layer: Layer | Sum
    operands: tuple[int, ...]
    received: Shape
    returned: Shape


def expand(network: Network, shape: Shape) -> list[Node]:
    """The network, with its residual blocks taken apart."""
    nodes: list[Node] = []
    shapes = {-1: shape}

    def add(layer: Layer | Sum, *operands: int) -> int:
        received = shapes[operands[0]]
        returned = received if isinstance(layer, Sum) else output_shape(layer, received)
        nodes.append(Node(layer, operands, received, returned))
        shapes[len(nodes) - 1] = returned
        return len(nodes) - 1

    at = -1
    for layer in network:
        if not isinstance(layer, Residual):
            at = add(layer, at)
            continue
        shortcut = layer.shortcut(shapes[at][-1])
        beside = at if shortcut is None else add(shortcut, at)
        inner = add(Relu(), add(layer.first, at))
        at = add(Relu(), add(Sum(), add(layer.second, inner), beside))
    return nodes


@dataclass(frozen=True)
class Front:
    """What a row has reached: some pixels of a value, and whether it is still a matrix row."""

    window: Shape
    fresh: bool


def reach(nodes: Sequence[Node], target: int) -> dict[int, Front]:
    """What a row from one entry of a node reaches: at every node before it, of what it returns."""
    pixel = tuple(1 for _ in nodes[target].returned[:-1])
    fronts = {target: Front(pixel, fresh=True)}
    for index in range(target, -1, -1):
        if index not in fronts:
            continue
        passed = _pass(nodes[index], fronts[index])
        for operand in nodes[index].operands:
            before = fronts.get(operand, passed)
            window = tuple(map(max, before.window, passed.window))
            fronts[operand] = Front(window, before.fresh and passed.fresh)
    return fronts


def per_row(nodes: Sequence[Node], target: int) -> int:
    """The multiply-adds of one row from the output of a node to the input."""
    fronts = reach(nodes, target)
    return sum(_cost(nodes[index], front) for index, front in fronts.items() if index >= 0)


def _cost(node: Node, front: Front) -> int:
    match node.layer:
        case Encoder():
            return encoder_row(node.layer, node.received)
        case Dense(features) if not front.fresh:
            return node.received[-1] * features
        case Conv(features, size) if not front.fresh:
            return math.prod(front.window) * size**2 * node.received[-1] * features
        case _:
            return 0


def _pass(node: Node, front: Front) -> Front:
    pixels = node.received[:-1]
    match node.layer:
        case Relu() | Encoder():
            return Front(front.window, fresh=False)
        case MaxPool(size):
            return Front(
                tuple(min(n * size, m) for n, m in zip(front.window, pixels, strict=True)), False
            )
        case Flatten() | Mean():
            return Front(pixels, front.fresh)
        case Conv(_, size, stride):
            grown = ((n - 1) * stride + size for n in front.window)
            return Front(tuple(map(min, grown, pixels)), front.fresh)
        case _:
            return front


def encoder_row(layer: Encoder, shape: Shape) -> int:
    """Of a row from all tokens through a whole encoder layer.

    Queries, keys, values and the attention's output are square matrices that every token passes;
    scores and mixtures pair all tokens, in each of the two operands of their product.
    """
    tokens, features = shape
    projections = 4 * tokens * features**2
    products = 2 * 2 * tokens**2 * features
    return projections + products + 2 * tokens * features * layer.hidden


def encoder_inner(layer: Encoder, shape: Shape) -> int:
    """Of all rows that start inside an encoder layer, one side.

    Scores (from one token's query and one's key), deviations and variances of the first
    normalisation (from one token, whose attention reads all), operands of relus, and deviations and
    variances of the second one. Queries, keys and values are affine in the input: they take none.
    """
    tokens, features = shape
    each = features // layer.heads
    score = 2 * each * features
    attended = (1 + 2 * tokens) * features**2 + 3 * tokens * features
    normalised = features**2 + attended
    relu = normalised
    second = features * layer.hidden + normalised
    rows = tokens * (features + 1)
    return (
        tokens**2 * layer.heads * score
        + rows * attended
        + tokens * layer.hidden * relu
        + rows * second
    )


def _forward(nodes: Sequence[Node]) -> int:
    """The multiply-adds of the network on one example."""
    total = 0
    for node in nodes:
        match node.layer:
            case Dense():
                total += math.prod(node.received) * node.returned[-1]
            case Conv(_, size):
                total += math.prod(node.returned) * size**2 * node.received[-1]
            case Encoder(_, hidden):
                tokens, features = node.received
                total += 4 * tokens * features**2 + 2 * tokens**2 * features
                total += 2 * tokens * features * hidden
            case _:
                pass
    return total


def multiply_adds(workload: Workload, rows: Sequence[int]) -> int:
    """What a run of a workload cannot do without.

    Args:
        workload: the workload.
        rows: for every relu outside of encoder layers, how many entries of the batch have an
            interval with zero inside.
    """
    nodes, batch = expand(workload.network, workload.shape), workload.batch
    intervals = 2 * batch * _forward(nodes)
    if workload.method == Ibp():
        return intervals * (3 if workload.training else 1)
    classes = workload.classes
    outputs = {Bounded.OUTPUTS: classes, Bounded.MARGINS: classes - 1, Bounded.CROSS_ENTROPY: 1}
    sides = 2 if workload.sides is Sides.BOTH else 1
    # One row of margins is a row of the last matrix; that of a loss is a sum of several.
    last = sides * batch * outputs[workload.bounded] * per_row(nodes, len(nodes) - 1)
    if workload.perturbed is Perturbed.WEIGHTS:  # a row's coefficients on all matrices, too
        last += sides * batch * outputs[workload.bounded] * _forward(nodes)
    if workload.method == CrownIbp():
        return (intervals + last) * (3 if workload.training else 1)
    inner = 0
    relus = [node.operands[0] for node in nodes if isinstance(node.layer, Relu)]
    for target, count in zip(relus, rows, strict=True):
        inner += 2 * count * per_row(nodes, target)
    for node in nodes:
        if isinstance(node.layer, Encoder):
            inner += 2 * batch * encoder_inner(node.layer, node.received)
    match workload.method:
        case AlphaCrown(steps, True):
            return intervals + (1 + 2 * steps) * (inner + last)
        case AlphaCrown(steps):
            return intervals + inner + (1 + 2 * steps) * last
        case Crown() | Ibp() | CrownIbp():
            return intervals + inner + last
