"""What is known of a perturbed argument: a set of the values that it may take."""

from jaxlirpa.sets.ball import LpBall as LpBall
from jaxlirpa.sets.base import ArraySet as ArraySet
from jaxlirpa.sets.base import PerturbationSet as PerturbationSet
from jaxlirpa.sets.box import Box as Box
from jaxlirpa.sets.joint import JointBall as JointBall
from jaxlirpa.sets.relative import relative_to_entries as relative_to_entries
from jaxlirpa.sets.relative import relative_to_norm as relative_to_norm
