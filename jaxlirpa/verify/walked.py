"""Bounds of any function on parts of a box of inputs, by CROWN on the whole program."""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxlirpa._arrays import where
from jaxlirpa._intervals import Interval
from jaxlirpa._methods.crown import solve
from jaxlirpa._methods.layerwise import Layerwise
from jaxlirpa._types import Array
from jaxlirpa.verify.call import Frame, Values
from jaxlirpa.verify.condensed import Bounded, Subproblems
from jaxlirpa.verify.inputs import parts
from jaxlirpa.verify.instance import Instance
from jaxlirpa.verify.properties import Property
from jaxlirpa.verify.root import traced_problem


def walked_bounds(instance: Instance, sub: Subproblems) -> Bounded:
    """Lower bounds of clauses on parts of the inputs' box, each the best of its alternatives'.

    Args:
        instance: what is verified; all its sets are boxes.
        sub: the subproblems.
    """
    assert sub.inputs is not None
    with jax.enable_x64(True):
        limits = Interval(*(jnp.asarray(np.asarray(limit), float) for limit in sub.inputs))
        rows = jnp.asarray(np.asarray(sub.rows))
        return _walked(instance.prop, instance.frame, instance.exact, rows, limits)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _walked(
    prop: Property, frame: Frame, values: Values, clauses: Array, inputs: Interval
) -> Bounded:
    def one(clause: Array, limits: Interval) -> Bounded:
        call = dataclasses.replace(frame.call(values), sets=parts(values.sets, limits))
        problem = traced_problem(prop, call)
        (found,) = solve(problem, Layerwise())
        lower = where(jnp.isnan(found.box.lower), -jnp.inf, found.box.lower)[clause]
        assert found.lower is not None
        slopes = [
            found.lower.coefficients[ref][clause].reshape(len(clause), -1)
            if ref in found.lower.coefficients
            else jnp.zeros((len(clause), math.prod(own.aval.shape)), lower.dtype)
            for ref, own in problem.sets.items()
        ]
        joined = jnp.concatenate(slopes, 1)
        best = jnp.argmax(lower)
        x = where(joined[best] >= 0, limits.lower, limits.upper)
        return Bounded(lower[best], x, jnp.zeros(0, lower.dtype), jnp.sum(jnp.abs(joined), 0))

    return jax.vmap(one)(clauses, inputs)
