"""Guaranteed bounds of JAX functions whose inputs or weights are known only up to a set."""

from importlib.metadata import PackageNotFoundError as _PackageNotFoundError
from importlib.metadata import version as _version

from jaxlirpa._errors import ArgumentError as ArgumentError
from jaxlirpa._errors import ControlFlowError as ControlFlowError
from jaxlirpa._errors import DomainError as DomainError
from jaxlirpa._errors import EffectError as EffectError
from jaxlirpa._errors import ExpensiveJointCallWarning as ExpensiveJointCallWarning
from jaxlirpa._errors import ExtensionError as ExtensionError
from jaxlirpa._errors import LirpaError as LirpaError
from jaxlirpa._errors import SetError as SetError
from jaxlirpa._errors import UnsupportedPrimitiveError as UnsupportedPrimitiveError
from jaxlirpa._methods.alpha_crown import alpha_crown as alpha_crown
from jaxlirpa._methods.crown import crown as crown
from jaxlirpa._methods.crown import crown_ibp as crown_ibp
from jaxlirpa._methods.forward import forward_crown as forward_crown
from jaxlirpa._methods.ibp import ibp as ibp
from jaxlirpa._methods.intermediate import intermediate_bounds as intermediate_bounds
from jaxlirpa._typing import Bounds as Bounds
from jaxlirpa._typing import LinearBounds as LinearBounds
from jaxlirpa.sets import Box as Box
from jaxlirpa.sets import JointBall as JointBall
from jaxlirpa.sets import LpBall as LpBall

try:
    __version__ = _version("jaxlirpa")
except _PackageNotFoundError:  # used from a source tree that is not installed
    __version__ = "0"
