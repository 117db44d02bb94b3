"""What users add to jaxlirpa: functions, primitives, sets and domains of their own.

`univariate` declares a function of one number, `primitive` what a primitive of JAX is, `check_set`
holds a set against its members, and `trace`, `forward` and `backward` run a domain. The guide is
docs/extending.md. Nothing is declared by importing this module.
"""

from jaxlirpa._graph.graph import Graph, Node, Ref
from jaxlirpa._intervals import Interval
from jaxlirpa._ops.families import (
    Affine,
    Bilinear,
    Elementwise,
    Joint,
    LoopFamily,
    Move,
    Opaque,
    Refined,
)
from jaxlirpa._ops.registry import record
from jaxlirpa._relax.lines import Adjustable, Lines, Relaxation
from jaxlirpa._relax.planes import AdjustableJointly, JointRelaxation, Plane, Planes
from jaxlirpa._relax.relaxations import Relaxations
from jaxlirpa._walk import BackwardDomain, ForwardDomain, backward, forward
from jaxlirpa.extend.domains import Traced, trace
from jaxlirpa.extend.functions import relaxation, univariate
from jaxlirpa.extend.primitives import Registration, primitive
from jaxlirpa.extend.sets import check_set
from jaxlirpa.sets import ArraySet, PerturbationSet
from jaxlirpa.sets.per_example import one_by_one

__all__ = [
    "Adjustable",
    "AdjustableJointly",
    "Affine",
    "ArraySet",
    "BackwardDomain",
    "Bilinear",
    "Elementwise",
    "ForwardDomain",
    "Graph",
    "Interval",
    "Joint",
    "JointRelaxation",
    "Lines",
    "LoopFamily",
    "Move",
    "Node",
    "Opaque",
    "PerturbationSet",
    "Plane",
    "Planes",
    "Ref",
    "Refined",
    "Registration",
    "Relaxation",
    "Relaxations",
    "Traced",
    "backward",
    "check_set",
    "forward",
    "one_by_one",
    "primitive",
    "record",
    "relaxation",
    "trace",
    "univariate",
]
