"""Bounds of any function on parts of a box of inputs, by CROWN on the whole program."""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp

from jaxlirpa._arrays import where
from jaxlirpa._intervals import Interval
from jaxlirpa._methods.crown import solve
from jaxlirpa._methods.layerwise import Layerwise
from jaxlirpa._types import Array
from jaxlirpa.verify.call import Frame, Values
from jaxlirpa.verify.condensed import Bounded
from jaxlirpa.verify.inputs import parts
from jaxlirpa.verify.properties import Property
from jaxlirpa.verify.root import traced_problem


@functools.partial(jax.jit, static_argnums=(0, 1))
def walked_bounds(
    prop: Property, frame: Frame, values: Values, clauses: Array, inputs: Interval
) -> Bounded:
    """Lower bounds of clauses on parts of the inputs' box, each the best of its alternatives'.

    Args:
        prop, frame, values: the property, and the call; all sets are boxes.
        clauses: the rows of each, `[batch, alternatives]`.
        inputs: limits of the inputs' deviations from their sets' points, `[batch, n]` each.
    """

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
