"""Functions of several perturbed values, or of several entries of one."""

from __future__ import annotations

from collections.abc import Sequence

from jaxlirpa._graph.graph import Node, Ref
from jaxlirpa._intervals import Interval
from jaxlirpa._ops.families import Joint, Record, Refined, operand_boxes
from jaxlirpa._relax.ball_product import Inner
from jaxlirpa._relax.choice import Choice
from jaxlirpa._relax.extremum import LargestOf, Maximum
from jaxlirpa._relax.normalised_entry import Normalised
from jaxlirpa._relax.planes import AdjustableJointly, JointRelaxation, Plane, Planes, family
from jaxlirpa._relax.product import Product
from jaxlirpa._relax.relaxations import Relaxations
from jaxlirpa._relax.softmax_entry import Softmax, of_logits
from jaxlirpa._relax.sumexp import LogSumExp
from jaxlirpa._types import Array


def _axes(node: Node) -> tuple[int, ...]:
    return tuple(node.params["axes"])


def _mask(node: Node) -> Array | None:
    return node.known[0] if node.known else None


def _enclosed(node: Node, boxes: Sequence[Interval]) -> Interval:
    """What a rule that rewrote the value knows of it besides."""
    return node.params["image"](boxes)


class _Partial(AdjustableJointly):
    """A relaxation some of whose operands are known."""

    def __init__(self, node: Node, relaxation: JointRelaxation):
        self.node, self.relaxation = node, relaxation

    def image(self, boxes: Sequence[Interval]) -> Interval:
        """As with boxes of one point in the place of what is known."""
        return self.relaxation.image(operand_boxes(self.node.operands, boxes))

    def family(self, boxes: Sequence[Interval]) -> Relaxations[Planes]:
        """What is known goes to the offset."""
        whole = family(self.relaxation, operand_boxes(self.node.operands, boxes))
        return whole.map(lambda planes: Planes(*map(self._without_known, planes)))

    def _without_known(self, plane: Plane) -> Plane:
        kept, offset = [], plane.offset
        for slope, operand in zip(plane.slopes, self.node.operands, strict=True):
            if isinstance(operand, Ref):
                kept.append(slope)
            elif slope is not None:
                offset = offset + slope * operand
        return Plane(tuple(kept), offset)


RECORDS: dict[str, Record] = {
    "ball_product": Joint(
        lambda node: Inner(node.known[0], node.params["ord"]),
        axes=_axes,
        operands=(0, 1),
    ),
    "choose": Joint(lambda node: _Partial(node, Choice())),
    "inner_product": Joint(lambda node: Product(_axes(node)), axes=_axes),
    "largest": Joint(lambda node: LargestOf(node.params["mask"])),
    "logsumexp": Joint(lambda node: LogSumExp(_axes(node), _mask(node)), axes=_axes, operands=(0,)),
    "normalise": Joint(lambda node: Normalised(**node.params)),
    "product": Joint(lambda node: Product()),
    "reduce_max": Joint(lambda node: Maximum(_axes(node), _mask(node)), axes=_axes, operands=(0,)),
    "softmax": Joint(lambda node: Softmax(*_axes(node)), axes=_axes, merged=of_logits),
    "refined": Refined(_enclosed),
}
