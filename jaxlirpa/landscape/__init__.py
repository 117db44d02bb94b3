"""Certified landscapes: what a loss can be, anywhere within a distance of the weights.

All of it is the transforms of `jaxlirpa` with sets in the weights' place. `plotting`, which
needs matplotlib, is imported on its own: `from jaxlirpa.landscape import plotting`.
"""

from jaxlirpa.landscape.band import certified_band, flat_loss
from jaxlirpa.landscape.neighbourhoods import every_leaf, every_matrix, jointly
from jaxlirpa.landscape.predictions import unchanged
from jaxlirpa.landscape.quantisation import NEVER, certified_bits, quantisation_cell, quantise
from jaxlirpa.landscape.radius import accuracy_radius, flat_radius, largest_certified, stable_radii
from jaxlirpa.landscape.search import attained, extreme, sampled
from jaxlirpa.landscape.sharpness import (
    curvature_bounds,
    gradient_bounds,
    hessian_vector_bounds,
    slope_bounds,
    steepness,
)
from jaxlirpa.landscape.slices import Slice, certified_slice, random_directions

__all__ = [
    "NEVER",
    "Slice",
    "accuracy_radius",
    "attained",
    "certified_band",
    "certified_bits",
    "certified_slice",
    "curvature_bounds",
    "every_leaf",
    "every_matrix",
    "extreme",
    "flat_loss",
    "flat_radius",
    "gradient_bounds",
    "hessian_vector_bounds",
    "jointly",
    "largest_certified",
    "quantisation_cell",
    "quantise",
    "random_directions",
    "sampled",
    "slope_bounds",
    "stable_radii",
    "steepness",
    "unchanged",
]
