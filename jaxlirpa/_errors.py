"""Every error of the package. Each says what was met, where, and what to do about it."""

from __future__ import annotations


class LirpaError(Exception):
    """Base of all errors that jaxlirpa raises on purpose."""


class ArgumentError(LirpaError, ValueError):
    """A transformed function was called with arguments that do not fit."""


class SetError(LirpaError, ValueError):
    """A perturbation set is empty, of a wrong type, or does not fit its centre."""


class ControlFlowError(LirpaError, TypeError):
    """Python, or a loop, needed the value of something that is known only up to a set."""


class EffectError(LirpaError, TypeError):
    """The function prints, calls back to Python, or has another side effect."""


class UnsupportedPrimitiveError(LirpaError, NotImplementedError):
    """A perturbed value reaches a primitive for which there is no sound rule."""

    def __init__(self, primitive: str, source: str, operands: str, reason: str):
        super().__init__(
            f"No sound bound for the primitive `{primitive}`: {reason}\n"
            f"  called at {source or 'an unknown place'}\n"
            f"  with {operands}\n"
            "Either rewrite that line with supported operations, or compute it from values that "
            "are not perturbed (those are never bounded, only evaluated)."
        )
        self.primitive = primitive
        self.source = source


class DomainError(LirpaError, ValueError):
    """A function is applied to values some of which may lie outside of its domain."""

    def __init__(self, primitive: str, source: str, domain: str, lower: float, upper: float):
        super().__init__(
            f"`{primitive}` may be applied outside of its domain: {domain}, but an operand is only "
            f"known to lie in [{lower}, {upper}]\n"
            f"  called at {source or 'an unknown place'}\n"
            "Either make the sets smaller, keep the operand inside the domain (jnp.maximum, "
            "jnp.clip; in a branch of jnp.where, which is computed for all entries, by another "
            f"one: jnp.where(ok, {primitive}(jnp.where(ok, x, 1)), 0)), or use a method with "
            "tighter intermediate bounds. (Inside jax.jit, where no error can be raised, the "
            "bounds are infinite.)"
        )
        self.primitive = primitive
        self.source = source


class ExtensionError(LirpaError, ValueError):
    """What a user declared does not hold, or clashes with what is declared already."""


class ExpensiveJointCallWarning(UserWarning):
    """A batch is bounded as one joint vector, at the square of the cost of its rows."""


class UntrainedBatchNormWarning(UserWarning):
    """A network is evaluated with the statistics that BatchNorm begins with, zero and one."""


class MixedExamplesWarning(UserWarning):
    """A statistic over the batch was taken of a batch of one example."""
