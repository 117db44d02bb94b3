"""What is known of a perturbed argument: a set of the values that it may take."""

from jaxlirpa.sets.ball import LpBall
from jaxlirpa.sets.base import ArraySet, PerturbationSet
from jaxlirpa.sets.box import Box
from jaxlirpa.sets.joint_ball import JointBall
from jaxlirpa.sets.relative import relative_to_entries, relative_to_norm

__all__ = [
    "ArraySet",
    "Box",
    "JointBall",
    "LpBall",
    "PerturbationSet",
    "relative_to_entries",
    "relative_to_norm",
]
