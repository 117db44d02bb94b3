"""Guaranteed bounds of JAX functions whose inputs or weights are known only up to a set."""

from importlib.metadata import PackageNotFoundError as _PackageNotFoundError
from importlib.metadata import version as _version

from jaxlirpa._errors import (
    ArgumentError,
    ControlFlowError,
    DomainError,
    EffectError,
    ExpensiveJointCallWarning,
    ExtensionError,
    LirpaError,
    SetError,
    UnsupportedPrimitiveError,
)
from jaxlirpa._methods.alpha_crown import alpha_crown
from jaxlirpa._methods.crown import crown, crown_ibp
from jaxlirpa._methods.explain import Explanation, explain
from jaxlirpa._methods.forward import forward_crown
from jaxlirpa._methods.ibp import ibp
from jaxlirpa._methods.intermediate import intermediate_bounds
from jaxlirpa._methods.saved import IntermediateBounds
from jaxlirpa._types import Bounds, LinearBounds
from jaxlirpa.sets import Box, JointBall, LpBall

__all__ = [
    "ArgumentError",
    "Bounds",
    "Box",
    "ControlFlowError",
    "DomainError",
    "EffectError",
    "ExpensiveJointCallWarning",
    "Explanation",
    "ExtensionError",
    "IntermediateBounds",
    "JointBall",
    "LinearBounds",
    "LirpaError",
    "LpBall",
    "SetError",
    "UnsupportedPrimitiveError",
    "alpha_crown",
    "crown",
    "crown_ibp",
    "explain",
    "forward_crown",
    "ibp",
    "intermediate_bounds",
]

try:
    __version__ = _version("jaxlirpa")
except _PackageNotFoundError:  # used from a source tree that is not installed
    __version__ = "0"
