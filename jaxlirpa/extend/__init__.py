"""What users add to jaxlirpa: functions, primitives, sets and domains of their own.

`univariate` declares a function of one number, `primitive` what a primitive of JAX is, `check_set`
holds a set against its members, and `trace`, `forward` and `backward` run a domain. The guide is
docs/extending.md. Nothing is declared by importing this module.
"""

from jaxlirpa._graph.graph import Graph as Graph
from jaxlirpa._graph.graph import Node as Node
from jaxlirpa._graph.graph import Ref as Ref
from jaxlirpa._ops.families import Affine as Affine
from jaxlirpa._ops.families import Bilinear as Bilinear
from jaxlirpa._ops.families import Elementwise as Elementwise
from jaxlirpa._ops.families import Joint as Joint
from jaxlirpa._ops.families import Move as Move
from jaxlirpa._ops.families import Opaque as Opaque
from jaxlirpa._ops.families import Repeated as Repeated
from jaxlirpa._ops.registry import record as record
from jaxlirpa._relax.family import Family as Family
from jaxlirpa._relax.lines import Adjustable as Adjustable
from jaxlirpa._relax.lines import Lines as Lines
from jaxlirpa._relax.lines import Relaxation as Relaxation
from jaxlirpa._relax.planes import AdjustableJointly as AdjustableJointly
from jaxlirpa._relax.planes import JointRelaxation as JointRelaxation
from jaxlirpa._relax.planes import Plane as Plane
from jaxlirpa._relax.planes import Planes as Planes
from jaxlirpa._typing import Interval as Interval
from jaxlirpa._walk import BackwardDomain as BackwardDomain
from jaxlirpa._walk import ForwardDomain as ForwardDomain
from jaxlirpa._walk import backward as backward
from jaxlirpa._walk import forward as forward
from jaxlirpa.extend.domains import Traced as Traced
from jaxlirpa.extend.domains import trace as trace
from jaxlirpa.extend.primitives import Registration as Registration
from jaxlirpa.extend.primitives import primitive as primitive
from jaxlirpa.extend.sets import check_set as check_set
from jaxlirpa.extend.univariate import relaxation as relaxation
from jaxlirpa.extend.univariate import univariate as univariate
from jaxlirpa.sets import ArraySet as ArraySet
from jaxlirpa.sets import PerturbationSet as PerturbationSet
