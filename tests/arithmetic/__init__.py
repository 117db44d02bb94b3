"""Programs of JAX computed by NumPy: traced as a whole, with nothing to compile.

XLA compiles a small program a hundred times longer than it runs it. Here a program is traced once,
as `jax.jit` traces it, and its equations are computed one by one in NumPy. It is the same program
in another arithmetic. What no rule knows is computed by JAX, one operation at a time.

`JAXLIRPA_TESTS` says how the tests compute:

* unset: in NumPy.
* `xla`: by XLA, each call as one compiled program, and in NumPy: the results must agree.
* `eager`: as JAX does without `jit`, operation by operation.
"""

from arithmetic.calling import call, computed, jit
from arithmetic.program import run

__all__ = ["call", "computed", "jit", "run"]
