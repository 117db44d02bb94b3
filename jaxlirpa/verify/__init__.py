"""Complete verification: does a property hold on all of a set?

`verify(fn)(params, x, eps)` proves or refutes that all outputs of `fn` are positive on the set. It
bounds as `jaxlirpa.alpha_crown` does, and closes the gap that is left by branch and bound.
"""

from jaxlirpa.verify.branch_and_bound import branch_and_bound
from jaxlirpa.verify.cache import cache_folder, clear_cache
from jaxlirpa.verify.certificate import Certificate, recheck
from jaxlirpa.verify.driver import verify
from jaxlirpa.verify.optimise import Ascent
from jaxlirpa.verify.progress import progress_bar
from jaxlirpa.verify.properties import Property, all_of, any_of, any_output
from jaxlirpa.verify.strategies import InputSplits, NeuronSplits
from jaxlirpa.verify.verdict import Progress, Statistics, Verdict

__all__ = [
    "Ascent",
    "Certificate",
    "InputSplits",
    "NeuronSplits",
    "Progress",
    "Property",
    "Statistics",
    "Verdict",
    "all_of",
    "any_of",
    "any_output",
    "branch_and_bound",
    "cache_folder",
    "clear_cache",
    "progress_bar",
    "recheck",
    "verify",
]
